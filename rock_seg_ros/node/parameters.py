# SPDX-License-Identifier: Apache-2.0
"""The parameters of the node: their ranges and a typed view; the one place of defaults."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

import rclpy.parameter
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException, ParameterException
from rclpy.node import Node
from rclpy.validate_topic_name import validate_topic_name

from rock_seg_ros.perception.analysis import Settings
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.geometry.target import TargetRule
from rock_seg_ros.perception.image_io.bit_depth import CHOICES as SIGNIFICANT_BITS
from rock_seg_ros.perception.image_io.decoding import LARGEST_SIDE
from rock_seg_ros.perception.inference.networks import OUTPUT_STRIDES
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmenter import BACKENDS, PRECISIONS
from rock_seg_ros.perception.inference.weights_file import embedded_name
from rock_seg_ros.perception.instances.rocks import RockSettings

MOST_ROCKS = 1000
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
    """Describes a parameter.

    `live` may change while running, `always` takes effect later, `read_only` is given at the start.
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
        "weights file (.safetensors, .onnx, .pth), or 'resnet50' or 'light', which come with the"
        ' package; empty: resnet50 on CUDA, light on a CPU',
        always=True,
    )
    weights_folder: str = _parameter(
        '',
        'folder in which weights must lie, symbolic links followed, and from which a relative path'
        ' starts; given at the start only; empty: anywhere',
        read_only=True,
    )
    device: str = _parameter('auto', "'auto', 'cpu', 'cuda' or 'cuda:N'; only 'auto' chooses")
    preset: str = _parameter(
        'auto',
        "'auto' (output stride as trained), 'exact' (the finest, fp32), 'balanced' (the coarsest)"
        " or 'fast' (the coarsest; int8 on the CPU, on CUDA the same as 'balanced');"
        ' precision and output_stride win over it',
        choices=PRESETS,
    )
    precision: str = _parameter(
        'auto', "'auto' (the preset's), 'fp32', 'fp16', 'bf16' or 'int8'", choices=PRECISIONS
    )
    backend: str = _parameter(
        'auto',
        "'auto' (what is quickest here), 'torch', 'openvino' (on the CPU) or 'onnx'",
        choices=('auto', *BACKENDS),
    )
    output_stride: int = _parameter(
        0,
        "of the backbone: 8 (finer) or 16 (faster) of resnet50, 32 of light, 0 = the preset's",
        choices=(0, *OUTPUT_STRIDES),
    )
    input_width: int = _parameter(
        0,
        "width that the network sees, px; 0 = the image's own, or larger if the weights say so",
        0,
        LARGEST_SIDE,
    )
    input_height: int = _parameter(
        0,
        "height that the network sees, px; 0 = the image's own, or larger if the weights say so",
        0,
        LARGEST_SIDE,
    )
    tile: int = _parameter(
        0, 'larger images are looked at in tiles of so many px; 0 = never', 0, LARGEST_SIDE
    )
    tile_overlap: int = _parameter(
        256, 'least overlap of neighbouring tiles, px; at most half a tile', 0, LARGEST_SIDE
    )
    image_topics: tuple[str, ...] = _parameter(
        (),
        'topics of several cameras, whose outputs are ~/CAMERA/mask and so on, CAMERA being the'
        ' part before the last of the topic; empty: the one topic image, and ~/mask and so on',
    )
    depth_topics: tuple[str, ...] = _parameter(
        (),
        'depth topics of the cameras in image_topics, in their order; empty: none has depth, and'
        ' the one camera of an empty image_topics has the topic depth',
    )
    image_transport: str = _parameter(
        'raw',
        "'raw' (sensor_msgs/Image) or 'compressed' (CompressedImage on the image topic +"
        " '/compressed')",
        choices=('raw', 'compressed'),
    )
    threshold: float = _parameter(
        0.0, "probability from which a pixel is rock; 0 = the weights' own", 0.0, 1.0, live=True
    )
    min_area: int = _parameter(
        RockSettings.min_area, 'smaller rocks are not told, px', 0, 1_000_000, live=True
    )
    max_rocks: int = _parameter(
        RockSettings.max_rocks, 'only the largest so many are told', 1, MOST_ROCKS, live=True
    )
    polygon_tolerance: float = _parameter(
        RockSettings.polygon_tolerance,
        'largest distance of a contour from its polygon, px',
        0.0,
        100.0,
        live=True,
    )
    split_touching: bool = _parameter(
        RockSettings.split_touching,
        'cut rocks apart that touch: at the rims that the weights know, or by their shape where'
        ' they know none',
        live=True,
    )
    track: bool = _parameter(
        Settings.track,
        'a rock keeps its id while it is in view; else ids count from 1 in each image',
        live=True,
    )
    depth_tolerance: float = _parameter(
        0.05,
        'most that the stamps of an image and its depth may differ, and most that an image waits'
        ' for its depth and for its pose in fixed_frame, s',
        0.0,
        10.0,
        live=True,
    )
    depth_registered: bool = _parameter(
        False,
        "depth is registered to the images even where its frame_id is not theirs, as some drivers'"
        ' aligned depth has it',
    )
    rectified: bool = _parameter(
        False, "images are rectified (image_rect): camera_info's P holds, without distortion"
    )
    ground_plane: str = _parameter(
        'none',
        "ground that gives metres where depth does not: 'none', 'level' (camera_height,"
        " camera_tilt, camera_roll) or 'tf' (z = 0 of base_frame)",
        choices=GROUND_PLANES,
    )
    camera_height: float = _parameter(0.0, 'of the camera above level ground, m', 0.0, 1000.0)
    camera_tilt: float = _parameter(
        0.0, 'of the optical axis below the horizon, rad', -math.pi / 2, math.pi / 2
    )
    camera_roll: float = _parameter(
        0.0,
        'of the camera about its optical axis, clockwise as seen from behind, rad',
        -math.pi,
        math.pi,
    )
    base_frame: str = _parameter('base_link', "frame whose z = 0 is the ground for 'tf'")
    fixed_frame: str = _parameter(
        '',
        'frame that stands still, such as odom: with depth, TF then tells ids how the camera moved;'
        ' empty: images alone do',
    )
    obstacle_step: int = _parameter(
        4, 'px from one point of obstacles to the next, across and down', 1, 100, live=True
    )
    target_min_diameter: float = _parameter(
        TargetRule.min_diameter, 'smaller rocks are no target, m', 0.0, 1000.0, live=True
    )
    target_max_diameter: float = _parameter(
        TargetRule.max_diameter, 'larger rocks are no target, m', 0.0, 1000.0, live=True
    )
    target_min_distance: float = _parameter(
        TargetRule.min_distance, 'nearer rocks are no target, m', 0.0, 1000.0, live=True
    )
    target_max_distance: float = _parameter(
        TargetRule.max_distance, 'farther rocks are no target, m', 0.0, 1000.0, live=True
    )
    target_min_score: float = _parameter(
        TargetRule.min_score, 'less sure rocks are no target', 0.0, 1.0, live=True
    )
    ignore_mask: str = _parameter(
        '',
        "PNG in the image's shape; where it is 0 there is never rock; {camera} in it stands for"
        " each camera's name; empty: none",
    )
    max_rate: float = _parameter(
        0.0,
        'most images a second that are worked on of a camera, Hz; 0 = any',
        0.0,
        1000.0,
        live=True,
    )
    max_pixels: int = _parameter(
        UHD_PIXELS, 'larger images are refused, px', 1, 1_000_000_000, live=True
    )
    significant_bits: int = _parameter(
        0,
        'of 16-bit images, 8 to 16; 0 = auto: the fewest of 8, 10, 12, 14 and 16 that hold every'
        ' value which the camera has sent',
        choices=SIGNIFICANT_BITS,
        live=True,
    )
    overlay_alpha: float = _parameter(
        Settings.overlay_alpha, "strength of the overlay's tint", 0.0, 1.0, live=True
    )
    jpeg_quality: int = _parameter(80, 'of overlay/compressed', 1, 100, live=True)
    max_image_age: float = _parameter(
        0.0, 'images with an older stamp are refused, s; 0 = any', 0.0, 1e6, live=True
    )
    autostart: bool = _parameter(
        True, 'go to active without being asked, at the start or when set while unconfigured'
    )

    def __post_init__(self) -> None:
        """Refuses with ValueError a value that is no choice, and topics that are none."""
        for spec in fields(self):
            _check(spec, getattr(self, spec.name))
        if self.depth_topics and len(self.depth_topics) != len(self.image_topics):
            raise ValueError(
                f'depth_topics has {len(self.depth_topics)} topics; image_topics has'
                f' {len(self.image_topics)}, and each needs one'
            )
        if self.ground_plane == 'level' and self.camera_height <= 0:
            raise ValueError("camera_height is 0.0; ground_plane 'level' needs more than 0")
        _ = self.weights_path

    @property
    def weights_name(self) -> str:
        """What `weights` names, or the embedded weights that suit the device where it is empty."""
        return self.weights or embedded_name(self.device, self.backend, self.precision)

    @property
    def weights_path(self) -> str:
        """The file that `weights` names; a name without suffix is no file's, and stays as it is.

        Raises:
            ValueError: It lies outside `weights_folder`.
        """
        if not self.weights_folder or not Path(self.weights).suffix:
            return self.weights
        folder = Path(self.weights_folder).resolve()
        file = (folder / self.weights).resolve()
        if not file.is_relative_to(folder):
            raise ValueError(
                f'weights is {self.weights!r}; legal is a file in weights_folder, {folder}'
            )
        return str(file)


def _check(spec: Field[Any], value: Any) -> None:
    """Refuses with ValueError a value that is not legal whatever the other parameters are."""
    choices = spec.metadata['choices']
    if choices and value not in choices:
        legal = ', '.join(repr(choice) for choice in choices)
        raise ValueError(f'{spec.name} is {value!r}; legal is one of {legal}')
    if spec.default == ():
        _check_topics(spec.name, value)


def _check_topics(name: str, topics: tuple[str, ...]) -> None:
    """Refuses with ValueError topics that are none, and the same one twice."""
    for number, topic in enumerate(topics):
        try:
            validate_topic_name(topic)
        except InvalidTopicNameException as error:
            reason = first_line(error).removeprefix('Invalid topic name: ').rstrip(':')
            raise ValueError(f'{name} has {topic!r}: {reason}') from None
        if topic in topics[:number]:
            raise ValueError(f'{name} has {topic!r} twice')


PARAMETERS: dict[str, Field[Any]] = {spec.name: spec for spec in fields(Parameters)}


def declare_parameters(node: Node) -> dict[str, str]:
    """Declares all parameters with descriptors and ranges.

    Returns:
        Of each parameter whose value given from outside is not legal, why; it has its default.
    """
    illegal = {}
    for name, spec in PARAMETERS.items():
        try:
            _check(spec, _declare(node, spec))
        except (ParameterException, ValueError) as error:
            illegal[name] = first_line(error)
            if node.has_parameter(name):
                node.undeclare_parameter(name)
            _declare(node, spec, ignore_override=True)
    return illegal


def _declare(node: Node, spec: Field[Any], ignore_override: bool = False) -> Any:
    """Declares a parameter and returns its value."""
    descriptor = _descriptor(spec)
    if spec.default != ():
        return node.declare_parameter(spec.name, spec.default, descriptor, ignore_override).value
    # From an empty list rclpy guesses the type wrongly, so it is told, and the value set after.
    kind = rclpy.parameter.Parameter.Type.STRING_ARRAY
    value = node.declare_parameter(spec.name, kind, descriptor, ignore_override).value
    if value is None:
        node.set_parameters([rclpy.parameter.Parameter(spec.name, kind, [])])
    return tuple(value or ())


def read_parameters(node: Node, changed: Iterable[rclpy.parameter.Parameter] = ()) -> Parameters:
    """Returns the node's parameters, with those `changed` that are about to be set.

    Raises:
        ValueError: A value is none of its choices, or a topic is none; the message is one line.
    """
    values: dict[str, Any] = {name: node.get_parameter(name).value for name in PARAMETERS}
    values.update({p.name: p.value for p in changed if p.name in PARAMETERS})
    for name in ('image_topics', 'depth_topics'):
        values[name] = tuple(values[name])
    return Parameters(**values)


def first_fixed(changed: Iterable[rclpy.parameter.Parameter]) -> str | None:
    """Returns the name of the first parameter that only an unconfigured node may set."""
    for parameter in changed:
        spec = PARAMETERS.get(parameter.name)
        if spec is not None and not spec.metadata['settable']:
            return parameter.name
    return None


def _descriptor(spec: Field[Any]) -> ParameterDescriptor:
    about: Mapping[str, Any] = spec.metadata
    text = about['description'] + (' (live)' if about['live'] else '')
    descriptor = ParameterDescriptor(name=spec.name, description=text, read_only=about['read_only'])
    if about['choices']:
        descriptor.additional_constraints = f'one of {list(about["choices"])}'
    if about['range'] is not None:
        low, high = about['range']
        if isinstance(spec.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
        else:
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
