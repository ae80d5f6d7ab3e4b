# SPDX-License-Identifier: Apache-2.0
"""The segmentation of an image and its ignore mask."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception.inference.segmentation import (
    DeferredSegmentation,
    Segmentation,
    SizeError,
    apply_ignore_mask,
)


def test_ignored_pixels_become_background_and_the_others_are_unchanged() -> None:
    segmentation = Segmentation(
        np.array([[1, 1, 0]], np.uint8), np.array([[200, 201, 202]], np.uint8), (1,)
    )
    result = apply_ignore_mask(segmentation, np.array([[0, 1, 0]], np.uint8))
    assert result.class_ids.tolist() == [[0, 1, 0]]
    assert result.confidence.tolist() == [[255, 201, 202]]
    assert segmentation.class_ids.tolist() == [[1, 1, 0]]


def test_rock_confidence_is_0_for_other_classes_and_for_ignored_pixels() -> None:
    ids, confidence = np.array([[1, 1, 0]], np.uint8), np.array([[200, 201, 202]], np.uint8)
    rock = np.array([[200, 201, 0]], np.uint8)
    for segmentation in (
        Segmentation(ids, confidence, (1,)),
        DeferredSegmentation(ids, lambda: confidence, (1,)),
        DeferredSegmentation(ids, lambda: pytest.fail('computed'), (1,), None, lambda: rock),
    ):
        assert segmentation.rock_confidence.tolist() == [[200, 201, 0]]
        masked = apply_ignore_mask(segmentation, np.array([[0, 1, 1]], np.uint8))
        assert masked.rock_confidence.tolist() == [[0, 201, 0]]


@pytest.mark.parametrize(('rock_ids', 'rim_id'), [((1,), 2), ((1, 2), None), ((1,), 4), ((3,), 1)])
def test_the_mask_is_rock_and_rim(rock_ids: tuple[int, ...], rim_id: int | None) -> None:
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    segmentation = Segmentation(ids, np.full_like(ids, 9), rock_ids, rim_id)
    belongs = np.isin(ids, [*rock_ids, *([] if rim_id is None else [rim_id])])
    assert np.array_equal(segmentation.mask(), np.where(belongs, 255, 0))
    assert np.array_equal(segmentation.rock_confidence, np.where(belongs, 9, 0))


def test_ignored_rims_become_background() -> None:
    segmentation = Segmentation(np.array([[2, 2]], np.uint8), np.array([[9, 9]], np.uint8), (1,), 2)
    masked = apply_ignore_mask(segmentation, np.array([[0, 1]], np.uint8))
    assert masked.class_ids.tolist() == [[0, 2]]


def test_an_ignored_pixel_never_becomes_another_rock_class() -> None:
    segmentation = Segmentation(np.array([[1]], np.uint8), np.array([[9]], np.uint8), (0, 1))
    masked = apply_ignore_mask(segmentation, np.zeros((1, 1), np.uint8))
    assert masked.class_ids.item() == 2


def test_an_ignore_mask_of_another_size_is_an_error() -> None:
    segmentation = Segmentation(np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8), (1,))
    with pytest.raises(SizeError, match=r'7×4.*6×4'):
        apply_ignore_mask(segmentation, np.zeros((4, 7), np.uint8))


def test_deferred_confidence_is_computed_once_and_only_when_it_is_used() -> None:
    computed: list[int] = []

    def compute() -> NDArray[np.uint8]:
        computed.append(1)
        return np.full((1, 2), 7, np.uint8)

    segmentation = DeferredSegmentation(np.array([[1, 0]], np.uint8), compute, (1,))
    masked = apply_ignore_mask(segmentation, np.array([[1, 0]], np.uint8))
    assert segmentation.mask().tolist() == masked.mask().tolist() == [[255, 0]]
    assert computed == []
    assert masked.confidence.tolist() == segmentation.confidence.tolist() == [[7, 7]]
    assert computed == [1]
