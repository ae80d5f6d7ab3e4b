# SPDX-License-Identifier: Apache-2.0
"""The segmenter: a network on a device that segments images of any size."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.inference.backends import Backend, onnx_backend, openvino_backend
from rock_seg_ros.perception.inference.backends.onnx_backend import OnnxBackend
from rock_seg_ros.perception.inference.backends.openvino_backend import OpenVinoBackend
from rock_seg_ros.perception.inference.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.inference.cuda_pipeline import CudaPipeline
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.networks import OUTPUT_STRIDES
from rock_seg_ros.perception.inference.pipeline import Pipeline, PlainPipeline
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.preprocessing import correct_exposure
from rock_seg_ros.perception.inference.presets import PRESETS, resolve_preset
from rock_seg_ros.perception.inference.segmentation import Segmentation, SizeError
from rock_seg_ros.perception.inference.tiling import Tiling, check_tiling
from rock_seg_ros.perception.inference.weights_file import Weights, auto_device

BACKENDS: dict[str, Callable[..., Backend]] = {
    'torch': TorchBackend,
    'onnx': OnnxBackend,
    'openvino': OpenVinoBackend,
}
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16', 'int8')
MIN_INPUT_SIDE = 32
CAPTURE_AFTER = 3  # for folders, videos and bags, where the next image is always available


class DeviceError(ValueError):
    """The device is not valid, or this machine does not have it."""


def choose_device(
    name: str, weights: Weights | None = None, backend: str = 'auto', precision: str = 'auto'
) -> torch.device:
    """Returns the device of a name: 'auto', 'cpu', 'cuda' or 'cuda:N'.

    Only 'auto' selects a device. 'cuda' on a machine without CUDA is an error; there is no silent
    fallback to the CPU.

    Args:
        name: Name of the device.
        weights: The weights; 'auto' is the CPU for an ONNX file that cannot run on CUDA.
        backend: The backend; 'auto' is the CPU for a backend that supports only the CPU.
        precision: The precision; 'auto' is the CPU for a precision that needs the CPU.

    Raises:
        DeviceError: The name is not valid, or this machine has no such device.
    """
    if name == 'auto':
        name = auto_device(backend, precision)
        graph = weights is not None and weights.is_onnx
        on_cpu = name == 'cpu' or (graph and not onnx_backend.can_use_cuda())
        return torch.device('cpu' if on_cpu else 'cuda')
    match = re.fullmatch(r'cpu|cuda(?::([0-9]+))?', name)
    if not match:
        raise DeviceError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {name!r}")
    if name != 'cpu':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(match[1] or 0) >= count:
            raise DeviceError(f'device is {name!r}, but this machine has {count} CUDA devices')
    return torch.device(name)


def choose_backend(name: str, weights: Weights, device: torch.device, precision: str) -> str:
    """Returns the backend of a name; 'auto' selects the fastest one that is installed.

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
    # int8 needs OpenVINO; if it is missing, the error of that backend names the package.
    usable = precision == 'int8' or openvino_backend.is_available()
    return 'openvino' if compiled and usable else 'torch'


class Segmenter:
    """A network that is ready to segment images of any size.

    Attributes:
        metadata: The metadata of the weights.
        device: The device that the network runs on.
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
        """Loads the network onto the device.

        Args:
            weights: The weights, from `load_weights`.
            device: 'auto' (CUDA if weights and backend support it), 'cpu', 'cuda' or 'cuda:N'.
            precision: 'auto' (that of the preset), 'fp32', 'fp16', 'bf16' or 'int8' (CPU only).
            backend: 'auto' (the fastest one that is installed), 'torch', 'onnx' or 'openvino'.
            output_stride: 8 or 16 (ResNet-50), 32 (EfficientNet-Lite); 0 = that of the preset.
            input_size: Width and height of the network's input, px; 0 = those of the image. If
                both are 0, small images are enlarged if the metadata requires it.
            preset: 'auto' (output stride of the training; int8 on the CPU where weights and backend
                support it), 'exact', 'balanced' or 'fast'. An ONNX file has its own precision and
                output stride.
            tile: Tile size for images that are larger than this, px; 0 = no tiling.
            tile_overlap: Minimum overlap of neighbouring tiles, px.
            capture_after: Number of batches of one shape after which its CUDA graph is captured;
                0 = graphs are captured only by `warm_up` and `capture_pending`.

        Raises:
            DeviceError: This machine has no such device.
            WeightsError: The weights do not fit the network or the backend.
            ValueError: Another argument is not valid.
        """
        _check_arguments(precision, output_stride, input_size, preset, tile, tile_overlap)
        where = choose_device(device, weights, backend, precision)
        if not weights.is_onnx:
            precision, output_stride = resolve_preset(
                preset,
                where,
                weights.metadata,
                precision,
                output_stride,
                int8_backend=backend in ('auto', 'openvino') and openvino_backend.is_available(),
            )
        self.metadata: ModelMetadata = weights.metadata
        self.backend = choose_backend(backend, weights, where, precision)
        make = BACKENDS[self.backend]
        self._runner = make(weights, where, precision, output_stride, parts=tile > 0)
        self.device = self._runner.device
        self.precision = self._runner.precision
        predictor = Predictor(self._runner, self.metadata, input_size)
        self._tiling = Tiling(predictor, tile, tile_overlap) if tile else None
        graphs = self.device.type == 'cuda' and self.backend == 'torch'
        self._pipeline: Pipeline = (
            CudaPipeline(predictor, capture_after) if graphs else PlainPipeline(predictor)
        )

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        """Segments one image.

        Args:
            image: H×W×3 uint8 RGB, any strides.
            threshold: Probability from which a pixel is rock, 0 to 1; None = that of the metadata.

        Returns:
            Class ids and confidence in the size of the image.

        Raises:
            SizeError: The image has no pixels.
            LogitsError: The logits of the network are not finite.
        """
        return self.segment_batch([image], threshold)[0]

    def segment_batch(
        self, images: Sequence[NDArray[np.uint8]], threshold: float | None = None
    ) -> list[Segmentation]:
        """Segments several images. Images of one size are one batch.

        Args:
            images: H×W×3 uint8 RGB each, any strides.
            threshold: Probability from which a pixel is rock, 0 to 1; None = that of the metadata.

        Returns:
            The segmentations, in the order of the images.

        Raises:
            SizeError: An image has no pixels.
            LogitsError: The logits for one of the images are not finite.
        """
        threshold = self.metadata.threshold if threshold is None else threshold
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for number, image in enumerate(images):
            if not image.size:
                height, width = image.shape[:2]
                raise SizeError(f'the image is {width}×{height}; both must be at least 1')
            by_shape.setdefault(image.shape, []).append(number)
        found: dict[int, Segmentation] = {}
        with torch.inference_mode():
            for numbers in by_shape.values():
                batch = self._run([images[number] for number in numbers], threshold)
                found.update(zip(numbers, batch, strict=True))
        return [found[number] for number in range(len(images))]

    def warm_up(self, height: int, width: int, max_batch: int = 1) -> None:
        """Prepares for images of a size, so that the first ones are not slower.

        It warns if the device has too little memory for the size or the batch.

        Args:
            height: Height of the images, px.
            width: Width of the images, px.
            max_batch: Maximum number of images per batch; each number from 1 is prepared.

        Raises:
            LogitsError: The logits of the network are not finite.
        """
        image = np.zeros((height, width, 3), np.uint8)
        if self._needs_tiling(image):
            max_batch = 1  # images that need tiles are run one by one
        for batch in range(1, max_batch + 1):
            try:
                self._warm_up(image, batch)
            except torch.cuda.OutOfMemoryError as error:  # smaller images may still fit
                size = f'{batch}×{width}×{height}'
                warnings.warn(
                    f'{size} is too large for {self.device}: {first_line(error)}', stacklevel=2
                )
                return

    def _warm_up(self, image: NDArray[np.uint8], batch: int) -> None:
        if self._needs_tiling(image):
            self.segment(image)
            return
        with torch.inference_mode():
            self._pipeline.warm_up(batch, *image.shape[:2])

    def capture_pending(self) -> None:
        """Captures CUDA graphs for the image sizes that were processed without one.

        Such images are processed, but slower. Call it when no image is waiting.
        """
        with torch.inference_mode():
            self._pipeline.capture_pending()

    def _needs_tiling(self, image: NDArray[np.uint8]) -> bool:
        return self._tiling is not None and self._tiling.needs_tiling(image)

    def _run(self, images: list[NDArray[np.uint8]], threshold: float) -> list[Segmentation]:
        """Segments images of one size."""
        images = [correct_exposure(image) for image in images]
        if self._tiling is not None and self._tiling.needs_tiling(images[0]):
            return [self._tiling.run(image, threshold) for image in images]
        return self._pipeline.run(images, threshold)


def _check_arguments(
    precision: str,
    output_stride: int,
    input_size: tuple[int, int],
    preset: str,
    tile: int,
    tile_overlap: int,
) -> None:
    """Raises ValueError if an argument is invalid independently of weights and machine."""
    if precision not in PRECISIONS:
        raise ValueError(f'precision must be one of {", ".join(PRECISIONS)}, not {precision!r}')
    if output_stride not in (0, *OUTPUT_STRIDES):
        valid = ', '.join(map(str, (0, *OUTPUT_STRIDES)))
        raise ValueError(f'output_stride must be one of {valid}, not {output_stride}')
    if preset not in PRESETS:
        raise ValueError(f'preset must be one of {", ".join(PRESETS)}, not {preset!r}')
    if any(side and side < MIN_INPUT_SIDE for side in input_size):
        raise ValueError(
            f'input width and height must be 0 or at least {MIN_INPUT_SIDE} px, not {input_size}'
        )
    if tile and any(input_size):
        raise ValueError(f'tile must be 0 with the input size {input_size}, not {tile}')
    check_tiling(tile, tile_overlap)
