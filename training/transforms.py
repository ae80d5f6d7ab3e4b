# SPDX-License-Identifier: Apache-2.0
"""Random transforms of an image and its labels in training.

An image is a tv_tensors.Image, 3×H×W uint8 RGB. Its labels are one tv_tensors.Mask, 2×H×W int32:
class ids (255 = ignored) and instance ids (0 = none). Random numbers come from torch's global
generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from training.augmentation import AugmentationConfig
from training.datasets import IGNORE

Transform = Callable[[tv_tensors.Image, tv_tensors.Mask], tuple[tv_tensors.Image, tv_tensors.Mask]]

OUTSIDE = {tv_tensors.Image: 0, tv_tensors.Mask: [IGNORE, 0]}


class _ResizedCrop(v2.RandomResizedCrop):
    """RandomResizedCrop with exact masks; those of torchvision are shifted by half a pixel."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Crops and scales an image or its labels; torchvision calls this."""
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
    """Returns the geometric augmentation: crop, scale, flips, rotation and perspective.

    Pixels from outside the image are black, ignored, and belong to no rock.

    Args:
        crop: Side of the square result, px.
        area: Smallest and largest share of the image area that the crop covers, above 0 to 1.
        augmentation: Probabilities and ranges of the changes.

    Returns:
        A transform of an image and its labels into a crop of crop × crop px and its labels.
    """
    a = augmentation
    rotation = v2.RandomRotation(a.rotation, v2.InterpolationMode.BILINEAR, fill=OUTSIDE)
    return v2.Compose(
        [
            _ResizedCrop(crop, scale=area, ratio=a.aspect),
            v2.RandomHorizontalFlip(a.horizontal_flip_p),
            v2.RandomVerticalFlip(a.vertical_flip_p),
            v2.RandomApply([rotation], a.rotation_p),
            v2.RandomPerspective(a.perspective, a.perspective_p, fill=OUTSIDE),
        ]
    )


def photometric_transform(augmentation: AugmentationConfig) -> Transform:
    """Returns the photometric augmentation in the order of a camera: light, lens, sensor, file.

    It is applied after copy-paste, so that pasted rocks are changed like the rest of the image.
    """
    a = augmentation
    # Without motion blur, the other random draws are those of runs from before it existed.
    blur = partial(_motion_blur, limits=a.motion_blur)
    motion_blur = [_randomly(blur, a.motion_blur_p)] if a.motion_blur_p else []
    return v2.Compose(
        [
            v2.ColorJitter(a.brightness, a.contrast, a.saturation, a.hue),
            _randomly(partial(_white_balance, limits=a.white_balance), a.white_balance_p),
            _randomly(partial(_gamma, limits=a.gamma), a.gamma_p),
            _randomly(partial(_exposure, limits=a.exposure), a.exposure_p),
            v2.RandomApply([v2.GaussianBlur(_kernel_size(a.blur[1]), a.blur)], a.blur_p),
            *motion_blur,
            _randomly(partial(_resolution, limits=a.resolution), a.resolution_p),
            _randomly(partial(_noise, max_sigma=a.noise), a.noise_p),
            v2.RandomGrayscale(a.grey_p),
            _randomly(partial(_jpeg, limits=a.jpeg), a.jpeg_p),
        ]
    )


def log_uniform(limits: tuple[float, float], count: int = 1) -> Tensor:
    """Draws `count` factors log-uniformly between two limits above 0."""
    low, high = math.log(limits[0]), math.log(limits[1])
    return torch.empty(count).uniform_(low, high).exp()


def _randomly(change: Callable[[Tensor], Tensor], probability: float) -> v2.RandomApply:
    return v2.RandomApply([v2.Lambda(change, tv_tensors.Image)], probability)


def blur_motion(pixels: NDArray[np.uint8], length: float, angle: float) -> NDArray[np.uint8]:
    """Blurs an image like a camera that moves during the exposure.

    Args:
        pixels: H×W×3 uint8.
        length: Length of the motion, px, 1 or more.
        angle: Direction of the motion, radians, counterclockwise from the rows of the image.

    Returns:
        H×W×3 uint8.
    """
    half = math.ceil((length - 1) / 2)
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    kernel[half] = np.clip((length + 1) / 2 - np.abs(np.arange(-half, half + 1)), 0, 1)
    turn = cv2.getRotationMatrix2D((half, half), math.degrees(angle), 1)
    turned = cv2.warpAffine(kernel, turn, kernel.shape)
    blurred = cv2.filter2D(pixels, -1, turned / turned.sum(), borderType=cv2.BORDER_REFLECT_101)
    return blurred.astype(np.uint8, copy=False)


def _motion_blur(image: Tensor, limits: tuple[float, float]) -> Tensor:
    length = torch.empty(()).uniform_(*limits).item()
    angle = torch.empty(()).uniform_(0, math.pi).item()
    blurred = blur_motion(np.ascontiguousarray(image.permute(1, 2, 0).numpy()), length, angle)
    return tv_tensors.Image(torch.from_numpy(blurred).permute(2, 0, 1).contiguous())


def _kernel_size(sigma: float) -> int:
    """Returns the odd kernel size, px, that covers two standard deviations on each side."""
    return 2 * math.ceil(2 * sigma) + 1


def _white_balance(image: Tensor, limits: tuple[float, float]) -> Tensor:
    return _scaled(image, log_uniform(limits, 3).view(3, 1, 1))


def _exposure(image: Tensor, limits: tuple[float, float]) -> Tensor:
    return _scaled(image, log_uniform(limits))


def _scaled(image: Tensor, factor: Tensor) -> Tensor:
    return tv_tensors.Image((image * factor).clamp_(0, 255).to(torch.uint8))


def _gamma(image: Tensor, limits: tuple[float, float]) -> Tensor:
    return v2.functional.adjust_gamma(image, log_uniform(limits).item())


def _noise(image: Tensor, max_sigma: float) -> Tensor:
    sigma = torch.rand(()).item() * max_sigma / 255
    return v2.functional.gaussian_noise(image, sigma=sigma)


def _resolution(image: Tensor, limits: tuple[float, float]) -> Tensor:
    height, width = image.shape[-2:]
    share = torch.empty(()).uniform_(*limits).item()
    small = [max(1, round(height * share)), max(1, round(width * share))]
    return v2.functional.resize(v2.functional.resize(image, small), [height, width])


def _jpeg(image: Tensor, limits: tuple[int, int]) -> Tensor:
    """Compresses and decompresses an image; OpenCV, as torchvision's JPEG code is deprecated."""
    quality = int(torch.randint(limits[0], limits[1] + 1, ()))
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).flip(2).numpy())  # BGR
    _, file = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)
    return tv_tensors.Image(torch.from_numpy(decoded).permute(2, 0, 1).contiguous())
