# SPDX-License-Identifier: Apache-2.0
"""Validation processes images like the node: small ones enlarged, large ones in tiles."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from training.validation import predict_classes


def cells(maps: Tensor, side: int) -> Tensor:
    return functional.avg_pool2d(maps, side, ceil_mode=True)


class Brightness(nn.Module):
    """Classifies pixels brighter than the image's mean as rock, and records the input sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = images.shape[-2:]
        context = functional.interpolate(
            self.context(self.deep(images)), [-(-side // 4) for side in size], mode='bilinear'
        )
        logits = self.decode(images, context)
        return {'out': functional.interpolate(logits, size, mode='bilinear')}

    def deep(self, images: Tensor) -> Tensor:
        self.shown.append(tuple(images.shape[-2:]))
        return cells(images.mean(1, keepdim=True), 16)

    def context(self, deep: Tensor) -> Tensor:
        return deep - 2 * deep.mean()

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        bright = cells(images.mean(1, keepdim=True), 4) + context
        return torch.cat([-bright, bright], dim=1)


def test_a_small_image_is_enlarged_to_smallest_side() -> None:
    model = Brightness()
    image = torch.zeros(3, 30, 40, dtype=torch.uint8)
    image[:, :, 20:] = 255
    found = predict_classes(model, ModelMetadata(smallest_side=60), image)  # type: ignore[arg-type]
    assert model.shown == [(64, 80)]
    assert found.dtype == torch.uint8
    assert found[:, :19].max() == 0
    assert found[:, 21:].min() == 1
    predict_classes(model, ModelMetadata(), image)  # type: ignore[arg-type]
    assert model.shown[1] == (32, 48)


def test_a_large_image_is_processed_in_tiles_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    coarse = torch.rand(1, 3, 12, 20, generator=torch.Generator().manual_seed(0)) * 255
    image = functional.interpolate(coarse, (192, 320), mode='bilinear')[0].to(torch.uint8)
    model = Brightness()
    whole = predict_classes(model, ModelMetadata(), image)  # type: ignore[arg-type]
    assert model.shown == [(192, 320)]
    monkeypatch.setattr('training.validation.TILE', 160)
    monkeypatch.setattr('training.validation.OVERLAP', 64)
    tiled = predict_classes(model, ModelMetadata(), image)  # type: ignore[arg-type]
    assert max(max(shown) for shown in model.shown[1:]) < 192
    assert 0.2 < whole.float().mean() < 0.8
    assert tiled.dtype == whole.dtype
    assert (tiled == whole).float().mean() > 0.999
