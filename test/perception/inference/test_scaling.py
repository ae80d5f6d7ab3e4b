# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from rock_seg_ros.perception.inference.scaling import resize


@pytest.mark.parametrize(
    'size', [(48, 64), (37, 16), (12, 17), (300, 401), (12, 16), (5, 7), (5, 50)]
)
def test_maps_are_scaled_as_torch_scales_them(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, 14, 20, generator=torch.Generator().manual_seed(0))[..., :12, :16]
    shrinks = size[0] < 12 or size[1] < 16
    expected = functional.interpolate(maps, size=size, mode='bilinear', antialias=shrinks)
    torch.testing.assert_close(resize(maps, size), expected, rtol=1e-4, atol=1e-5)


def test_a_single_row_and_column_can_be_enlarged() -> None:
    assert torch.equal(resize(torch.full((1, 2, 1, 1), 3.5), (4, 8)), torch.full((1, 2, 4, 8), 3.5))


def test_values_that_are_not_finite_stay() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 1, 1] = float('nan')
    assert resize(maps, (16, 16)).isnan().any()
