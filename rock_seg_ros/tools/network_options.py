# SPDX-License-Identifier: Apache-2.0
"""Command-line options of the network. Their defaults come from the code that they configure."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.analysis import Settings
from rock_seg_ros.perception.image_io import bit_depth
from rock_seg_ros.perception.image_io.decoding import MAX_PIXELS, read_label_image
from rock_seg_ros.perception.inference.networks import OUTPUT_STRIDES
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmenter import (
    BACKENDS,
    CAPTURE_AFTER,
    PRECISIONS,
    Segmenter,
)
from rock_seg_ros.perception.inference.weights_file import load_weights
from rock_seg_ros.perception.instances.rocks import MOST_ROCKS, RockSettings

BITS_HINT = 'set the number of bits with --significant-bits'


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `segmenter_of` and `settings_of` read."""
    network = _defaults(Segmenter)
    settings, rocks = _defaults(Settings), _defaults(RockSettings)

    def add(name: str, default: Any, text: str, none: str = '', **more: Any) -> None:
        value = ' '.join(map(str, default)) if isinstance(default, tuple) else default
        parser.add_argument(
            name, default=default, help=f'{text} (default: {none or value})', **more
        )

    add(
        '--weights',
        '',
        'weights file (.safetensors, .onnx or .pth), or resnet50 or light for the embedded weights',
        'resnet50 on CUDA, light on a CPU',
        metavar='FILE',
    )
    add(
        '--device',
        network['device'],
        'device of the network: auto, cpu, cuda or cuda:N; auto uses the first GPU if there is one',
    )
    add(
        '--preset',
        network['preset'],
        'trade-off between accuracy and speed: exact is the most accurate, fast the fastest; auto'
        ' uses int8 on a CPU if the weights are calibrated for it, as the embedded ones are; on'
        ' CUDA, fast is the same as balanced',
        choices=PRESETS,
    )
    add(
        '--precision',
        network['precision'],
        'number format of the computation; auto = the one of the preset',
        choices=PRECISIONS,
    )
    add(
        '--backend',
        network['backend'],
        'runtime that executes the network; auto = the fastest one that is installed',
        choices=('auto', *BACKENDS),
    )
    add(
        '--output-stride',
        network['output_stride'],
        'output stride of the backbone; smaller is more accurate and slower; 0 = the one of the'
        ' preset',
        type=int,
        choices=(0, *OUTPUT_STRIDES),
    )
    add(
        '--input-size',
        network['input_size'],
        'size to which images are scaled for the network, px; reduce it for speed; 0 0 = the size'
        ' of the image',
        nargs=2,
        type=int,
        metavar=('WIDTH', 'HEIGHT'),
    )
    add(
        '--tile',
        network['tile'],
        'side of the tiles into which larger images are divided, px; reduce it if memory runs out;'
        ' 0 = no tiling',
        type=_count,
        metavar='PX',
    )
    add(
        '--tile-overlap',
        network['tile_overlap'],
        'minimum overlap of neighbouring tiles, px; at least the size of a typical rock',
        type=_count,
        metavar='PX',
    )
    add(
        '--threshold',
        settings['threshold'],
        'probability from which a pixel is rock, 0 to 1; raise it to get fewer false positives',
        'the threshold in the metadata of the weights',
        type=_fraction,
        metavar='P',
    )
    add(
        '--min-area',
        rocks['min_area'],
        'minimum area of a reported rock, px; raise it to ignore pebbles and noise',
        type=_count,
        metavar='N',
    )
    add(
        '--max-rocks',
        rocks['max_rocks'],
        'maximum number of reported rocks per image; the largest ones are reported',
        type=_number_of_rocks,
        metavar='N',
    )
    add(
        '--polygon-tolerance',
        rocks['polygon_tolerance'],
        'maximum distance between a contour and its polygon, px; raise it to get fewer vertices',
        type=_positive,
        metavar='PX',
    )
    add(
        '--split-touching',
        rocks['split_touching'],
        'separate rocks that touch each other; without it, they are reported as one rock',
        action=argparse.BooleanOptionalAction,
    )
    add(
        '--ignore-mask',
        settings['valid_mask'],
        'PNG of the size of the images; where it is 0, no rock is reported; use it for parts of'
        ' the robot in view',
        'none',
        type=Path,
        metavar='FILE',
    )
    add(
        '--significant-bits',
        0,
        'number of bits that 16-bit images use; 0 = the smallest number that holds all values so'
        ' far; set it if the brightness of such images is wrong',
        type=int,
        choices=bit_depth.CHOICES,
        metavar='BITS',
    )
    add(
        '--max-pixels',
        MAX_PIXELS,
        'maximum number of pixels of an image; larger images are rejected, to limit memory',
        type=_count,
        metavar='N',
    )
    add(
        '--alpha',
        settings['overlay_alpha'],
        'opacity of the tint in the overlay, 0 to 1',
        type=_fraction,
        metavar='A',
    )


def add_track_option(parser: argparse.ArgumentParser) -> None:
    """Adds `--track`, which sets whether rocks keep their ids from image to image."""
    parser.add_argument(
        '--track', action=argparse.BooleanOptionalAction, default=Settings.track,
        help='track rocks, so that a rock keeps its id from image to image'
        f' (default: {Settings.track})',
    )  # fmt: skip


def segmenter_of(arguments: argparse.Namespace) -> Segmenter:
    """Loads the network that the options name.

    Raises:
        ValueError: The weights cannot be used, or this machine does not support an option.
    """
    return Segmenter(
        load_weights(arguments.weights, arguments.device, arguments.backend, arguments.precision),
        arguments.device,
        arguments.precision,
        arguments.backend,
        arguments.output_stride,
        tuple(arguments.input_size),
        arguments.preset,
        arguments.tile,
        arguments.tile_overlap,
        CAPTURE_AFTER,
    )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Returns the settings of the options.

    Raises:
        ValueError: The ignore mask is not a valid image.
    """
    return Settings(
        arguments.threshold,
        RockSettings(
            arguments.min_area,
            arguments.max_rocks,
            arguments.polygon_tolerance,
            arguments.split_touching,
        ),
        arguments.alpha,
        vars(arguments).get('track', Settings.track),
        valid_mask=None
        if arguments.ignore_mask is None
        else read_label_image(arguments.ignore_mask, palette_indices=False),
    )


def _defaults(of: Any) -> dict[str, Any]:
    return {
        name: None if parameter.default is inspect.Parameter.empty else parameter.default
        for name, parameter in inspect.signature(of).parameters.items()
    }


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'must be 0 to 1, not {text}')
    return value


def _positive(text: str) -> float:
    value = float(text)
    if not 0 <= value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be 0 or more, not {text}')
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f'must be 0 or more, not {text}')
    return value


def _number_of_rocks(text: str) -> int:
    value = _count(text)
    if value > MOST_ROCKS:
        raise argparse.ArgumentTypeError(f'must be at most {MOST_ROCKS}, not {text}')
    return value
