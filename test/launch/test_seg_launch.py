# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / 'launch' / 'seg.launch.py'
ARGUMENTS = {
    'image', 'camera_info', 'depth', 'weights', 'params_file', 'preset', 'device',
    'image_transport', 'namespace', 'autostart', 'use_sim_time', 'rviz', 'log_level', 'respawn',
}  # fmt: skip

NODE = """#!/usr/bin/env python3
import sys
from rock_seg_ros.entry_points import seg_node
sys.exit(seg_node())
"""
# Instead of the node, a program that records its arguments.
RECORDER = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
files = [Path(word).read_text() for word in sys.argv[1:] if Path(word).is_file()]
Path(os.environ['RECORD']).write_text(json.dumps({'arguments': sys.argv[1:], 'files': files}))
"""


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An install prefix with the package's launch and config files."""
    prefix = tmp_path / 'prefix'
    index = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    (index / 'rock_seg_ros').touch()
    shutil.copytree(ROOT / 'config', prefix / 'share' / 'rock_seg_ros' / 'config')
    others = os.environ.get('AMENT_PREFIX_PATH', sys.prefix)
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{prefix}{os.pathsep}{others}')
    return prefix


def load_launch_file() -> Any:
    spec = importlib.util.spec_from_file_location('seg_launch', FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorded:
    """A substitute for the classes of launch and launch_ros, which keeps its arguments."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.arguments = arguments
        self.options = options


@pytest.fixture
def launch_file(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The launch file with substitutes for launch and launch_ros, which need not be installed."""
    names = {
        'launch': ['LaunchContext', 'LaunchDescription'],
        'launch.actions': ['DeclareLaunchArgument', 'OpaqueFunction'],
        'launch.conditions': ['IfCondition'],
        'launch.substitutions': ['LaunchConfiguration'],
        'launch_ros': [],
        'launch_ros.actions': ['Node'],
        'launch_ros.parameter_descriptions': ['ParameterValue'],
    }
    for module_name, classes in names.items():
        module = ModuleType(module_name)
        for name in classes:
            setattr(module, name, type(name, (Recorded,), {}))
        monkeypatch.setitem(sys.modules, module_name, module)
    return load_launch_file()


def declared(launch_file: Any) -> dict[str, str]:
    """Returns names and default values of the declared arguments."""
    (entities,) = launch_file.generate_launch_description().arguments
    return {
        entity.arguments[0]: entity.options['default_value']
        for entity in entities
        if type(entity).__name__ == 'DeclareLaunchArgument'
    }


def started(launch_file: Any, **given: str) -> dict[str, Any]:
    """Returns the options of the node for given arguments."""
    context = SimpleNamespace(launch_configurations=declared(launch_file) | given)
    (node,) = launch_file.seg_node(context)
    return node.options


def test_the_documented_arguments_are_declared(launch_file: Any) -> None:
    assert set(declared(launch_file)) == ARGUMENTS


def test_arguments_that_are_not_given_are_not_passed_on(launch_file: Any, prefix: Path) -> None:
    node = started(launch_file)
    config = prefix / 'share' / 'rock_seg_ros' / 'config'
    assert node['parameters'] == [str(config / 'seg.yaml'), {}]
    assert node['remappings'] == []
    assert node['ros_arguments'] is None


def test_given_parameters_are_passed_on_with_the_type_that_the_node_declares(
    launch_file: Any,
) -> None:
    from rock_seg_ros.node.parameters import PARAMETERS

    given = {name: 'x' for name in ARGUMENTS if name in PARAMETERS}
    assert sorted(given) == ['autostart', 'device', 'image_transport', 'preset', 'weights']
    _, parameters = started(launch_file, **given)['parameters']
    types = {name: value.options['value_type'] for name, value in parameters.items()}
    assert types == {name: type(PARAMETERS[name].default) for name in given}


def check(launch_file: Any, **given: str) -> None:
    launch_file.check(SimpleNamespace(launch_configurations=declared(launch_file) | given))


def test_the_arguments_are_checked_before_any_node_starts(launch_file: Any) -> None:
    (entities,) = launch_file.generate_launch_description().arguments
    functions = [
        entity.options['function'].__name__
        for entity in entities
        if type(entity).__name__ == 'OpaqueFunction'
    ]
    assert functions == ['check', 'seg_node', 'rviz']


def test_valid_arguments_pass_the_check(launch_file: Any) -> None:
    check(launch_file)
    check(
        launch_file, image='/camera/image_raw', namespace='/rover', log_level='rock_seg:=debug',
        respawn='True', rviz='0',
    )  # fmt: skip


@pytest.mark.parametrize(
    ('given', 'reason'),
    [
        ({'params_file': '/no/such.yaml'}, "params_file is '/no/such.yaml'; there is no such file"),
        ({'params_file': '/'}, "params_file is '/'; there is no such file"),
        ({'rviz': 'yes'}, "rviz is 'yes'; it must be true or false"),
        ({'image': '/camera image'}, 'image:=/camera image'),
        ({'namespace': 'my rover'}, '__ns:=/my rover'),
        ({'log_level': 'loud'}, '--log-level loud'),
    ],
)
def test_an_invalid_argument_is_rejected_by_name(
    launch_file: Any, given: dict[str, str], reason: str
) -> None:
    with pytest.raises(ValueError) as error:
        check(launch_file, **given)
    assert reason in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('text', ['threshold: 0.5', '/**: {ros__parameters: {threshold', '[]'])
def test_a_params_file_without_parameters_is_rejected_by_name(
    launch_file: Any, tmp_path: Path, text: str
) -> None:
    file = tmp_path / 'rover.yaml'
    file.write_text(text)
    with pytest.raises(ValueError, match=r'rover\.yaml'):
        check(launch_file, params_file=str(file))


def test_rviz_is_rejected_where_it_is_not_installed(launch_file: Any, prefix: Path) -> None:
    if not launch_file.rviz_is_installed():
        with pytest.raises(ValueError, match="rviz is 'true', but rviz2 is not installed"):
            check(launch_file, rviz='true')
    (prefix / 'share/ament_index/resource_index/packages/rviz2').touch()
    with pytest.raises(ValueError, match='rviz2 is not installed'):
        check(launch_file, rviz='true')
    (prefix / 'lib/rviz2').mkdir(parents=True)
    (prefix / 'lib/rviz2/rviz2').touch()
    check(launch_file, rviz='true')


def rviz_remappings(launch_file: Any, **given: str) -> tuple[str, dict[str, str]]:
    """Returns the configuration of RViz and its remappings."""
    context = SimpleNamespace(launch_configurations=declared(launch_file) | given)
    (rviz,) = launch_file.rviz(context)
    assert rviz.options['namespace'] == given.get('namespace', '')
    return Path(rviz.options['arguments'][1]).read_text(), dict(rviz.options['remappings'])


def test_the_topics_of_rviz_follow_the_namespace(launch_file: Any) -> None:
    config, remappings = rviz_remappings(launch_file, namespace='rover')
    shown = {line.split()[1] for line in config.splitlines() if 'Value: /' in line}
    assert shown == set(remappings) - {'/camera/camera_info'}, 'the Camera display adds this one'
    for absolute in shown - {'/camera/image_raw'}:
        assert remappings[absolute] == absolute[1:]


def test_rviz_subscribes_to_the_camera_of_the_node(launch_file: Any) -> None:
    topics = {'image': '/front/image_rect', 'camera_info': '/front/info'}
    _, remappings = rviz_remappings(launch_file, **topics)
    assert remappings['/camera/image_raw'] == '/front/image_rect'
    assert remappings['/camera/camera_info'] == '/front/info'
    _, remappings = rviz_remappings(launch_file)
    assert remappings['/camera/image_raw'] == 'image', 'as the node does'


def install(prefix: Path, program: str) -> None:
    command = prefix / 'lib' / 'rock_seg_ros' / 'seg_node'
    command.parent.mkdir(parents=True)
    command.write_text(program)
    command.chmod(0o755)


def service_for(**given: str) -> tuple[Any, Any]:
    """Returns a launch service that includes the launch file, and the module launch."""
    pytest.importorskip('launch_ros', reason='launch_ros is not installed here')
    import launch
    from launch.actions import IncludeLaunchDescription
    from launch.launch_description_sources import PythonLaunchDescriptionSource

    source = PythonLaunchDescriptionSource(str(FILE))
    service = launch.LaunchService(noninteractive=True)
    service.include_launch_description(
        launch.LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given.items())])
    )
    return service, launch


def test_ros2_launch_passes_given_arguments_on_to_the_node(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    install(prefix, RECORDER)
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('RECORD', str(tmp_path / 'record.json'))
    service, _ = service_for(
        image='/camera/image_raw', weights='1', autostart='False', namespace='rover',
        use_sim_time='true', log_level='debug',
    )  # fmt: skip
    assert service.run() == 0
    record = json.loads((tmp_path / 'record.json').read_text())
    words = record['arguments']
    for pair in (('--log-level', 'debug'), ('-r', 'image:=/camera/image_raw')):
        assert pair in list(pairwise(words))
    assert {'__node:=rock_seg', '__ns:=/rover'} <= set(words)
    (block,) = yaml.safe_load(record['files'][-1]).values()
    assert block == {'ros__parameters': {'weights': '1', 'autostart': False, 'use_sim_time': True}}


def test_a_respawned_node_becomes_active_again(
    prefix: Path, light_weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, launch = service_for(respawn='true', device='cpu', weights=str(light_weights_file))
    install(prefix, NODE)
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    started_pids: list[int] = []
    activations = []
    service.include_launch_description(
        launch.LaunchDescription(
            [
                launch.actions.RegisterEventHandler(
                    launch.event_handlers.OnProcessStart(
                        on_start=lambda event, _: started_pids.append(event.pid)
                    )
                )
            ]
        )
    )

    def play() -> None:
        try:
            activations.append(wait_until_active())
            os.kill(started_pids[0], signal.SIGKILL)
            activations.append(wait_until_active())
        finally:
            service.shutdown()

    player = threading.Thread(target=play)
    player.start()
    service.run()
    player.join()
    assert activations == [True, True]
    assert len(started_pids) == 2


def wait_until_active(timeout: float = 120.0) -> bool:
    """Requests the state of the node until it is active; returns False after the timeout."""
    import rclpy
    from lifecycle_msgs.msg import State
    from lifecycle_msgs.srv import GetState
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor

    context = Context()
    rclpy.init(context=context)
    node = rclpy.create_node('watcher', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    client = node.create_client(GetState, '/rock_seg/get_state')
    deadline = time.monotonic() + timeout
    state = None
    while state != State.PRIMARY_STATE_ACTIVE and time.monotonic() < deadline:
        asked = client.call_async(GetState.Request())
        executor.spin_until_future_complete(asked, 1.0)
        state = asked.result().current_state.id if asked.done() else None
    node.destroy_node()
    context.try_shutdown()
    return state == State.PRIMARY_STATE_ACTIVE
