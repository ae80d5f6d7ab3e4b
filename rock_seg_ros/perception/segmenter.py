# SPDX-License-Identifier: Apache-2.0
"""Picture → class ids and confidence, on whichever backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from rock_seg_ros.perception.backends import Backend
from rock_seg_ros.perception.backends.onnx_backend import OnnxBackend
from rock_seg_ros.perception.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.card import OUTPUT_STRIDES, Card
from rock_seg_ros.perception.preparation import normalize
from rock_seg_ros.perception.weights_file import Weights

BACKENDS: dict[str, Callable[[Weights, torch.device, str, int], Backend]] = {
    'torch': TorchBackend,
    'onnx': OnnxBackend,
}
PRECISIONS = ('auto', 'fp32', 'fp16', 'bf16')
SMALLEST_SIDE = 32
MOST_ENLARGED = 2.0


class DeviceError(ValueError):
    """A device that this machine does not have."""


class SizeError(ValueError):
    """A picture or mask whose size cannot be worked on."""


@dataclass(frozen=True)
class Segmentation:
    """What the network says of a picture.

    Attributes:
        class_ids: H×W uint8, the class of each pixel.
        confidence: H×W uint8, 0 to 255, the probability of that class.
        rock_ids: The class ids that are rock.
        rim_id: The class id of the rim between touching rocks; None where the network knows none.
    """

    class_ids: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    rock_ids: tuple[int, ...]
    rim_id: int | None = None

    def mask(self) -> NDArray[np.uint8]:
        """Returns H×W uint8: 255 rock, 0 not."""
        table = np.zeros(256, np.uint8)
        table[list(self.rock_ids)] = 255
        return cv2.LUT(self.class_ids, table)  # type: ignore[return-value]


def choose_device(name: str) -> torch.device:
    """Turns 'auto', 'cpu', 'cuda' or 'cuda:N' into a device that this machine has.

    Only 'auto' chooses; 'cuda' without CUDA is an error, never a silent fall to the CPU.

    Raises:
        DeviceError: The name is not legal, or there is no such device.
    """
    if name == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    legal = re.fullmatch(r'cpu|cuda(?::([0-9]+))?', name)
    if not legal:
        raise DeviceError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', not {name!r}")
    if name != 'cpu':
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(legal[1] or 0) >= count:
            raise DeviceError(f'device is {name!r}, but this machine has {count} CUDA devices')
    return torch.device(name)


class Segmenter:
    """A network ready to work on pictures of any size.

    Attributes:
        card: The card of its weights.
        device: Where it runs.
        precision: 'fp32', 'fp16' or 'bf16'.
        backend: 'torch' or 'onnx'.
    """

    def __init__(
        self,
        weights: Weights,
        device: str = 'auto',
        precision: str = 'auto',
        backend: str = 'auto',
        output_stride: int = 0,
        input_size: tuple[int, int] = (0, 0),
    ) -> None:
        """Puts the network onto the device.

        Args:
            weights: From `load_weights`.
            device: 'auto', 'cpu', 'cuda' or 'cuda:N'.
            precision: 'auto' (fp16 on CUDA, else fp32), 'fp32', 'fp16' or 'bf16'.
            backend: 'auto' (by the kind of file), 'torch' or 'onnx'.
            output_stride: 8 or 16; 0 = as trained.
            input_size: Width and height in px that the network sees; 0 = the picture's own; both 0:
                enlarged where the card wants it.

        Raises:
            DeviceError: This machine has no such device.
            WeightsError: The weights do not fit the network or the backend.
            ValueError: Another argument is not legal.
        """
        if precision not in PRECISIONS:
            raise ValueError(f'precision must be one of {PRECISIONS}, not {precision!r}')
        if output_stride not in (0, *OUTPUT_STRIDES):
            raise ValueError(f'output_stride must be 0, 8 or 16, not {output_stride}')
        if any(side and side < SMALLEST_SIDE for side in input_size):
            raise ValueError(
                f'input width and height must be 0 or at least {SMALLEST_SIDE} px, not {input_size}'
            )
        if backend == 'auto':
            backend = 'onnx' if weights.is_onnx else 'torch'
        if backend not in BACKENDS:
            raise ValueError(f"backend must be 'auto', 'torch' or 'onnx', not {backend!r}")
        self.card: Card = weights.card
        self.backend = backend
        self._runner = BACKENDS[backend](weights, choose_device(device), precision, output_stride)
        self.device = self._runner.device
        self.precision = self._runner.precision
        self._input_size = input_size

    def _seen_size(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width that the network sees of a picture."""
        if any(self._input_size):
            return self._input_size[1] or height, self._input_size[0] or width
        scale = enlargement(height, width, self.card)
        return round(height * scale), round(width * scale)

    def segment(self, picture: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        """Finds the class of every pixel.

        Args:
            picture: H×W×3 uint8 RGB, any strides.
            threshold: Rock probability, 0 to 1, from which a pixel is rock; None = the card's.

        Returns:
            Class ids and confidence of the picture's size.

        Raises:
            SizeError: The picture has no pixels.
        """
        height, width = picture.shape[:2]
        if not height or not width:
            raise SizeError(f'the picture is {width}×{height}; both must be at least 1')
        with torch.inference_mode():
            pixels = torch.from_numpy(np.require(picture, None, ['C', 'W'])).to(self.device)
            prepared = normalize(pixels.permute(2, 0, 1).unsqueeze(0), self.card)
            scores = self._runner.scores(_resize(prepared, self._seen_size(height, width)))
            scores = _resize(scores, (height, width))[0]
            class_ids, confidence = classify(
                scores, self.card, self.card.threshold if threshold is None else threshold
            )
            return Segmentation(
                class_ids.cpu().numpy(),
                confidence.cpu().numpy(),
                self.card.rock_ids,
                self.card.rim_id,
            )


def enlargement(height: int, width: int, card: Card) -> float:
    """Returns by how much a picture is enlarged for the network of a card, 1 to 2."""
    return min(MOST_ENLARGED, max(1.0, card.smallest_side / min(height, width)))


def classify(scores: Tensor, card: Card, threshold: float) -> tuple[Tensor, Tensor]:
    """Turns scores into class ids and confidence.

    A pixel is rock where the rock classes' probabilities add up to the threshold or more; among
    the rock classes, or else among the others, the most probable one is chosen.

    Args:
        scores: channels×H×W logits.
        card: Tells the activation and which classes are rock.
        threshold: 0 to 1.

    Returns:
        H×W uint8 class ids, and H×W uint8 probability of that class, 0 to 255.
    """
    if card.activation == 'sigmoid':
        rock = scores[0].sigmoid()
        probabilities = torch.stack([1 - rock, rock])
        if card.rock_ids == (0,):
            probabilities = probabilities.flip(0)
    else:
        probabilities = scores.softmax(dim=0)
    rock_ids = torch.tensor(card.rock_ids, device=scores.device)
    is_rock_class = torch.zeros(len(card.classes), dtype=torch.bool, device=scores.device)
    is_rock_class[rock_ids] = True
    rock_pixels = probabilities[is_rock_class].sum(dim=0) >= threshold
    allowed = torch.where(rock_pixels, is_rock_class[:, None, None], ~is_rock_class[:, None, None])
    best = torch.where(allowed, probabilities, -1.0).max(dim=0)
    return best.indices.to(torch.uint8), (best.values * 255).round().to(torch.uint8)


def suppress(segmentation: Segmentation, keep: NDArray[np.uint8]) -> Segmentation:
    """Makes pixels background that can never be rock, such as the robot's own deck.

    Args:
        segmentation: Of the picture.
        keep: H×W uint8; where it is 0, rock and rims become background with full confidence.

    Raises:
        SizeError: The sizes differ.
    """
    check_size(keep, segmentation.class_ids.shape)
    rims = segmentation.class_ids == segmentation.rim_id if segmentation.rim_id else False
    never = (keep == 0) & ((segmentation.mask() > 0) | rims)
    background = next(i for i in range(256) if i not in segmentation.rock_ids)
    return replace(
        segmentation,
        class_ids=np.where(never, np.uint8(background), segmentation.class_ids),
        confidence=np.where(never, np.uint8(255), segmentation.confidence),
    )


def check_size(keep: NDArray[np.uint8], size: tuple[int, ...]) -> None:
    """Raises SizeError if an ignore mask has another height and width than the picture."""
    if keep.shape != tuple(size):
        raise SizeError(
            f'the ignore mask is {keep.shape[1]}×{keep.shape[0]}, the picture {size[1]}×{size[0]}'
        )


def _resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Scales N×C×H×W maps bilinearly, with antialiasing where they shrink."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return functional.interpolate(
        maps, size=size, mode='bilinear', align_corners=False, antialias=True
    )
