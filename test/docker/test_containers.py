# SPDX-License-Identifier: Apache-2.0
"""The files that build containers. They are read here, not built."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILES = (ROOT / 'docker' / 'Dockerfile', ROOT / 'docker' / 'Dockerfile.jetson')
COMPOSE = ROOT / 'docker' / 'compose.yaml'
DEVCONTAINER = ROOT / '.devcontainer' / 'devcontainer.json'
FILES = (*sorted((ROOT / 'docker').iterdir()), DEVCONTAINER)
HADOLINT = shutil.which('hadolint', path=Path(sys.executable).parent) or shutil.which('hadolint')


@pytest.mark.skipif(HADOLINT is None, reason='needs hadolint')
@pytest.mark.parametrize('file', DOCKERFILES, ids=lambda file: file.name)
def test_hadolint_finds_nothing(file):
    done = subprocess.run([HADOLINT, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize('file', DOCKERFILES, ids=lambda file: file.name)
def test_all_that_is_copied_exists(file):
    copied = re.findall(r'^COPY (\S+) ', file.read_text(), re.MULTILINE)
    assert copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_packages_come_from_the_lock_files_with_their_hashes():
    text = DOCKERFILES[0].read_text()
    locks = re.findall(r'-r \$lock/(\S+)', text)
    assert locks == ['setuptools.txt', 'python.txt']
    assert text.count('--require-hashes') == text.count('pip install') == len(locks)
    assert all((ROOT / 'environment' / 'lock' / name).is_file() for name in locks)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_no_version_of_a_python_package_is_repeated(file):
    names = re.findall(
        r'^([\w.-]+)(?:\[\w+\])?==',
        ''.join(path.read_text() for path in (ROOT / 'environment').glob('requirements*.txt')),
        re.MULTILINE,
    )
    assert 'torch' in names
    assert not re.search(r'==\s*\d', file.read_text())
    for name in names:
        pattern = rf'\b{re.escape(name)}[:=~<>@-]+\d'
        assert not re.search(pattern, file.read_text(), re.IGNORECASE), name


def test_node_and_player_share_network_and_memory_for_dds():
    services = yaml.safe_load(COMPOSE.read_text())['services']
    assert set(services) == {'node', 'player'}
    for service in services.values():
        assert service['network_mode'] == service['ipc'] == 'host'
        assert service['image'] == 'rock_seg_ros'
        variables = service['environment']
        assert {'ROS_DOMAIN_ID', 'ROS_AUTOMATIC_DISCOVERY_RANGE'} <= set(variables)
        profiles = Path(variables['FASTRTPS_DEFAULT_PROFILES_FILE'])
        assert (ROOT / profiles.relative_to('/ros2_ws/src/rock_seg_ros')).is_file()
    assert services['node']['environment'] == services['player']['environment']


def test_the_services_are_built_from_files_that_exist_and_run_commands_that_exist():
    from rock_seg_ros.tools.main import COMMANDS

    services = yaml.safe_load(COMPOSE.read_text())['services']
    build = services['node']['build']
    context = (COMPOSE.parent / build['context']).resolve()
    assert context == ROOT
    assert context / build['dockerfile'] in DOCKERFILES
    launch = services['node']['command'].split()
    assert (ROOT / 'launch' / launch[3]).is_file()
    program, command, bag = services['player']['command'].split()[:3]
    assert program == 'rock_seg'
    assert command in COMMANDS
    (volume,) = services['player']['volumes']
    source, target, mode = re.fullmatch(r'\$\{BAG:-(.+)\}:(.+):(\w+)', volume).groups()
    assert (COMPOSE.parent / source).is_dir()
    assert (target, mode) == (bag, 'ro')


def test_the_gpu_file_only_adds_the_gpu_to_the_node():
    (name, service), *others = yaml.safe_load((COMPOSE.parent / 'compose.gpu.yaml').read_text())[
        'services'
    ].items()
    assert (name, others) == ('node', [])
    (device,) = service['deploy']['resources']['reservations']['devices']
    assert device['capabilities'] == ['gpu']


def test_the_devcontainer_uses_the_same_dockerfile():
    about = json.loads(DEVCONTAINER.read_text())
    build = about['build']
    assert (DEVCONTAINER.parent / build['dockerfile']).resolve() == DOCKERFILES[0]
    assert (DEVCONTAINER.parent / build['context']).resolve() == ROOT
    assert {'--network=host', '--ipc=host'} <= set(about['runArgs'])


def test_the_virtual_environment_and_the_runs_stay_out_of_the_image():
    ignored = (ROOT / '.dockerignore').read_text().split()
    assert {'.git', '.venv*', 'runs'} <= set(ignored)
