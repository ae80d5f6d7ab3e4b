# SPDX-License-Identifier: Apache-2.0
"""Starts the node, and RViz if asked. Passes on what is given, repeats no default of the node's.

The node activates itself (parameter `autostart`); no lifecycle transition is sent from here, so
that a respawned node is active again by itself. Hence a plain Node action, no LifecycleNode.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

PACKAGE = 'rock_seg_ros'
NODE = 'rock_seg'
RESPAWN_DELAY = 1.0

TOPICS = {
    'image': 'topic of the pictures (sensor_msgs/Image); several: image_topics in params_file',
    'camera_info': "topic of the camera's intrinsics (sensor_msgs/CameraInfo), for metres",
    'depth': 'topic of the depth (sensor_msgs/Image), registered to the pictures, for metres',
}
PARAMETERS = {
    'weights': (str, 'weights file (.safetensors, .onnx, .pth)'),
    'preset': (str, 'auto, exact, balanced or fast'),
    'device': (str, 'auto, cpu, cuda or cuda:N'),
    'image_transport': (str, 'raw or compressed'),
    'autostart': (bool, 'whether the node goes to active by itself'),
    'use_sim_time': (bool, 'whether time comes from /clock'),
}
# What seg.rviz shows: of the node, and of the camera.
SHOWN = ('overlay', 'mask', 'markers', 'obstacles')
CAMERA = {'image': '/camera/image_raw', 'camera_info': '/camera/camera_info'}
NOT_GIVEN = "; empty: the node's own"


def generate_launch_description() -> LaunchDescription:
    """Declares the arguments; what becomes of them waits until their values are known."""
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
            OpaqueFunction(function=seg_node),
            OpaqueFunction(function=rviz),
        ]
    )


def rviz(context: LaunchContext) -> list[Node]:
    """Builds RViz, whose absolute topics follow the namespace and the camera's that were given."""
    given = arguments_given(context)
    remappings = [(f'/{NODE}/{name}', f'{NODE}/{name}') for name in SHOWN]
    remappings += [(topic, given.get(name, name)) for name, topic in CAMERA.items()]
    return [
        Node(
            package='rviz2',
            executable='rviz2',
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
    """Builds the node from the arguments that were given."""
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
