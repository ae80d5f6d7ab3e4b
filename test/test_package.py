# SPDX-License-Identifier: Apache-2.0
"""The package as installed by colcon, from a wheel and as editable, and in a checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.weights_file import embedded_path, save_weights

ROOT = Path(__file__).parents[1]
COMMANDS = ('seg_node', 'rock_seg')
WEIGHTS = Path('rock_seg_ros', 'weights', 'resnet50.safetensors')
SITE_PACKAGES = sysconfig.get_path('purelib')

FIND_WEIGHTS = """
from pathlib import Path
from rock_seg_ros.perception.inference.weights_file import EMBEDDED, embedded_path
assert all(embedded_path(name).is_file() for name in EMBEDDED)
print(embedded_path('resnet50'))
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Runs a command with the folder of this Python first in PATH; returns its output."""
    bin_first = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    result = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {'PATH': bin_first} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def pip(*arguments: str | Path, cwd: Path) -> None:
    options = ('--disable-pip-version-check', '--no-input', '--no-deps', '--no-build-isolation')
    run(sys.executable, '-m', 'pip', *arguments, *options, cwd=cwd)


@pytest.fixture(scope='module')
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder as working directory."""
    return tmp_path_factory.mktemp('elsewhere')


@pytest.fixture(scope='module')
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean copy of the checkout; small weights replace missing ones."""
    folder = tmp_path_factory.mktemp('workspace') / 'src' / 'rock_seg_ros'
    ignored = ('.*', 'build', 'install', 'log', 'runs', 'demo_out', '*.egg-info', '__pycache__')
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored))
    if not (folder / WEIGHTS).exists():
        save_weights(folder / WEIGHTS, {'nothing.weight': torch.zeros(2, 2)}, ModelMetadata())
    return folder


@pytest.fixture(scope='module')
def workspace(source: Path) -> Path:
    """A workspace in which colcon has built the package."""
    workspace = source.parents[1]
    run('colcon', '--log-base', 'log', 'build', '--packages-select', 'rock_seg_ros', cwd=workspace)
    return workspace


def in_workspace(workspace: Path, command: str, cwd: Path) -> str:
    """Runs a shell command with only this workspace sourced."""
    sourced = f'. "{workspace}/install/local_setup.bash" && {command}'
    return run('bash', '-c', sourced, cwd=cwd)


def test_both_commands_are_where_ros2_run_finds_them(workspace: Path, elsewhere: Path) -> None:
    program = (
        'from ament_index_python.packages import get_package_prefix as prefix;'
        'print(prefix("rock_seg_ros"))'
    )
    prefix = Path(in_workspace(workspace, f"python3 -c '{program}'", elsewhere).strip())
    assert prefix.is_relative_to(workspace)
    for name in COMMANDS:
        command = prefix / 'lib' / 'rock_seg_ros' / name
        assert os.access(command, os.X_OK)
        assert command.read_text().splitlines()[0] == '#!/usr/bin/env python3'


@pytest.mark.parametrize('name', COMMANDS)
def test_a_sourced_workspace_has_its_commands_on_the_path(
    workspace: Path, elsewhere: Path, name: str
) -> None:
    found = Path(in_workspace(workspace, f'command -v {name}', elsewhere).strip())
    assert found == workspace / 'install' / 'rock_seg_ros' / 'lib' / 'rock_seg_ros' / name


def test_a_sourced_workspace_completes_the_options_of_its_command(
    workspace: Path, elsewhere: Path
) -> None:
    assert '-F _python_argcomplete' in in_workspace(workspace, 'complete -p rock_seg', elsewhere)


def test_the_installed_command_runs_in_a_virtual_environment_with_its_weights(
    workspace: Path, elsewhere: Path
) -> None:
    facts = json.loads(in_workspace(workspace, 'rock_seg info --json', elsewhere))
    assert Path(facts['file']).is_relative_to(workspace / 'install')


def test_the_installed_node_runs_in_a_virtual_environment(workspace: Path, elsewhere: Path) -> None:
    output = in_workspace(
        workspace, 'seg_node --ros-args --params-file none.yaml 2>&1 || echo "status $?"', elsewhere
    )
    assert 'seg_node: ' in output
    assert 'none.yaml' in output
    assert output.endswith('status 1\n')


def test_colcon_installs_the_package_without_training_and_tests(workspace: Path) -> None:
    installed = workspace / 'install' / 'rock_seg_ros'
    (package,) = installed.glob('lib/python*/site-packages/rock_seg_ros')
    assert (package / 'py.typed').exists()
    top = {path.name for path in package.parent.iterdir() if path.suffix != '.egg-info'}
    assert top <= {'rock_seg_ros', '__pycache__'}


def test_colcon_installs_launch_config_and_demo_files(workspace: Path) -> None:
    share = workspace / 'install' / 'rock_seg_ros' / 'share' / 'rock_seg_ros'
    assert (share / 'package.xml').exists()
    assert (share / 'launch' / 'seg.launch.py').exists()
    config = {path.name for path in (share / 'config').iterdir()}
    nav2 = {'nav2_costmap.yaml', 'nav2_semantic_costmap.yaml'}
    assert config == {'fastdds.xml', 'foxglove_layout.json', 'seg.yaml', 'seg.rviz'} | nav2
    hooks = {path.name for path in (share / 'hook').iterdir()}
    assert {'commands.dsv', 'completion.bash', 'completion.zsh'} <= hooks
    files = [path for path in (ROOT / 'demo').rglob('*') if path.is_file()]
    wanted = {path.relative_to(ROOT) for path in files if path.suffix not in ('.py', '.pyc')}
    found = {path.relative_to(share) for path in (share / 'demo').rglob('*') if path.is_file()}
    assert found == wanted


def test_a_wheel_contains_weights_and_templates_without_training_and_tests(
    source: Path, elsewhere: Path
) -> None:
    wheels, target = elsewhere / 'wheels', elsewhere / 'target'
    pip('wheel', '-w', wheels, source, cwd=elsewhere)
    (wheel,) = wheels.iterdir()
    pip('install', '--target', target, wheel, cwd=elsewhere)
    found = run(sys.executable, '-c', FIND_WEIGHTS, cwd=elsewhere, PYTHONPATH=str(target))
    assert Path(found.strip()).is_relative_to(target)
    assert not {'training', 'test', 'demo'} & {path.name for path in target.iterdir()}
    inside, there = ROOT / 'rock_seg_ros', target / 'rock_seg_ros'
    templates = {path.relative_to(inside) for path in inside.rglob('*.jinja')}
    assert templates
    assert templates == {path.relative_to(there) for path in there.rglob('*.jinja')}
    for name in ('tools/completion.json', 'tools/bag/foxglove_msgs.msg'):
        assert (there / name).is_file()


def test_an_editable_install_finds_the_weights_of_its_checkout(
    source: Path, elsewhere: Path
) -> None:
    venv = elsewhere / 'venv'
    run(sys.executable, '-m', 'venv', '--without-pip', venv, cwd=elsewhere)
    python = venv / 'bin' / 'python'
    # Only the dependencies come from this environment, not the package itself.
    (site,) = venv.glob('lib/python*/site-packages')
    (site / 'needed.pth').write_text(SITE_PACKAGES)
    pip('--python', python, 'install', '-e', source, cwd=elsewhere)
    found = run(python, '-c', FIND_WEIGHTS, cwd=elsewhere, PYTHONPATH='')
    assert Path(found.strip()) == source / WEIGHTS
    assert all((venv / 'bin' / name).exists() for name in COMMANDS)


def test_a_checkout_finds_its_weights() -> None:
    assert embedded_path('resnet50') == ROOT / WEIGHTS


def test_the_manifest_names_every_ros_package_that_the_code_imports() -> None:
    manifest = ET.parse(ROOT / 'package.xml').getroot()
    named = {element.text for element in manifest if element.tag.endswith('depend')}
    sources = [*ROOT.glob('rock_seg_ros/**/*.py'), *ROOT.glob('launch/*.py')]
    assert sources
    imported = set()
    for file in sources:
        for line in file.read_text().splitlines():
            words = line.split()
            if words[:1] in (['import'], ['from']):
                imported.add(words[1].split('.')[0])
    ros = {name for name in imported if name.endswith(('_msgs', '_interfaces', '_srvs'))}
    ros |= imported & {'rclpy', 'cv_bridge', 'launch', 'launch_ros', 'ament_index_python'}
    assert ros - named == set()
    assert {'rclpy', 'launch_ros', 'sensor_msgs'} <= ros


def test_setup_and_manifest_agree_on_the_version(source: Path) -> None:
    version = run(sys.executable, 'setup.py', '--version', cwd=source).strip()
    assert version == ET.parse(ROOT / 'package.xml').getroot().findtext('version')
