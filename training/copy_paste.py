# SPDX-License-Identifier: Apache-2.0
"""Simple Copy-Paste: rocks of one image in another (Ghiasi et al. 2021, arXiv:2012.07177)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors

from training.augmentation import AugmentationConfig
from training.datasets import IGNORE
from training.transforms import log_uniform

SMALLEST = 64  # px; less would not outlast a smaller scale and a soft border


@dataclass
class _Patch:
    """A rock cut out: h×w×3 float32 colours, h×w class ids, h×w float32 opacity 0 to 1."""

    colours: np.ndarray
    classes: np.ndarray
    opacity: np.ndarray


def paste_rocks(
    image: Tensor,
    labels: Tensor,
    other_image: Tensor,
    other_labels: Tensor,
    rock_ids: Sequence[int],
    augmentation: AugmentationConfig,
) -> tuple[tv_tensors.Image, tv_tensors.Mask]:
    """Pastes a random choice of another image's rocks, each to a random place.

    Each rock is scaled, perhaps mirrored, perhaps tinted towards the ground it lands on, and
    blended in with a soft border. Where the other image does not tell its rocks apart, they are
    connected components. A rock that the border, or an ignored pixel, of the other image may
    have cut is left out: a straight edge would give it away.

    Args:
        image: 3×H×W uint8 RGB; not changed.
        labels: 2×H×W int32: class ids (255 = ignored) and rock numbers (0 = none); not changed.
        other_image: As image, of any size.
        other_labels: As labels, in the size of other_image.
        rock_ids: Class ids that are rock.
        augmentation: Its `paste_` fields; `paste_p` is the caller's to draw.

    Returns:
        Image and labels as given, with the rocks in them. They have new numbers; a rock beneath
        keeps its own and what is left of it.
    """
    canvas = np.ascontiguousarray(image.permute(1, 2, 0).numpy()).copy()
    new_labels = labels.numpy().copy()
    source = np.ascontiguousarray(other_image.permute(1, 2, 0).numpy())
    rocks = _whole_rocks(other_labels.numpy(), rock_ids)
    number = int(new_labels[1].max())
    for rock in _chosen(rocks, augmentation.paste_count):
        patch = _cut_out(source, other_labels[0].numpy(), rocks == rock, augmentation)
        number += 1
        _paste(patch, canvas, new_labels, number, augmentation.paste_tint_p)
    return (
        tv_tensors.Image(torch.from_numpy(canvas).permute(2, 0, 1).contiguous()),
        tv_tensors.Mask(torch.from_numpy(new_labels)),
    )


def _whole_rocks(labels: np.ndarray, rock_ids: Sequence[int]) -> np.ndarray:
    """Returns H×W int32 numbers of the rocks that nothing cuts and that are not too small."""
    rock = np.isin(labels[0], rock_ids)
    rocks = np.where(rock, labels[1], 0)
    if not rocks.any():
        rocks = cv2.connectedComponents(rock.astype(np.uint8))[1]
    cut = cv2.dilate((labels[0] == IGNORE).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    cut[[0, -1]] = True
    cut[:, [0, -1]] = True
    areas = np.bincount(rocks.ravel())
    wanted = areas >= SMALLEST
    wanted[0] = False
    wanted[rocks[cut]] = False
    return np.where(wanted[rocks], rocks, 0)


def _chosen(rocks: np.ndarray, most: int) -> list[int]:
    numbers = np.flatnonzero(np.bincount(rocks.ravel())[1:]) + 1
    if not len(numbers):
        return []
    count = int(torch.randint(1, min(most, len(numbers)) + 1, ()))
    return numbers[torch.randperm(len(numbers))[:count].numpy()].tolist()


def _cut_out(
    source: np.ndarray, classes: np.ndarray, rock: np.ndarray, augmentation: AugmentationConfig
) -> _Patch:
    """Cuts a rock out with the border that its softness needs, scaled and perhaps mirrored."""
    scale = log_uniform(augmentation.paste_scale).item()
    softness = torch.empty(()).uniform_(*augmentation.paste_softness).item()
    margin = int(np.ceil(3 * softness / min(scale, 1))) + 1
    left, top, width, height = cv2.boundingRect(rock.astype(np.uint8))
    rows = slice(max(0, top - margin), top + height + margin)
    columns = slice(max(0, left - margin), left + width + margin)
    colours, rock = source[rows, columns].astype(np.float32), rock[rows, columns]
    inside = np.where(rock, classes[rows, columns], 0).astype(np.uint8)
    # Classes reach beyond the rock, as its soft border may.
    ids = np.where(rock, inside, cv2.dilate(inside, np.ones((5, 5), np.uint8)))
    size = (max(1, round(ids.shape[1] * scale)), max(1, round(ids.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    opacity = cv2.resize(rock.astype(np.float32), size, interpolation=way)
    patch = _Patch(
        cv2.resize(colours, size, interpolation=way),
        cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT),
        cv2.GaussianBlur(opacity, (0, 0), softness),
    )
    if torch.rand(()) < 0.5:
        patch = _Patch(patch.colours[:, ::-1], patch.classes[:, ::-1], patch.opacity[:, ::-1])
    return patch


def _paste(
    patch: _Patch, canvas: np.ndarray, labels: np.ndarray, number: int, tint_p: float
) -> None:
    """Pastes a patch with its middle anywhere in the image, in place."""
    (height, width), (high, wide) = canvas.shape[:2], patch.opacity.shape
    top = int(torch.randint(height, ())) - high // 2
    left = int(torch.randint(width, ())) - wide // 2
    there = (slice(max(0, top), top + high), slice(max(0, left), left + wide))
    beneath = canvas[there]
    here = (
        slice(max(0, -top), max(0, -top) + beneath.shape[0]),
        slice(max(0, -left), max(0, -left) + beneath.shape[1]),
    )
    colours, opacity = patch.colours[here], patch.opacity[here][..., None]
    covered = opacity[..., 0] >= 0.5
    if not covered.any():
        return
    counted = labels[0][there] != IGNORE
    if torch.rand(()) < tint_p and counted.any():
        shift = beneath[counted].mean(axis=0) - colours[covered].mean(axis=0)
        colours = colours + torch.rand(()).item() * shift
    canvas[there] = np.clip(beneath + opacity * (colours - beneath), 0, 255).astype(np.uint8)
    labels[0][there][covered] = patch.classes[here][covered]
    labels[1][there][covered] = number
