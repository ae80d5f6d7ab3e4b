# SPDX-License-Identifier: Apache-2.0
"""Simple Copy-Paste augmentation (Ghiasi et al. 2021, arXiv:2012.07177)."""

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

MIN_AREA = 64  # px; smaller rocks vanish when they are scaled down and get a soft border


@dataclass
class _Patch:
    """A rock to paste: h×w×3 float32 colours, h×w class ids, h×w float32 opacity 0 to 1."""

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
    """Pastes randomly selected rocks of another image at random positions.

    Each rock is scaled, randomly flipped, randomly tinted towards its new background, and blended
    in with a soft border. If the other image has no instances, its rocks are the connected
    components. Rocks that touch the border or an ignored pixel of the other image are not used,
    because they may be incomplete and would get a straight edge.

    Args:
        image: 3×H×W uint8 RGB; not changed.
        labels: 2×H×W int32: class ids (255 = ignored) and instance ids (0 = none); not changed.
        other_image: 3×h×w uint8 RGB, of any size.
        other_labels: 2×h×w int32 labels of the other image.
        rock_ids: Class ids that are rock.
        augmentation: Only its `paste_` fields are used, without `paste_p`.

    Returns:
        Copies of image and labels with the rocks pasted. Pasted rocks get new instance ids; the
        visible rest of a covered rock keeps its id.
    """
    canvas = np.ascontiguousarray(image.permute(1, 2, 0).numpy()).copy()
    new_labels = labels.numpy().copy()
    source = np.ascontiguousarray(other_image.permute(1, 2, 0).numpy())
    rocks = _whole_rocks(other_labels.numpy(), rock_ids)
    instance_id = int(new_labels[1].max())
    for rock in _random_rocks(rocks, augmentation.paste_count):
        patch = _cut_out(source, other_labels[0].numpy(), rocks == rock, augmentation)
        instance_id += 1
        _paste(patch, canvas, new_labels, instance_id, augmentation.paste_tint_p)
    return (
        tv_tensors.Image(torch.from_numpy(canvas).permute(2, 0, 1).contiguous()),
        tv_tensors.Mask(torch.from_numpy(new_labels)),
    )


def _whole_rocks(labels: np.ndarray, rock_ids: Sequence[int]) -> np.ndarray:
    """Returns H×W int32 instance ids of the rocks that are complete and large enough."""
    rock = np.isin(labels[0], rock_ids)
    rocks = np.where(rock, labels[1], 0)
    if not rocks.any():
        rocks = cv2.connectedComponents(rock.astype(np.uint8))[1]
    border = cv2.dilate((labels[0] == IGNORE).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    border[[0, -1]] = True
    border[:, [0, -1]] = True
    areas = np.bincount(rocks.ravel())
    usable = areas >= MIN_AREA
    usable[0] = False
    usable[rocks[border]] = False
    return np.where(usable[rocks], rocks, 0)


def _random_rocks(rocks: np.ndarray, max_count: int) -> list[int]:
    ids = np.flatnonzero(np.bincount(rocks.ravel())[1:]) + 1
    if not len(ids):
        return []
    count = int(torch.randint(1, min(max_count, len(ids)) + 1, ()))
    return ids[torch.randperm(len(ids))[:count].numpy()].tolist()


def _cut_out(
    source: np.ndarray, classes: np.ndarray, rock: np.ndarray, augmentation: AugmentationConfig
) -> _Patch:
    """Cuts out a rock with a margin for its soft border, scales it, and randomly flips it."""
    scale = log_uniform(augmentation.paste_scale).item()
    softness = torch.empty(()).uniform_(*augmentation.paste_softness).item()
    margin = int(np.ceil(3 * softness / min(scale, 1))) + 1
    left, top, width, height = cv2.boundingRect(rock.astype(np.uint8))
    rows = slice(max(0, top - margin), top + height + margin)
    columns = slice(max(0, left - margin), left + width + margin)
    colours, rock = source[rows, columns].astype(np.float32), rock[rows, columns]
    inside = np.where(rock, classes[rows, columns], 0).astype(np.uint8)
    # The class ids extend beyond the rock, because the soft border may do so.
    ids = np.where(rock, inside, cv2.dilate(inside, np.ones((5, 5), np.uint8)))
    size = (max(1, round(ids.shape[1] * scale)), max(1, round(ids.shape[0] * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    opacity = cv2.resize(rock.astype(np.float32), size, interpolation=interpolation)
    patch = _Patch(
        cv2.resize(colours, size, interpolation=interpolation),
        cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT),
        cv2.GaussianBlur(opacity, (0, 0), softness),
    )
    if torch.rand(()) < 0.5:
        patch = _Patch(patch.colours[:, ::-1], patch.classes[:, ::-1], patch.opacity[:, ::-1])
    return patch


def _paste(
    patch: _Patch, canvas: np.ndarray, labels: np.ndarray, instance_id: int, tint_p: float
) -> None:
    """Pastes a patch in place, with its centre at a random position in the image."""
    (height, width), (patch_height, patch_width) = canvas.shape[:2], patch.opacity.shape
    top = int(torch.randint(height, ())) - patch_height // 2
    left = int(torch.randint(width, ())) - patch_width // 2
    target = (slice(max(0, top), top + patch_height), slice(max(0, left), left + patch_width))
    background = canvas[target]
    visible = (
        slice(max(0, -top), max(0, -top) + background.shape[0]),
        slice(max(0, -left), max(0, -left) + background.shape[1]),
    )
    colours, opacity = patch.colours[visible], patch.opacity[visible][..., None]
    covered = opacity[..., 0] >= 0.5
    if not covered.any():
        return
    labelled = labels[0][target] != IGNORE
    if torch.rand(()) < tint_p and labelled.any():
        shift = background[labelled].mean(axis=0) - colours[covered].mean(axis=0)
        colours = colours + torch.rand(()).item() * shift
    blended = background + opacity * (colours - background)
    canvas[target] = np.clip(blended, 0, 255).astype(np.uint8)
    labels[0][target][covered] = patch.classes[visible][covered]
    labels[1][target][covered] = instance_id
