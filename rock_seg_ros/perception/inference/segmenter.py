# SPDX-License-Identifier: Apache-2.0
"""Image → class ids and confidence, on whichever backend."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.inference.backends import Backend, onnx_backend, openvino_backend
from rock_seg_ros.perception.inference.backends.onnx_backend import OnnxBackend
from rock_seg_ros.perception.inference.backends.openvino_backend import OpenVinoBackend
from rock_seg_ros.perception.inference.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.cuda_pipeline import CudaPipeline
from rock_seg_ros.perception.inference.networks import OUTPUT_STRIDES
from rock_seg_ros.perception.inference.pipeline import Classified, Pipeline, Pixels, PlainPipeline
from rock_seg_ros.perception.inference.presets import PRESETS, resolve_preset
from rock_seg_ros.perception.inference.scoring import Scorer
from rock_seg_ros.perception.inference.tiling import Tiling, check_tiling
from rock_seg_ros.perception.inference.weights_file import Weights, auto_device

BACKENDS: dict[str, Callable[..., Backend]] = {
    'torch': TorchBackend,
    'onnx': OnnxBackend,
    'openvino': OpenVinoBackend,
}
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16', 'int8')
MIN_INPUT_SIDE = 32
CAPTURE_AFTER = 3  # for folders, videos and bags, where the next image waits anyway


class DeviceError(ValueError):
    """A device that this machine does not have."""


class SizeError(ValueError):
    """An image or mask whose size cannot be worked on."""


class Segmentation:
    """What the network says of an image.

    Attributes:
        class_ids: H×W uint8, the class of each pixel.
        rock_ids: The class ids that are rock.
        rim_id: The class id of the rim between touching rocks; None where the network knows none.
    """

    def __init__(
        self,
        class_ids: NDArray[np.uint8],
        confidence: Pixels | Callable[[], Pixels],
        rock_ids: tuple[int, ...],
        rim_id: int | None = None,
        rock_confidence: Pixels | Callable[[], Pixels] | None = None,
    ) -> None:
        """Takes the parts in.

        Args:
            class_ids: H×W uint8.
            confidence: H×W uint8, or what gives it, called at most once.
            rock_ids: The class ids that are rock.
            rim_id: The class id of the rim; None = none.
            rock_confidence: H×W uint8, or what gives it; None = made of the others.
        """
        self.class_ids = class_ids
        self.rock_ids = rock_ids
        self.rim_id = rim_id
        self._confidence = confidence
        self._rock_confidence = rock_confidence

    @cached_property
    def confidence(self) -> NDArray[np.uint8]:
        """H×W uint8, 0 to 255, the probability of each pixel's class."""
        self._confidence = _given(self._confidence)  # lets go what it was made of
        return self._confidence

    @cached_property
    def rock_confidence(self) -> NDArray[np.uint8]:
        """H×W uint8, as the confidence where there is rock, elsewhere 0."""
        if self._rock_confidence is not None:
            return _given(self._rock_confidence)
        return cv2.bitwise_and(self.confidence, self.mask())  # type: ignore[return-value]

    def mask(self) -> NDArray[np.uint8]:
        """Returns H×W uint8: 255 rock, 0 not."""
        if not self.rock_ids[1:]:  # several times as fast as a table
            return class_mask(self.class_ids, self.rock_ids[0])
        table = np.zeros(256, np.uint8)
        table[list(self.rock_ids)] = 255
        return cv2.LUT(self.class_ids, table)  # type: ignore[return-value]


def class_mask(class_ids: Pixels, class_id: int) -> Pixels:
    """Returns H×W uint8, 255 where a class is; several times as fast as NumPy's comparison."""
    return cv2.inRange(class_ids, class_id, class_id)  # type: ignore[return-value]


def _given(pixels: Pixels | Callable[[], Pixels]) -> Pixels:
    return pixels() if callable(pixels) else pixels


def choose_device(
    name: str, weights: Weights | None = None, backend: str = 'auto', precision: str = 'auto'
) -> torch.device:
    """Turns 'auto', 'cpu', 'cuda' or 'cuda:N' into a device that this machine has.

    Only 'auto' chooses; 'cuda' without CUDA is an error, never a silent fall to the CPU.

    Args:
        name: Of the device.
        weights: That will run there; 'auto' is the CPU for an ONNX file that cannot run on CUDA.
        backend: That will run them; 'auto' is the CPU for one that is for the CPU.
        precision: That they will be run in; 'auto' is the CPU for one that is for the CPU.

    Raises:
        DeviceError: The name is not legal, or there is no such device.
    """
    if name == 'auto':
        name = auto_device(backend, precision)
        graph = weights is not None and weights.is_onnx
        on_cpu = name == 'cpu' or (graph and not onnx_backend.can_use_cuda())
        return torch.device('cpu' if on_cpu else 'cuda')
    legal = re.fullmatch(r'cpu|cuda(?::([0-9]+))?', name)
    if not legal:
        raise DeviceError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {name!r}")
    if name != 'cpu':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(legal[1] or 0) >= count:
            raise DeviceError(f'device is {name!r}, but this machine has {count} CUDA devices')
    return torch.device(name)


def choose_backend(name: str, weights: Weights, device: torch.device, precision: str) -> str:
    """Turns 'auto' into the backend that is quickest here; another name is only checked.

    Raises:
        ValueError: There is no such backend.
    """
    if name not in ('auto', *BACKENDS):
        raise ValueError(f'backend must be one of auto, {", ".join(BACKENDS)}, not {name!r}')
    if name != 'auto':
        return name
    if weights.is_onnx:
        return 'onnx'
    compiled = device.type == 'cpu' and precision in openvino_backend.HINTS
    here = precision == 'int8' or openvino_backend.is_available()  # else it tells what is missing
    return 'openvino' if compiled and here else 'torch'


class Segmenter:
    """A network ready to work on images of any size.

    Attributes:
        card: The card of its weights.
        device: Where it runs.
        precision: 'fp32', 'fp16', 'bf16' or 'int8'.
        backend: 'torch', 'onnx' or 'openvino'.
    """

    def __init__(
        self,
        weights: Weights,
        device: str = 'auto',
        precision: str = 'auto',
        backend: str = 'auto',
        output_stride: int = 0,
        input_size: tuple[int, int] = (0, 0),
        preset: str = 'auto',
        tile: int = 0,
        tile_overlap: int = 256,
        capture_after: int = 0,
    ) -> None:
        """Puts the network onto the device.

        Args:
            weights: From `load_weights`.
            device: 'auto' (CUDA where weights and backend can use it), 'cpu', 'cuda' or 'cuda:N'.
            precision: 'auto' (the preset's), 'fp32', 'fp16', 'bf16' or 'int8' (on the CPU).
            backend: 'auto' (what is quickest here), 'torch', 'onnx' or 'openvino'.
            output_stride: 8 or 16 (ResNet-50), 32 (EfficientNet-Lite); 0 = the preset's.
            input_size: Width and height in px that the network sees; 0 = the image's own; both 0:
                enlarged where the card wants it.
            preset: 'auto' (output stride as trained), 'exact', 'balanced' or 'fast'; an ONNX file
                has its own precision and stride.
            tile: A larger image is looked at in tiles of so many px, 0 = never.
            tile_overlap: Least overlap of neighbouring tiles, px.
            capture_after: Once so many batches of a size were worked on, the next ones are made
                quicker at once, which takes a moment; 0 = only by `warm` and `capture_pending`.

        Raises:
            DeviceError: This machine has no such device.
            WeightsError: The weights do not fit the network or the backend.
            ValueError: Another argument is not legal.
        """
        _check_arguments(precision, output_stride, input_size, preset, tile, tile_overlap)
        where = choose_device(device, weights, backend, precision)
        if not weights.is_onnx:
            precision, output_stride = resolve_preset(
                preset, where, weights.card, precision, output_stride
            )
        self.card: Card = weights.card
        self.backend = choose_backend(backend, weights, where, precision)
        make = BACKENDS[self.backend]
        self._runner = make(weights, where, precision, output_stride, parts=tile > 0)
        self.device = self._runner.device
        self.precision = self._runner.precision
        scorer = Scorer(self._runner, self.card, input_size)
        self._tiling = Tiling(scorer, tile, tile_overlap) if tile else None
        graphs = self.device.type == 'cuda' and self.backend == 'torch'
        self._pipeline: Pipeline = (
            CudaPipeline(scorer, capture_after) if graphs else PlainPipeline(scorer)
        )

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        """Finds the class of every pixel.

        Args:
            image: H×W×3 uint8 RGB, any strides.
            threshold: Rock probability, 0 to 1, from which a pixel is rock; None = the card's.

        Returns:
            Class ids and confidence of the image's size.

        Raises:
            SizeError: The image has no pixels.
            ScoresError: What the network gave is not finite.
        """
        return self.segment_batch([image], threshold)[0]

    def segment_batch(
        self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None
    ) -> list[Segmentation]:
        """Finds the class of every pixel of several images.

        Args:
            images: H×W×3 uint8 RGB each, any strides; those of one size are run together.
            threshold: Rock probability, 0 to 1, from which a pixel is rock; None = the card's.

        Returns:
            Class ids and confidence of each image, in the images' order.

        Raises:
            SizeError: An image has no pixels.
            ScoresError: What the network gave for one of them is not finite.
        """
        threshold = self.card.threshold if threshold is None else threshold
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            if not image.size:
                height, width = image.shape[:2]
                raise SizeError(f'the image is {width}×{height}; both must be at least 1')
            by_shape.setdefault(image.shape, []).append(number)
        found: dict[int, Classified] = {}
        with torch.inference_mode():
            for numbers in by_shape.values():
                alike = self._run([images[number] for number in numbers], threshold)
                found.update(zip(numbers, alike, strict=True))
        return [
            Segmentation(
                own.class_ids,
                own.confidence,
                self.card.rock_ids,
                self.card.rim_id,
                own.rock_confidence,
            )
            for _, own in sorted(found.items())
        ]

    def warm_up(self, height: int, width: int, most: int = 1) -> None:
        """Makes everything ready that the first images of a size would otherwise wait for.

        Args:
            height: Of the images, px.
            width: Of the images, px.
            most: Largest number of images that may be run together; each from 1 on is made ready.

        Raises:
            ScoresError: What the network gave is not finite.
        """
        image = np.zeros((height, width, 3), np.uint8)
        if self._tiling and self._tiling.needs_tiling(image):
            most = 1  # those that are tiled are run one by one
        for batch in range(1, most + 1):
            try:
                self._warm(image, batch)
            except torch.cuda.OutOfMemoryError as error:  # smaller ones may come
                size = f'{batch}×{width}×{height}'
                warnings.warn(
                    f'{size} is too large for {self.device}: {first_line(error)}', stacklevel=2
                )
                return

    def _warm(self, image: NDArray[np.uint8], batch: int) -> None:
        if self._tiling and self._tiling.needs_tiling(image):
            self.segment(image)
            return
        with torch.inference_mode():
            self._pipeline.warm_up(batch, *image.shape[:2])

    def capture_pending(self) -> None:
        """Makes ready what images of a size that was not warmed would gain from.

        Such images are worked on at once, only slower; for moments when none waits.
        """
        with torch.inference_mode():
            self._pipeline.capture_pending()

    def _run(self, alike: list[NDArray[np.uint8]], threshold: float) -> list[Classified]:
        """Classifies the pixels of images of one size."""
        if self._tiling and self._tiling.needs_tiling(alike[0]):
            return [self._tiling.run(image, threshold) for image in alike]
        return self._pipeline.run(alike, threshold)


def _check_arguments(
    precision: str,
    output_stride: int,
    input_size: tuple[int, int],
    preset: str,
    tile: int,
    tile_overlap: int,
) -> None:
    """Raises ValueError if an argument is not legal, whatever the weights and the machine."""
    if precision not in PRECISIONS:
        raise ValueError(f'precision must be one of {", ".join(PRECISIONS)}, not {precision!r}')
    if output_stride not in (0, *OUTPUT_STRIDES):
        legal = ', '.join(map(str, OUTPUT_STRIDES))
        raise ValueError(f'output_stride must be one of 0, {legal}, not {output_stride}')
    if preset not in PRESETS:
        raise ValueError(f'preset must be one of {", ".join(PRESETS)}, not {preset!r}')
    if any(side and side < MIN_INPUT_SIDE for side in input_size):
        raise ValueError(
            f'input width and height must be 0 or at least {MIN_INPUT_SIDE} px, not {input_size}'
        )
    if tile and any(input_size):
        raise ValueError(f'tile must be 0 where the input size is {input_size}, not {tile}')
    check_tiling(tile, tile_overlap)


def apply_ignore_mask(segmentation: Segmentation, valid_mask: NDArray[np.uint8]) -> Segmentation:
    """Makes pixels background that can never be rock, such as the robot's own deck.

    Args:
        segmentation: Of the image.
        valid_mask: H×W uint8; where it is 0, rock and rims become background with full confidence.

    Raises:
        SizeError: The sizes differ.
    """
    check_size(valid_mask, segmentation.class_ids.shape)
    rims = segmentation.class_ids == segmentation.rim_id if segmentation.rim_id else False
    never = (valid_mask == 0) & ((segmentation.mask() > 0) | rims)
    background = next(i for i in range(256) if i not in segmentation.rock_ids)
    return Segmentation(
        np.where(never, np.uint8(background), segmentation.class_ids),
        lambda: np.where(never, np.uint8(255), segmentation.confidence),
        segmentation.rock_ids,
        segmentation.rim_id,
        lambda: np.where(never, np.uint8(0), segmentation.rock_confidence),
    )


def check_size(valid_mask: NDArray[np.uint8], size: tuple[int, ...]) -> None:
    """Raises SizeError if the size of an ignore mask differs from that of the image.

    Args:
        valid_mask: H×W uint8.
        size: Height and width of the image, px.
    """
    if valid_mask.shape != tuple(size):
        height, width = valid_mask.shape
        raise SizeError(f'the ignore mask is {width}×{height}, the image is {size[1]}×{size[0]}')
