# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = ROOT / 'environment' / 'lock'
LOCKED = re.compile(r'([a-z0-9-]+)==(\S+)(?: ; [^\\\n]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+')
PINS = re.compile(r'^([\w-]+)(?:\[\w+\])?==(\S+)$', re.MULTILINE)

# A substitute for Python with what create.sh calls. It has the modules in MODULES, and its pip
# records its arguments and exits with PIP_STATUS.
FAKE_PYTHON = r"""#!/bin/sh
case "$*" in
  *_base_executable*) echo "$0" ;;
  *version_info*) echo "$VERSION $VERSION.1 $PREFIX" ;;
  '-c import '*) case " $MODULES " in *" ${2#import } "*) ;; *) exit 1 ;; esac ;;
  '-m venv '*)
    for folder in "$@"; do :; done
    mkdir -p "$folder/bin" && touch "$folder/pyvenv.cfg" && cp "$0" "$folder/bin/python"
    echo "$*" >>"$LOG" ;;
  '-m pip '*) echo "$*" >>"$LOG"; exit "${PIP_STATUS:-0}" ;;
esac
"""


class SetUp:
    """The set-up of a checkout in a temporary folder, with a substitute for Python."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = folder / 'checkout' / 'environment'
        shutil.copytree(ROOT / 'environment', self.environment)
        self.venv = folder / 'checkout' / '.venv'
        self.python = folder / 'python'
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)
        self.log = folder / 'log'
        uname = folder / 'bin' / 'uname'
        uname.parent.mkdir()
        uname.write_text('#!/bin/sh\necho "$MACHINE"\n')
        uname.chmod(0o755)

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        variables = {
            'PATH': f'{self.folder / "bin"}{os.pathsep}{os.environ["PATH"]}',
            'MACHINE': 'x86_64',
            'PYTHON': str(self.python),
            'VERSION': '3 12 3.12',
            'PREFIX': '/usr',
            'MODULES': 'ensurepip rclpy',
            'LOG': str(self.log),
        }
        return subprocess.run(
            [self.environment / 'create.sh', *arguments],
            env=variables | changes,
            capture_output=True,
            text=True,
            check=False,
        )

    def key(self, **changes: str) -> str:
        result = self.run('--key', **changes)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def set_up(tmp_path: Path) -> SetUp:
    return SetUp(tmp_path)


def error_of(result: subprocess.CompletedProcess[str]) -> str:
    """Returns the error of a failed set-up after a check that it has one line."""
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def test_the_key_changes_with_each_input(set_up: SetUp) -> None:
    keys = [
        set_up.key(),
        set_up.key(VERSION='3 13 3.13'),
        set_up.key(PREFIX='/opt/python'),
        set_up.key(ROS_DISTRO='jazzy'),
        set_up.key(ROS_DISTRO='kilted'),
        set_up.key(VENV=str(set_up.folder / 'elsewhere')),
    ]
    for pins in sorted(set_up.environment.rglob('*.txt')):
        if 'docs' in pins.stem:  # they have their own virtual environment
            continue
        pins.write_text(pins.read_text() + 'another==1.0\n')
        keys.append(set_up.key())
    assert len(set(keys)) == len(keys) == 14


def test_the_documentation_does_not_change_the_key(set_up: SetUp) -> None:
    before = set_up.key()
    for name in ('requirements-docs.txt', 'lock/docs.txt'):
        pins = set_up.environment / name
        pins.write_text(pins.read_text() + 'another==1.0\n')
    assert set_up.key() == before


def test_the_same_inputs_give_the_same_key(set_up: SetUp) -> None:
    assert set_up.key() == set_up.key()


@pytest.mark.parametrize('distro', ['humble', 'iron', 'foxy', 'noetic'])
def test_an_old_ros_is_rejected_with_the_remedy_for_a_jetson(set_up: SetUp, distro: str) -> None:
    line = error_of(set_up.run(ROS_DISTRO=distro))
    assert distro in line
    assert 'Jetson' in line
    assert 'ros:jazzy' in line


@pytest.mark.parametrize('version', ['2 7', '3 10', '3 14'])
def test_an_unsupported_python_is_rejected(set_up: SetUp, version: str) -> None:
    line = error_of(set_up.run(VERSION=f'{version} {version}'))
    assert version.replace(' ', '.') in line
    assert '3.11 to 3.13' in line


@pytest.mark.parametrize('version', ['3 11', '3 12', '3 13'])
def test_a_supported_python_is_accepted(set_up: SetUp, version: str) -> None:
    assert set_up.key(VERSION=f'{version} {version}')


def test_a_missing_python_is_rejected(set_up: SetUp) -> None:
    assert 'no-such-python is no Python' in error_of(set_up.run(PYTHON='no-such-python'))


def test_a_python_without_venv_is_rejected(set_up: SetUp) -> None:
    assert 'python3-venv' in error_of(set_up.run(MODULES=''))


def test_a_python_that_cannot_import_the_sourced_ros_is_rejected(set_up: SetUp) -> None:
    line = error_of(set_up.run(ROS_DISTRO='jazzy', MODULES='ensurepip'))
    assert 'no rclpy' in line


def test_without_a_sourced_ros_its_packages_come_from_pypi(set_up: SetUp) -> None:
    assert set_up.run().returncode == 0
    made, _, pins, package = set_up.calls()
    assert '--system-site-packages' not in made
    assert 'lock/ros.txt' in pins
    assert package.endswith(f'-e {set_up.environment.parent}')


def test_a_sourced_ros_is_used(set_up: SetUp) -> None:
    assert set_up.run(ROS_DISTRO='jazzy').returncode == 0
    made, _, pins, _ = set_up.calls()
    assert '--system-site-packages' in made
    assert 'ros.txt' not in pins


@pytest.mark.parametrize('version', ['3 11', '3 12', '3 13'])
def test_downloads_are_checked_against_the_hashes_of_the_lock_file(
    set_up: SetUp, version: str
) -> None:
    assert set_up.run(VERSION=f'{version} {version}').returncode == 0
    _, setuptools, pins, package = set_up.calls()
    for call, file in ((setuptools, 'setuptools'), (pins, 'python')):
        assert '--require-hashes' in call
        assert f'-r {set_up.environment}/lock/{file}.txt' in call
    assert '--only-binary :all:' in pins
    for call in (pins, package):
        assert '--no-build-isolation' in call, 'build requirements are checked, too'
    for call in (pins, package):
        assert '--no-deps' in call, 'only locked packages are installed'


@pytest.mark.parametrize(('machine', 'version'), [('aarch64', '3 12'), ('x86_64', '3 14')])
def test_without_a_lock_file_the_pins_are_installed_and_this_is_reported(
    set_up: SetUp, machine: str, version: str
) -> None:
    result = set_up.run(ROS_DISTRO='kilted', MACHINE=machine, VERSION=f'{version} {version}')
    assert result.returncode == 0
    assert 'not checked against hashes' in result.stdout
    assert machine in result.stdout
    _, pins, _ = set_up.calls()
    for name in (
        'requirements', 'requirements-extras', 'requirements-training', 'requirements-test',
    ):  # fmt: skip
        assert f'-r {set_up.environment}/{name}.txt' in pins
    assert 'requirements-ros' not in pins


def test_a_complete_environment_is_used_again(set_up: SetUp) -> None:
    set_up.run()
    first = set_up.calls()
    assert set_up.run().returncode == 0
    assert set_up.calls() == first


def test_another_key_builds_a_new_environment(set_up: SetUp) -> None:
    set_up.run()
    (set_up.venv / 'left-over').touch()
    first = set_up.calls()
    assert set_up.run(ROS_DISTRO='jazzy').returncode == 0
    assert not (set_up.venv / 'left-over').exists()
    assert len(set_up.calls()) == 2 * len(first)


def test_an_interrupted_set_up_is_repeated(set_up: SetUp) -> None:
    assert set_up.run(PIP_STATUS='130').returncode != 0
    interrupted = set_up.calls()
    assert set_up.run().returncode == 0
    assert len(set_up.calls()) == len(interrupted) + 4


def test_a_folder_that_is_no_environment_is_not_changed(set_up: SetUp) -> None:
    home = set_up.folder / 'home'
    home.mkdir()
    (home / 'letter').touch()
    assert 'in the way' in error_of(set_up.run(VENV=str(home)))
    assert (home / 'letter').exists()


def test_every_direct_requirement_is_pinned() -> None:
    for file in (ROOT / 'environment').glob('*.txt'):
        lines = [line for line in file.read_text().splitlines() if not line.startswith('#')]
        assert len(PINS.findall(file.read_text())) == len(lines) > 0, file.name


def locked(name: str) -> dict[str, str]:
    """Returns names and versions in a lock file, and checks that each has a hash."""
    found = {}
    for block in re.split(r'\n(?=\S)', (LOCK / name).read_text().strip()):
        match = LOCKED.fullmatch(block)
        assert match, block
        found[match[1]] = match[2]
    return found


def test_lock_files_hold_the_pins_and_a_hash_for_each_file() -> None:
    every = {'': locked('python.txt'), '-ros': locked('ros.txt')}
    assert locked('setuptools.txt').items() <= every[''].items()
    every['-docs'] = locked('docs.txt')
    for file in (ROOT / 'environment').glob('requirements*.txt'):
        pins = dict(PINS.findall(file.read_text()))
        names = {re.sub(r'[-_.]+', '-', name).lower(): version for name, version in pins.items()}
        end = '-' + file.stem.rpartition('-')[2]
        assert names.items() <= every[end if end in every else ''].items()
    both = every[''].keys() & every['-ros'].keys()
    assert {name: every[''][name] for name in both} == {name: every['-ros'][name] for name in both}
    assert not [name for name in every[''] if name.startswith('ros-')]


def test_the_lock_files_are_up_to_date_with_the_requirements() -> None:
    files = sorted((ROOT / 'environment').glob('requirements*.txt'))
    files = [file for file in files if not file.stem.endswith('-docs')]
    digest = hashlib.sha256(b''.join(file.read_bytes() for file in files)).hexdigest()
    assert (LOCK / 'requirements.sha256').read_text().strip() == digest, 'run environment/lock.sh'


def test_each_lock_file_that_another_file_names_exists() -> None:
    others = ['.github/workflows/*.yml', 'docker/*', '.devcontainer/*', 'environment/*.sh']
    for file in (file for pattern in others for file in ROOT.glob(pattern)):
        for name in re.findall(r'lock/([\w.-]+\.(?:txt|sha256))', file.read_text()):
            assert (LOCK / name).exists(), (file.name, name)


def test_no_file_names_a_package_index() -> None:
    for file in (ROOT / 'environment').rglob('*'):
        assert file.is_dir() or '://' not in file.read_text(), file.name


def test_setup_requires_a_torch_with_a_safe_weights_only() -> None:
    text = (ROOT / 'setup.py').read_text()
    found = re.findall(r"'(torch(?:vision)?)>=([\d.]+)'", text)
    assert found == [('torch', '2.10'), ('torchvision', '0.25')]


def test_pytest_stays_under_9_for_launch_testing() -> None:
    pins = dict(PINS.findall((ROOT / 'environment' / 'requirements-test.txt').read_text()))
    assert int(pins['pytest'].split('.')[0]) < 9


def test_torch_and_torchvision_match() -> None:
    pins = dict(PINS.findall((ROOT / 'environment' / 'requirements.txt').read_text()))
    for name in ('torch', 'torchvision'):
        assert importlib.metadata.version(name) == pins[name]
    wanted = map(Requirement, importlib.metadata.requires('torchvision') or [])
    assert [r.specifier.contains(pins['torch']) for r in wanted if r.name == 'torch'] == [True]


def test_the_compiled_operators_of_torchvision_run() -> None:
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 1.0, 9.0, 9.0], [20.0, 20.0, 30.0, 30.0]])
    assert nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist() == [1, 2]


@pytest.mark.skipif('ROS_DISTRO' in os.environ, reason='a sourced ROS brings its own variables')
def test_rclpy_runs_without_environment_variables_of_ros() -> None:
    kept = ('HOME', 'ROS_AUTOMATIC_DISCOVERY_RANGE', 'ROS_DOMAIN_ID')
    program = (
        'import rclpy; from sensor_msgs.msg import Image; rclpy.init();'
        'n = rclpy.create_node("alone"); n.create_publisher(Image, "image", 1); print("published")'
    )
    result = subprocess.run(
        [sys.executable, '-c', program],
        env={name: os.environ[name] for name in kept},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == 'published\n', result.stderr
