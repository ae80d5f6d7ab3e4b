# SPDX-License-Identifier: Apache-2.0
"""The Python API: finds the rocks in an image, without ROS.

Source of the record formats: COCO's "results" (https://cocodataset.org/#format-results), and
supervision's `Detections`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import Plane, View, level_ground
from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import load_weights
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings
from rock_seg_ros.perception.overlay import draw_overlay

__all__ = ['DetectedRock', 'Intrinsics', 'RockSegmenter', 'SegmentationResult', 'level_ground']

Image = NDArray[np.uint8] | str | os.PathLike[str]


@dataclass(frozen=True)
class DetectedRock:
    """One rock in one image.

    Pixel coordinates have x to the right and y down; whole numbers are pixel centres. Positions
    are in the camera's optical frame of REP 103: x to the right, y down, z forward. Lengths are in
    metres, and NaN where they are not known.

    Attributes:
        id: Number of the rock, from 1, the largest rock first.
        class_name: Its class.
        score: Mean confidence of its pixels, 0 to 1.
        area: Number of its pixels.
        bbox: x and y of the first pixel, width and height, px.
        centroid: Mean x and y of its pixels, px.
        polygon: V×2 float32, its outer contour, clockwise as seen, px.
        position: x, y and z of the middle of its visible surface, m.
        diameter: Diameter of a disc with the area of its silhouette, m.
        extent: Size along x, y and z, m.
        height: Height of its top above the ground around it, m.
        distance: Distance from the camera, m.
    """

    id: int
    class_name: str
    score: float
    area: int
    bbox: tuple[int, int, int, int]
    centroid: tuple[float, float]
    polygon: NDArray[np.float32]
    position: tuple[float, float, float]
    diameter: float
    extent: tuple[float, float, float]
    height: float
    distance: float


class SegmentationResult:
    """The rocks of one image. Each attribute is computed when it is first used."""

    def __init__(self, analysis: Analysis) -> None:
        """Wraps an analysis whose segmentation is complete."""
        self._analysis = analysis

    @property
    def image(self) -> NDArray[np.uint8]:
        """The image, H×W×3 uint8 RGB."""
        return self._analysis.image

    @property
    def mask(self) -> NDArray[np.uint8]:
        """H×W uint8: 255 where there is rock or the rim between touching rocks, 0 elsewhere."""
        return self._analysis.mask

    @property
    def class_ids(self) -> NDArray[np.uint8]:
        """H×W uint8: the class id of each pixel, an index into `classes`."""
        return self._analysis.segmentation.class_ids

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of their ids."""
        return self._analysis.classes

    @property
    def confidence(self) -> NDArray[np.uint8]:
        """H×W uint8: the probability of the pixel's class, 0 to 255; see `classification`."""
        return self._analysis.segmentation.confidence

    @property
    def instances(self) -> NDArray[np.uint16]:
        """H×W uint16: 0, or the id of the rock in `rocks`."""
        return self._analysis.instances

    @cached_property
    def rocks(self) -> list[DetectedRock]:
        """The rocks, largest first."""
        pairs = zip(self._analysis.rocks, self._analysis.locations, strict=True)
        return [
            DetectedRock(
                id=rock.id,
                class_name=self.classes[rock.class_id],
                score=rock.score,
                area=rock.area,
                bbox=rock.box,
                centroid=rock.centroid,
                polygon=rock.polygon,
                position=location.position,
                diameter=location.diameter,
                extent=location.extent,
                height=location.height,
                distance=location.distance,
            )
            for rock, location in pairs
        ]

    def draw(self, alpha: float = 0.4) -> NDArray[np.uint8]:
        """Draws the rocks onto a copy of the image.

        Args:
            alpha: Opacity of the tint, 0 (none) to 1.

        Returns:
            H×W×3 uint8 RGB.

        Raises:
            ValueError: `alpha` is out of range.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f'alpha must be 0 to 1, not {alpha}')
        return draw_overlay(self.image, self.mask, self._analysis.rocks, alpha)

    def to_coco(self, image_id: int = 1) -> list[dict[str, Any]]:
        """Returns the rocks in COCO's results format, ready for `json.dump`.

        Args:
            image_id: Number of the image in the COCO data set.

        Returns:
            One dict per rock with `image_id`, `category_id` (the class id), `segmentation` (an
            uncompressed run-length encoding of the rock's pixels), `area`, `bbox` and `score`.
        """
        return [
            {
                'image_id': image_id,
                'category_id': rock.class_id,
                'segmentation': _run_lengths(rock, self.mask.shape),
                'area': rock.area,
                'bbox': list(rock.box),
                'score': round(rock.score, 6),
                'iscrowd': 0,
            }
            for rock in self._analysis.rocks
        ]

    def to_detections(self) -> Any:
        """Returns the rocks as supervision's `Detections`, with masks.

        Raises:
            ImportError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            message = 'to_detections needs supervision: pip install supervision'
            raise ImportError(message, name='supervision') from error
        rocks = self._analysis.rocks
        if not rocks:
            return supervision.Detections.empty()
        boxes = np.array([rock.box for rock in rocks], np.float32)
        return supervision.Detections(
            xyxy=np.column_stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]),
            mask=np.stack([self.instances == number + 1 for number in range(len(rocks))]),
            confidence=np.array([rock.score for rock in rocks], np.float32),
            class_id=np.array([rock.class_id for rock in rocks]),
            data={'class_name': np.array([self.classes[rock.class_id] for rock in rocks])},
        )


class RockSegmenter:
    """Finds the rocks in images.

    >>> from rock_seg_ros import RockSegmenter
    >>> result = RockSegmenter().segment('demo/samples/images/332.webp')
    >>> result.mask.shape == result.image.shape[:2]
    True
    >>> overlay = result.draw()
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] = '',
        device: str = 'auto',
        preset: str = 'auto',
        threshold: float | None = None,
        min_area: int = RockSettings.min_area,
        max_rocks: int = RockSettings.max_rocks,
        split_touching: bool = RockSettings.split_touching,
    ) -> None:
        """Loads the network.

        Args:
            weights: A weights file, or the name of embedded weights, 'resnet50' or 'light'. Empty:
                'resnet50' on CUDA, 'light' on a CPU.
            device: 'auto' (CUDA where it can be used), 'cpu', 'cuda' or 'cuda:N'.
            preset: 'auto' (on a CPU int8 if the weights are calibrated for it), 'exact', 'balanced'
                or 'fast'.
            threshold: Probability, 0 to 1, from which a pixel is rock; None = the threshold in the
                metadata of the weights.
            min_area: Smallest area of a reported rock, px.
            max_rocks: Maximum number of reported rocks, largest first, 0 to 65535.
            split_touching: Whether rocks that touch are separated.

        Raises:
            WeightsError: The weights cannot be used.
            DeviceError: There is no such device.
            ValueError: Another argument is out of range.
        """
        if threshold is not None and not 0 <= threshold <= 1:
            raise ValueError(f'threshold must be 0 to 1, not {threshold}')
        self._segmenter = Segmenter(load_weights(weights, device), device=device, preset=preset)
        rocks = RockSettings(min_area, max_rocks, split_touching=split_touching)
        self._settings = Settings(threshold, rocks)

    @property
    def device(self) -> str:
        """The device that the network runs on."""
        return str(self._segmenter.device)

    def segment(
        self,
        image: Image,
        intrinsics: Intrinsics | ArrayLike | None = None,
        depth: NDArray[np.floating] | None = None,
        ground: Plane | None = None,
    ) -> SegmentationResult:
        """Finds the rocks in one image.

        Args:
            image: H×W×3 uint8 RGB, or an image file.
            intrinsics: The camera, for sizes in metres: `Intrinsics`, or the 3×3 camera matrix K
                of an image without distortion.
            depth: H×W, metres along the optical axis, registered to the image; NaN, infinite, and
                0 or less = not known.
            ground: The plane that the rocks stand on, where there is no depth; see `level_ground`.

        Raises:
            ValueError: The image or the depth does not have the right shape or dtype.
            ImageError: The file does not hold an image.
            OSError: The file cannot be read.
        """
        pixels = read_rgb(image) if isinstance(image, (str, os.PathLike)) else image
        _check_image(pixels)
        view = None if intrinsics is None else _view(pixels, intrinsics, depth, ground)
        if view is None and (depth is not None or ground is not None):
            raise ValueError('depth and ground need intrinsics, which are None')
        analysis = Analysis(pixels, self._segmenter, self._settings, view=view)
        _ = analysis.segmentation
        return SegmentationResult(analysis)


def _check_image(pixels: Any) -> None:
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        kind = getattr(pixels, 'dtype', type(pixels).__name__)
        raise ValueError(f'image must be a NumPy array of uint8 or a file name, not {kind}')
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        shape = '×'.join(map(str, pixels.shape))
        raise ValueError(f'image must be H×W×3 RGB, not {shape}')


def _view(
    pixels: NDArray[np.uint8],
    intrinsics: Intrinsics | ArrayLike,
    depth: NDArray[np.floating] | None,
    ground: Plane | None,
) -> View:
    size = pixels.shape[1], pixels.shape[0]
    if not isinstance(intrinsics, Intrinsics):
        intrinsics = Intrinsics(np.asarray(intrinsics, np.float64), np.zeros(0), size=size)
    if intrinsics.size != size:
        width, height = intrinsics.size
        raise ValueError(f'intrinsics are of {width}×{height}, the image is {size[0]}×{size[1]}')
    return View(intrinsics, None if depth is None else np.asarray(depth, np.float32), ground)


def _run_lengths(rock: Rock, shape: Sequence[int]) -> dict[str, Any]:
    """Returns the rock's pixels as COCO's uncompressed run lengths, column by column."""
    x, y, width, height = rock.box
    pixels = np.zeros(shape[:2], np.uint8)
    cv2.copyTo(np.ones_like(rock.mask), rock.mask, pixels[y : y + height, x : x + width])
    flat = pixels.ravel(order='F')
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    counts = np.diff(bounds).tolist()
    return {'size': list(shape[:2]), 'counts': [0, *counts] if flat[0] else counts}
