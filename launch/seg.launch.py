# SPDX-License-Identifier: Apache-2.0
"""Starts the node, and RViz if requested. Arguments that are not given keep the node's defaults.

Invalid arguments are rejected before anything starts. A later error would end the launch but not
the processes that are already running, and a node that cannot start would be respawned forever.

The node activates itself (parameter `autostart`), so that a respawned node becomes active again
without a lifecycle transition from here. Therefore a Node action is used, not a LifecycleNode.
"""

from pathlib import Path

from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from rclpy.context import Context

PACKAGE = 'rock_seg_ros'
NODE = 'rock_seg'
RESPAWN_DELAY = 1.0
RVIZ = 'rviz2'
TRUE, FALSE = ('true', '1'), ('false', '0')

TOPICS = {
    'image': 'topic of the images (sensor_msgs/Image); of several cameras: set image_topics',
    'camera_info': "topic of the camera's intrinsics (sensor_msgs/CameraInfo), for metres",
    'depth': 'topic of the depth (sensor_msgs/Image), registered to the images, for metres',
}
PARAMETERS = {
    'weights': (str, 'weights file (.safetensors, .onnx, .pth)'),
    'preset': (str, 'auto, exact, balanced or fast'),
    'device': (str, 'auto, cpu, cuda or cuda:N'),
    'image_transport': (str, 'raw or compressed'),
    'autostart': (bool, 'whether the node goes to active automatically'),
    'use_sim_time': (bool, 'whether time comes from /clock'),
}
# The topics that seg.rviz shows: of the node, and of the camera.
SHOWN = ('overlay', 'mask', 'markers', 'obstacles')
CAMERA = {'image': '/camera/image_raw', 'camera_info': '/camera/camera_info'}
NOT_GIVEN = "; empty: the node's own"


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments; the nodes are created when their values are known."""
    config = Path(get_package_share_directory(PACKAGE)) / 'config'
    arguments = [
        *((name, '', about + NOT_GIVEN) for name, about in TOPICS.items()),
        *((name, '', about + NOT_GIVEN) for name, (_, about) in PARAMETERS.items()),
        ('params_file', str(config / 'seg.yaml'), 'YAML file of parameters'),
        ('namespace', '', 'namespace of the node and of its topics'),
        ('log_level', '', 'debug, info, warn, error or fatal, or LOGGER:=LEVEL' + NOT_GIVEN),
        ('respawn', 'false', 'whether the node is started again when it dies'),
        ('rviz', 'false', 'whether RViz is started too'),
    ]
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=about)
                for name, default, about in arguments
            ),
            OpaqueFunction(function=check),
            OpaqueFunction(function=seg_node),
            OpaqueFunction(function=rviz),
        ]
    )


def check(context: LaunchContext) -> None:
    """Raises ValueError if the node or RViz could not start with the arguments."""
    given = arguments_given(context)
    if given['rviz'].lower() not in TRUE + FALSE:
        raise ValueError(f'rviz is {given["rviz"]!r}; it must be true or false')
    if not Path(given['params_file']).is_file():
        raise ValueError(f'params_file is {given["params_file"]!r}; there is no such file')
    if given['rviz'].lower() in TRUE and not rviz_is_installed():
        raise ValueError(f'rviz is {given["rviz"]!r}, but {RVIZ} is not installed')
    words = ['--ros-args', '--params-file', given['params_file']]
    for name in TOPICS:
        words += ['-r', f'{name}:={given[name]}'] if name in given else []
    if 'namespace' in given:
        words += ['-r', f'__ns:=/{given["namespace"].lstrip("/")}']
    if 'log_level' in given:
        words += ['--log-level', given['log_level']]
    try:  # the same checks as in the process of the node
        context_of_node = Context()
        context_of_node.init(words, initialize_logging=False)
        context_of_node.try_shutdown()
    except RuntimeError as error:
        raise ValueError(str(error).splitlines()[0]) from None


def rviz_is_installed() -> bool:
    """Returns whether RViz can be started."""
    try:
        return (Path(get_package_prefix(RVIZ)) / 'lib' / RVIZ / RVIZ).is_file()
    except PackageNotFoundError:
        return False


def rviz(context: LaunchContext) -> list[Node]:
    """Returns the action for RViz, whose topics are remapped to those of the node and camera."""
    given = arguments_given(context)
    remappings = [(f'/{NODE}/{name}', f'{NODE}/{name}') for name in SHOWN]
    remappings += [(topic, given.get(name, name)) for name, topic in CAMERA.items()]
    return [
        Node(
            package=RVIZ,
            executable=RVIZ,
            namespace=given.get('namespace', ''),
            arguments=[
                '-d',
                str(Path(get_package_share_directory(PACKAGE)) / 'config' / 'seg.rviz'),
            ],
            remappings=remappings,
            condition=IfCondition(LaunchConfiguration('rviz')),
        )
    ]


def arguments_given(context: LaunchContext) -> dict[str, str]:
    """Returns the arguments that are not empty."""
    return {name: value for name, value in context.launch_configurations.items() if value != ''}


def seg_node(context: LaunchContext) -> list[Node]:
    """Returns the action for the node with the arguments that were given."""
    given = arguments_given(context)
    parameters = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (kind, _) in PARAMETERS.items()
        if name in given
    }
    return [
        Node(
            package=PACKAGE,
            executable='seg_node',
            name=NODE,
            namespace=given.get('namespace', ''),
            parameters=[given['params_file'], parameters],
            remappings=[(name, given[name]) for name in TOPICS if name in given],
            ros_arguments=['--log-level', given['log_level']] if 'log_level' in given else None,
            respawn=LaunchConfiguration('respawn'),
            respawn_delay=RESPAWN_DELAY,
            output='screen',
        )
    ]
