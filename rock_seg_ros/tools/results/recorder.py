# SPDX-License-Identifier: Apache-2.0
"""Records of images: the rocks with their sizes, the scale, and the settings of the run."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.scale import (
    Scale,
    ScaleError,
    scale_from_points,
    scale_from_tag,
    tag_families,
)
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import weights_path
from rock_seg_ros.tools.image_results import image_record
from rock_seg_ros.tools.main import UsageError

# Options that change the results; device, precision, backend and threshold are added.
SETTINGS = (
    'preset', 'output_stride', 'input_size', 'tile', 'tile_overlap', 'min_area', 'max_rocks',
    'polygon_tolerance', 'split_touching', 'track', 'ignore_mask', 'significant_bits',
    'mm_per_px', 'scale_tag', 'scale_points', 'alpha',
)  # fmt: skip


def add_scale_options(parser: argparse.ArgumentParser, note: str = '') -> None:
    """Adds the options that give sizes in mm without a calibrated camera.

    Args:
        parser: The parser.
        note: End of each help text.
    """
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        '--mm-per-px', type=_above_zero, metavar='X',
        help='millimetres per pixel of all images, which gives sizes in mm' + note,
    )  # fmt: skip
    group.add_argument(
        '--scale-tag', type=_tag, metavar='FAMILY:SIDE_MM',
        help='measure the scale of each image from an ArUco or AprilTag marker in it, of this'
        ' family and with a black square of this side, such as apriltag_36h11:50' + note,
    )  # fmt: skip
    group.add_argument(
        '--scale-points', type=float, nargs=5, metavar=('X1', 'Y1', 'X2', 'Y2', 'MM'),
        help='two points of the image, px, that are MM millimetres apart, such as the ends of a'
        ' scale bar; for images that are all taken from the same distance' + note,
    )  # fmt: skip


class Recorder:
    """Creates the records of images.

    Attributes:
        made_by: Version, weights and settings, so that a figure can be traced.
        has_scale: Whether an option gives a scale.
    """

    def __init__(
        self, arguments: argparse.Namespace, segmenter: Segmenter, settings: Sequence[str] = ()
    ) -> None:
        """Reads the options.

        Args:
            arguments: The options of the network and, where the command has them, of the scale.
            segmenter: The network that finds the rocks.
            settings: Other options of the command that change the results.

        Raises:
            UsageError: The scale is not valid.
            OSError: The weights file cannot be read.
        """
        self.made_by = _made_by(arguments, segmenter, (*SETTINGS, *settings))
        self._measure = _scale_source(arguments)
        self.has_scale = self._measure is not None

    def record(self, name: str, analysis: Analysis) -> dict[str, Any]:
        """Returns the record of an image, without `made_by`.

        An image without the marker of `--scale-tag`, or without a point of `--scale-points`, has
        no sizes in mm; its record gives the reason as `scale.problem`.
        """
        scale, problem = None, ''
        if self._measure:
            try:
                scale = self._measure(analysis.image)
            except ScaleError as error:
                problem = str(error)
        return image_record(name, analysis, scale, problem)


def scale_problem(record: dict[str, Any]) -> str:
    """Returns why an image has no scale although an option requests it; '' if it has one."""
    return (record['scale'] or {}).get('problem', '')


def _made_by(
    arguments: argparse.Namespace, segmenter: Segmenter, names: Sequence[str]
) -> dict[str, Any]:
    weights = weights_path(
        arguments.weights, arguments.device, arguments.backend, arguments.precision
    )
    given = vars(arguments)
    settings = {name: _plain(given[name]) for name in names if name in given}
    if given.get('ignore_mask'):
        settings['ignore_mask_sha256'] = _sha256(given['ignore_mask'])
    ran = {name: str(getattr(segmenter, name)) for name in ('device', 'precision', 'backend')}
    metadata = segmenter.metadata
    threshold = metadata.threshold if arguments.threshold is None else arguments.threshold
    return {
        'version': _version(),
        'weights': weights.name,
        'weights_sha256': _sha256(weights),
        'classes': list(metadata.classes),
        'rock_classes': list(metadata.rock_classes),
        'settings': {'threshold': threshold, **settings, **ran},
    }


def _sha256(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version('rock_seg_ros')
    except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
        return 'unknown'


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value


def _scale_source(
    arguments: argparse.Namespace,
) -> Callable[[NDArray[np.uint8]], Scale] | None:
    given = vars(arguments)
    if given.get('mm_per_px'):
        fixed = Scale(arguments.mm_per_px, 'given')
        return lambda _: fixed
    if given.get('scale_points'):
        of_points = _scale_of_points(*arguments.scale_points)
        points = np.reshape(arguments.scale_points[:4], (2, 2))
        return lambda image: _scale_with_points_in(image, points, of_points)
    if given.get('scale_tag'):
        family, side = arguments.scale_tag
        return lambda image: scale_from_tag(image, family, side)
    return None


def _scale_with_points_in(
    image: NDArray[np.uint8], points: NDArray[np.floating], scale: Scale
) -> Scale:
    """Returns the scale; raises ScaleError if a point (x, y in px) is outside of the image."""
    height, width = image.shape[:2]
    for x, y in points:
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            size = f'{width}×{height} px'
            raise ScaleError(f'the point {x:g}, {y:g} is outside of the image, which is {size}')
    return scale


def _scale_of_points(x1: float, y1: float, x2: float, y2: float, mm: float) -> Scale:
    if not mm > 0 or not all(map(math.isfinite, (x1, y1, x2, y2, mm))):
        raise UsageError(f'--scale-points: MM must be above 0 and all values finite, not {mm:g}')
    try:
        return scale_from_points((x1, y1), (x2, y2), mm)
    except ScaleError as error:
        raise UsageError(f'--scale-points: {error}') from None


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f'must be above 0, not {text}')
    return value


def _tag(text: str) -> tuple[str, float]:
    family, _, side = text.rpartition(':')
    if family.lower() not in tag_families():
        expected = ', '.join(tag_families())
        raise argparse.ArgumentTypeError(
            f'must be FAMILY:SIDE_MM, such as apriltag_36h11:50, not {text}; families: {expected}'
        )
    try:
        return family.lower(), _above_zero(side)
    except ValueError:
        raise argparse.ArgumentTypeError(f'the side must be a number of mm, not {side}') from None
