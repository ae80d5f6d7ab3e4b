# SPDX-License-Identifier: Apache-2.0
"""The parameters of the node: defaults, ranges and descriptions, and a typed view of the values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import rclpy.parameter
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException, ParameterException
from rclpy.node import Node
from rclpy.validate_topic_name import validate_topic_name

from rock_seg_ros.perception.analysis import Settings
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.geometry.target import TargetLimits
from rock_seg_ros.perception.image_io.bit_depth import CHOICES as SIGNIFICANT_BITS
from rock_seg_ros.perception.image_io.decoding import MAX_SIDE
from rock_seg_ros.perception.inference.networks import OUTPUT_STRIDES
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmenter import BACKENDS, PRECISIONS
from rock_seg_ros.perception.inference.weights_file import embedded_name
from rock_seg_ros.perception.instances.rocks import RockSettings

MAX_ROCKS = 1000
UHD_PIXELS = 3840 * 2160
GROUND_PLANES = ('none', 'level', 'tf')


def _parameter(
    default: Any,
    description: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] = (),
    live: bool = False,
    always: bool = False,
    read_only: bool = False,
) -> Any:
    """Returns the dataclass field of a parameter.

    Args:
        default: The default value, whose type is that of the parameter.
        description: What the parameter does.
        low: Minimum of the range; None = no range.
        high: Maximum of the range.
        choices: The valid values; () = all.
        live: Whether the parameter may change while the node is active.
        always: Whether it may change at any time, with an effect at the next configure.
        read_only: Whether it can be set only at the start of the node.
    """
    return field(
        default=default,
        metadata={
            'description': description,
            'range': None if low is None else (low, high),
            'choices': choices,
            'live': live,
            'read_only': read_only,
            'settable': live or always,
        },
    )


@dataclass(frozen=True)
class Parameters:
    """The values of all parameters at one moment."""

    weights: str = _parameter(
        '',
        'Weights file (.safetensors, .onnx, .pth), or the name of embedded weights, '
        "'resnet50' or 'light'. Empty: 'resnet50' on CUDA, 'light' on a CPU. A change takes "
        'effect at the next configure or ~/reload_weights.',
        always=True,
    )
    weights_folder: str = _parameter(
        '',
        'Folder that the weights file must lie in, after symbolic links are resolved; a '
        'relative path in weights starts there. It can be given at start only. Empty: any '
        'folder is allowed.',
        read_only=True,
    )
    device: str = _parameter(
        'auto',
        "Device of the network: 'auto' (CUDA where it can be used), 'cpu', 'cuda' or "
        "'cuda:N'. A named device that is missing is an error.",
    )
    preset: str = _parameter(
        'auto',
        "Trade-off between accuracy and speed: 'exact' (finest output stride, fp32), "
        "'balanced' (coarsest stride), 'fast' (coarsest stride; int8 on a CPU, the same as "
        "'balanced' on CUDA) or 'auto' (stride of the training; int8 on a CPU if the weights are "
        'calibrated for it). precision and output_stride override it.',
        choices=PRESETS,
    )
    precision: str = _parameter(
        'auto',
        "Arithmetic of the network: 'fp32', 'fp16', 'bf16', 'int8', or 'auto' for the "
        'precision of the preset.',
        choices=PRECISIONS,
    )
    backend: str = _parameter(
        'auto',
        "Runtime of the network: 'torch', 'openvino' (CPU only), 'onnx', or 'auto' for the "
        'fastest one that is installed.',
        choices=('auto', *BACKENDS),
    )
    output_stride: int = _parameter(
        0,
        'Output stride of the backbone: 8 (finer) or 16 (faster) with resnet50, 32 with '
        'light; 0 = the output stride of the preset.',
        choices=(0, *OUTPUT_STRIDES),
    )
    input_width: int = _parameter(
        0,
        "Width of the network's input, px; 0 = the width of the image, enlarged where the "
        'weights require it.',
        0,
        MAX_SIDE,
    )
    input_height: int = _parameter(
        0,
        "Height of the network's input, px; 0 = the height of the image, enlarged where the "
        'weights require it.',
        0,
        MAX_SIDE,
    )
    tile: int = _parameter(
        0,
        'Tile size for images that are larger than this, px; 0 = no tiling. Tiles need less '
        'memory and more time.',
        0,
        MAX_SIDE,
    )
    tile_overlap: int = _parameter(
        256, 'Minimum overlap of neighbouring tiles, px; at most half of tile.', 0, MAX_SIDE
    )
    image_topics: tuple[str, ...] = _parameter(
        (),
        'Image topics of several cameras. The outputs of each are ~/CAMERA/mask and so on, '
        'where CAMERA is the part of the topic before the last slash. Empty: one camera on '
        'the topic image.',
    )
    depth_topics: tuple[str, ...] = _parameter(
        (),
        'Depth topics of the cameras in image_topics, in the same order; an empty string is a '
        'camera without depth. Empty: no camera has depth; the one camera of an empty '
        'image_topics uses the topic depth.',
    )
    image_transport: str = _parameter(
        'raw',
        "Transport of the images: 'raw' (sensor_msgs/Image) or 'compressed' "
        "(sensor_msgs/CompressedImage on the image topic + '/compressed').",
        choices=('raw', 'compressed'),
    )
    threshold: float = _parameter(
        0.0,
        'Probability from which a pixel is rock; 0 = the threshold in the metadata of the '
        'weights. Raise it for fewer false rocks, lower it for fewer missed ones.',
        0.0,
        1.0,
        live=True,
    )
    min_area: int = _parameter(
        RockSettings.min_area,
        'Minimum area of a reported rock, px. Raise it to ignore pebbles and noise.',
        0,
        1_000_000,
        live=True,
    )
    max_rocks: int = _parameter(
        RockSettings.max_rocks,
        'Maximum number of rocks reported per image, largest first.',
        1,
        MAX_ROCKS,
        live=True,
    )
    polygon_tolerance: float = _parameter(
        RockSettings.polygon_tolerance,
        'Maximum distance between a contour and its polygon, px. Raise it for polygons with '
        'fewer vertices.',
        0.0,
        100.0,
        live=True,
    )
    split_touching: bool = _parameter(
        RockSettings.split_touching,
        'Whether rocks that touch are separated: along the rims that the network finds, or by '
        'their shape where the weights have no rim class.',
        live=True,
    )
    track: bool = _parameter(
        Settings.track,
        'Whether a rock keeps its id from image to image. If false, ids count from 1 in each '
        'image.',
        live=True,
    )
    depth_tolerance: float = _parameter(
        0.05,
        'Maximum difference between the stamps of an image and its depth, and maximum time '
        'that results wait for depth and for the pose in fixed_frame, s.',
        0.0,
        10.0,
        live=True,
    )
    depth_registered: bool = _parameter(
        False,
        "Whether depth with another frame_id than the image's is used all the same. Set it "
        "for drivers whose aligned depth keeps the depth camera's frame.",
    )
    rectified: bool = _parameter(
        False,
        "Whether the images are rectified (image_rect). Then camera_info's P is used, without "
        'distortion; otherwise K and D.',
    )
    ground_plane: str = _parameter(
        'none',
        "Ground plane that gives metres where there is no depth: 'none', 'level' (from "
        "camera_height, camera_tilt and camera_roll) or 'tf' (z = 0 of base_frame).",
        choices=GROUND_PLANES,
    )
    camera_height: float = _parameter(
        0.0,
        "Height of the camera above level ground, m. Needed with ground_plane 'level'.",
        0.0,
        1000.0,
    )
    camera_tilt: float = _parameter(
        0.0, 'Angle of the optical axis below the horizon, rad.', -math.pi / 2, math.pi / 2
    )
    camera_roll: float = _parameter(
        0.0,
        'Rotation of the camera about its optical axis, clockwise as seen from behind the '
        'camera, rad.',
        -math.pi,
        math.pi,
    )
    base_frame: str = _parameter(
        'base_link', "Frame whose plane z = 0 is the ground with ground_plane 'tf'."
    )
    fixed_frame: str = _parameter(
        '',
        'Fixed frame such as odom. With depth, TF gives the motion of the camera to the '
        'tracker. Empty: the tracker uses the images alone.',
    )
    obstacle_step: int = _parameter(
        4, 'Distance between neighbouring points of ~/obstacles, px.', 1, 100, live=True
    )
    target_min_diameter: float = _parameter(
        TargetLimits.min_diameter, 'Minimum diameter of a target rock, m.', 0.0, 1000.0, live=True
    )
    target_max_diameter: float = _parameter(
        TargetLimits.max_diameter, 'Maximum diameter of a target rock, m.', 0.0, 1000.0, live=True
    )
    target_min_distance: float = _parameter(
        TargetLimits.min_distance,
        'Minimum distance of a target rock from the camera, m.',
        0.0,
        1000.0,
        live=True,
    )
    target_max_distance: float = _parameter(
        TargetLimits.max_distance,
        'Maximum distance of a target rock from the camera, m.',
        0.0,
        1000.0,
        live=True,
    )
    target_min_score: float = _parameter(
        TargetLimits.min_score, 'Minimum score of a target rock.', 0.0, 1.0, live=True
    )
    ignore_mask: str = _parameter(
        '',
        "PNG of the image's size; pixels that are 0 are never rock, such as the deck of the "
        "rover. {camera} is replaced by the camera's name. Empty: no mask.",
    )
    max_rate: float = _parameter(
        0.0,
        'Maximum rate of processed images per camera, Hz; 0 = unlimited.',
        0.0,
        1000.0,
        live=True,
    )
    max_pixels: int = _parameter(
        UHD_PIXELS,
        'Maximum number of pixels of an image; larger images are rejected.',
        1,
        1_000_000_000,
        live=True,
    )
    significant_bits: int = _parameter(
        0,
        'Number of bits that 16-bit images use. 0 = automatic: the smallest of 8, 10, 12, 14 '
        'and 16 that holds every value received so far.',
        choices=SIGNIFICANT_BITS,
        live=True,
    )
    overlay_alpha: float = _parameter(
        Settings.overlay_alpha, 'Opacity of the tint in the overlay.', 0.0, 1.0, live=True
    )
    jpeg_quality: int = _parameter(80, 'JPEG quality of ~/overlay/compressed.', 1, 100, live=True)
    max_image_age: float = _parameter(
        0.0,
        'Maximum age of an image by its stamp, s; older images are rejected. 0 = unlimited.',
        0.0,
        1e6,
        live=True,
    )
    autostart: bool = _parameter(
        True,
        'Whether the node configures and activates itself at start, or when this is set while '
        'it is unconfigured.',
    )

    def __post_init__(self) -> None:
        """Raises ValueError if a value is not a valid choice, or a topic name is not valid."""
        for spec in fields(self):
            _check(spec, getattr(self, spec.name))
        _ = self.weights_path

    def check_combination(self) -> None:
        """Raises ValueError if parameters contradict each other.

        They are checked before they are used, not when they are set, because `ros2 param set` sets
        one after the other.
        """
        if self.depth_topics and len(self.depth_topics) != len(self.image_topics):
            raise ValueError(
                f'depth_topics has {len(self.depth_topics)} topics; it needs'
                f' {len(self.image_topics)}, one per topic in image_topics'
            )
        if self.ground_plane == 'level' and self.camera_height <= 0:
            raise ValueError("camera_height is 0.0; it must be above 0 with ground_plane 'level'")

    @property
    def weights_name(self) -> str:
        """The value of `weights`, or the name of the embedded weights for the device if empty."""
        return self.weights or embedded_name(self.device, self.backend, self.precision)

    @property
    def weights_path(self) -> str:
        """The path of the weights file; a name without suffix, such as 'light', is unchanged.

        Raises:
            ValueError: The file is outside of `weights_folder`.
        """
        if not self.weights_folder or not Path(self.weights).suffix:
            return self.weights
        folder = Path(self.weights_folder).resolve()
        file = (folder / self.weights).resolve()
        if not file.is_relative_to(folder):
            raise ValueError(
                f'weights is {self.weights!r}; it must be a file in weights_folder, {folder}'
            )
        return str(file)


def _check(spec: Field[Any], value: Any) -> None:
    """Raises ValueError if a value is invalid independently of the other parameters."""
    choices = spec.metadata['choices']
    if choices and value not in choices:
        valid = ', '.join(repr(choice) for choice in choices)
        raise ValueError(f'{spec.name} is {value!r}; it must be one of {valid}')
    if spec.default == ():
        _check_topics(spec.name, value)


def _check_topics(name: str, topics: tuple[str, ...]) -> None:
    """Raises ValueError if a topic name is not valid, or a topic is listed twice."""
    for number, topic in enumerate(topics):
        if name == 'depth_topics' and not topic:
            continue
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as error:
            reason = first_line(error).removeprefix('Invalid topic name: ').rstrip(':')
            raise ValueError(f'{name} has {topic!r}: {reason}') from None
        if topic in topics[:number]:
            raise ValueError(f'{name} has {topic!r} twice')


MIN_SIMILARITY = 0.8  # of the name of a parameter and its misspelling
PARAMETERS: dict[str, Field[Any]] = {spec.name: spec for spec in fields(Parameters)}


def declare_parameters(node: Node) -> dict[str, str]:
    """Declares all parameters with descriptors and ranges.

    Returns:
        Name → reason, of each parameter whose initial value is invalid; it has its default.
    """
    invalid = {}
    for name, spec in PARAMETERS.items():
        try:
            _check(spec, _declare(node, spec))
        except (ParameterException, ValueError) as error:
            invalid[name] = first_line(error)
            if node.has_parameter(name):
                node.undeclare_parameter(name)
            _declare(node, spec, ignore_override=True)
    return invalid


def _declare(node: Node, spec: Field[Any], ignore_override: bool = False) -> Any:
    """Declares a parameter and returns its value."""
    descriptor = _descriptor(spec)
    if spec.default != ():
        return node.declare_parameter(spec.name, spec.default, descriptor, ignore_override).value
    # rclpy infers the wrong type from an empty list, so the type is declared and the value set.
    string_array = rclpy.parameter.Parameter.Type.STRING_ARRAY
    value = node.declare_parameter(spec.name, string_array, descriptor, ignore_override).value
    if value is None:
        node.set_parameters([rclpy.parameter.Parameter(spec.name, string_array, [])])
    return tuple(value or ())


def unknown_overrides(names: Iterable[str]) -> list[str]:
    """Describes initial values whose name is almost that of a parameter, and which have no effect.

    Other unknown names are not reported, because a YAML file may have parameters of other nodes.

    Args:
        names: Names of the initial values.

    Returns:
        One line per name.
    """
    lines = []
    for name in sorted(set(names) - PARAMETERS.keys()):
        if similar := get_close_matches(name, PARAMETERS, 1, MIN_SIMILARITY):
            lines.append(
                f'parameter {name} is unknown and has no effect; did you mean {similar[0]}?'
            )
    return lines


def read_parameters(node: Node, changed: Iterable[rclpy.parameter.Parameter] = ()) -> Parameters:
    """Returns the values of the node's parameters.

    Args:
        node: The node.
        changed: Parameters that are about to be set; their new values are returned.

    Raises:
        ValueError: A value is not valid; the message is one line.
    """
    values: dict[str, Any] = {name: node.get_parameter(name).value for name in PARAMETERS}
    values.update({p.name: p.value for p in changed if p.name in PARAMETERS})
    for name in ('image_topics', 'depth_topics'):
        values[name] = tuple(values[name])
    return Parameters(**values)


def first_not_settable(changed: Iterable[rclpy.parameter.Parameter]) -> str | None:
    """Returns the first parameter that may change only while the node is unconfigured, or None."""
    for parameter in changed:
        spec = PARAMETERS.get(parameter.name)
        if spec is not None and not spec.metadata['settable']:
            return parameter.name
    return None


def _descriptor(spec: Field[Any]) -> ParameterDescriptor:
    metadata: Mapping[str, Any] = spec.metadata
    descriptor = ParameterDescriptor(
        name=spec.name,
        description=metadata['description'] + (' (live)' if metadata['live'] else ''),
        read_only=metadata['read_only'],
    )
    if metadata['choices']:
        descriptor.additional_constraints = f'one of {list(metadata["choices"])}'
    if metadata['range'] is not None:
        low, high = metadata['range']
        if isinstance(spec.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
