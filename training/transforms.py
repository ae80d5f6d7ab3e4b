# SPDX-License-Identifier: Apache-2.0
"""What a training does to an image and, alike, to its labels.

An image is tv_tensors.Image, 3×H×W uint8 RGB; its labels are one tv_tensors.Mask, 2×H×W int32:
class ids (255 = ignored) and rock numbers (0 = none). All chance is torch's global generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from training.augmentation import AugmentationConfig
from training.datasets import IGNORE

Transform = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[tv_tensors.Image, tv_tensors.Mask]]

OUTSIDE = {tv_tensors.Image: 0, tv_tensors.Mask: [IGNORE, 0]}


class _ResizedCrop(v2.RandomResizedCrop):
    """Torchvision's, with masks where their image is: its own lie half a pixel beside."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crops and scales an image or its labels; called by torchvision."""
        if not isinstance(inpt, tv_tensors.Mask):
            return super().transform(inpt, params)
        nearest = v2.InterpolationMode.NEAREST_EXACT
        plain = inpt.as_subclass(Tensor)
        return tv_tensors.Mask(
            v2.functional.resized_crop(plain, **params, size=self.size, interpolation=nearest)
        )


def geometric_transform(
    crop: int, area: tuple[float, float], augmentation: AugmentationConfig
) -> Transform:
    """Returns what moves pixels: crop, scale, flips, rotation, perspective.

    What comes from outside the image is black, ignored, and no rock.

    Args:
        crop: Side of the square result, px.
        area: Smallest and largest share of the image's area that is cut out, above 0 to 1.
        augmentation: How often and how far everything is changed.

    Returns:
        A transform of (image, labels) of one size into (image, labels) of crop × crop.
    """
    a = augmentation
    turn = v2.RandomRotation(a.rotation, v2.InterpolationMode.BILINEAR, fill=OUTSIDE)
    return v2.Compose(
        [
            _ResizedCrop(crop, scale=area, ratio=a.aspect),
            v2.RandomHorizontalFlip(a.horizontal_flip_p),
            v2.RandomVerticalFlip(a.vertical_flip_p),
            v2.RandomApply([turn], a.rotation_p),
            v2.RandomPerspective(a.perspective, a.perspective_p, fill=OUTSIDE),
        ]
    )


def photometric_transform(augmentation: AugmentationConfig) -> Transform:
    """Returns what changes grey values, in the order of a camera: light, lens, sensor, file.

    It comes after rocks were pasted, so that they are seen by the same camera.
    """
    a = augmentation
    return v2.Compose(
        [
            v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue),
            _sometimes(partial(_white_balance, limits=a.white_balance), a.white_balance_p),
            _sometimes(partial(_gamma, limits=a.gamma), a.gamma_p),
            _sometimes(partial(_exposure, limits=a.exposure), a.exposure_p),
            v2.RandomApply([v2.GaussianBlur(_window(a.blur[1]), a.blur)], a.blur_p),
            _sometimes(partial(_resolution, limits=a.resolution), a.resolution_p),
            _sometimes(partial(_noise, largest=a.noise), a.noise_p),
            v2.RandomGrayscale(a.grey_p),
            _sometimes(partial(_jpeg, limits=a.jpeg), a.jpeg_p),
        ]
    )


def log_uniform(limits: tuple[float, float], count: int = 1) -> Tensor:
    """Draws `count` factors between two limits above 0; halving is as likely as doubling."""
    low, high = math.log(limits[0]), math.log(limits[1])
    return torch.empty(count).uniform_(low, high).exp()


def _sometimes(change: Callable[[Tensor], Tensor], probability: float) -> v2.RandomApply:
    return v2.RandomApply([v2.Lambda(change, tv_tensors.Image)], probability)


def _window(sigma: float) -> int:
    """Returns an odd width in px that holds two standard deviations to either side."""
    return 2 * math.ceil(2 * sigma) + 1


def _white_balance(image: Tensor, limits: tuple[float, float]) -> Tensor:
    return _scaled(image, log_uniform(limits, 3).view(3, 1, 1))


def _exposure(image: Tensor, limits: tuple[float, float]) -> Tensor:
    return _scaled(image, log_uniform(limits))


def _scaled(image: Tensor, factor: Tensor) -> Tensor:
    return tv_tensors.Image((image * factor).clamp_(0, 255).to(torch.uint8))


def _gamma(image: Tensor, limits: tuple[float, float]) -> Tensor:
    return v2.functional.adjust_gamma(image, log_uniform(limits).item())


def _noise(image: Tensor, largest: float) -> Tensor:
    sigma = torch.rand(()).item() * largest / 255
    return v2.functional.gaussian_noise(image, sigma=sigma)


def _resolution(image: Tensor, limits: tuple[float, float]) -> Tensor:
    height, width = image.shape[-2:]
    share = torch.empty(()).uniform_(*limits).item()
    small = [max(1, round(height * share)), max(1, round(width * share))]
    return v2.functional.resize(v2.functional.resize(image, small), [height, width])


def _jpeg(image: Tensor, limits: tuple[int, int]) -> Tensor:
    """Goes through JPEG and back; by OpenCV, as torchvision is about to drop its own."""
    quality = int(torch.randint(limits[0], limits[1] + 1, ()))
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).flip(2).numpy())  # BGR
    _, file = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)
    return tv_tensors.Image(torch.from_numpy(decoded).permute(2, 0, 1).contiguous())
