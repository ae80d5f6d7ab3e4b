# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from rock_seg_ros.perception import analysis as module
from rock_seg_ros.perception.analysis import Analysis, Settings, segment_together
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Segmentation, SizeError


class CountingSegmenter:
    """Classifies the left half as rock, and records the thresholds of the calls."""

    metadata = ModelMetadata()

    def __init__(self) -> None:
        self.thresholds: list[float | None] = []

    def segment_batch(
        self, images: list[NDArray[np.uint8]], threshold: float | None = None
    ) -> list[Segmentation]:
        return [self.segment(image, threshold) for image in images]

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        self.thresholds.append(threshold)
        ids = np.zeros(image.shape[:2], np.uint8)
        ids[:, : ids.shape[1] // 2] = 1
        return Segmentation(ids, np.full_like(ids, 200), (1,))


def test_results_are_computed_on_first_use_and_only_once(
    small_image: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def counted(name: str) -> None:
        original: Any = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a: calls.append(name) or original(*a))

    counted('find_rocks')
    counted('draw_overlay')
    segmenter = CountingSegmenter()
    analysis = Analysis(small_image, segmenter, Settings(threshold=0.3))  # type: ignore[arg-type]
    assert segmenter.thresholds == []
    assert analysis.mask is analysis.mask
    assert segmenter.thresholds == [0.3]
    assert calls == []
    assert analysis.rocks is analysis.rocks
    assert calls == ['find_rocks']
    assert analysis.overlay is analysis.overlay
    assert calls == ['find_rocks', 'draw_overlay']
    assert segmenter.thresholds == [0.3]


def test_ignored_pixels_are_in_no_output(small_image: NDArray[np.uint8]) -> None:
    valid_mask = np.ones((64, 80), np.uint8)
    valid_mask[32:] = 0
    analysis = Analysis(small_image, CountingSegmenter(), Settings(valid_mask=valid_mask))  # type: ignore[arg-type]
    assert analysis.mask[:32, :40].all()
    assert not analysis.mask[32:].any()
    (rock,) = analysis.rocks
    assert rock.box == (0, 0, 40, 32)
    assert np.array_equal(analysis.overlay[34:], small_image[34:])


def test_an_ignore_mask_of_another_size_is_rejected_before_the_network_runs(
    small_image: NDArray[np.uint8],
) -> None:
    segmenter = CountingSegmenter()
    with pytest.raises(SizeError, match='10×10'):
        Analysis(small_image, segmenter, Settings(valid_mask=np.ones((10, 10), np.uint8)))  # type: ignore[arg-type]
    assert segmenter.thresholds == []


def test_each_image_of_a_batch_has_its_own_result_and_ignore_mask(
    small_image: NDArray[np.uint8],
) -> None:
    segmenter: Any = CountingSegmenter()
    valid_mask = np.zeros(small_image.shape[:2], np.uint8)
    plain = Analysis(small_image, segmenter, Settings(threshold=0.3))
    masked = Analysis(
        small_image[:, ::-1], segmenter, Settings(threshold=0.3, valid_mask=valid_mask)
    )
    segment_together([plain, masked])
    assert plain.mask.sum() == 255 * small_image.shape[0] * (small_image.shape[1] // 2)
    assert masked.mask.sum() == 0
    assert segmenter.thresholds == [0.3, 0.3]


@pytest.mark.parametrize('together', [False, True])
def test_results_do_not_keep_the_network_in_memory(
    small_image: NDArray[np.uint8], together: bool
) -> None:
    segmenter: Any = CountingSegmenter()
    network = weakref.ref(segmenter)
    analysis = Analysis(small_image, segmenter, Settings(valid_mask=np.ones((64, 80), np.uint8)))
    if together:
        segment_together([analysis])
    assert analysis.mask.any()
    del segmenter
    assert network() is None
    assert len(analysis.rocks) == 1
    assert analysis.segmentation.confidence.any()
    assert analysis.classes == ('background', 'rock')
