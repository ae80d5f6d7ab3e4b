# SPDX-License-Identifier: Apache-2.0
"""A picture on its way through the house, and what is found in it, worked out when first asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.overlay import draw_overlay
from rock_seg_ros.perception.rocks import Rock, RockSettings, find_rocks
from rock_seg_ros.perception.segmenter import Segmentation, Segmenter, check_size, suppress


@dataclass(frozen=True)
class Settings:
    """What may change from picture to picture.

    Attributes:
        threshold: Rock probability from which a pixel is rock; None = the card's.
        rocks: Which rocks are told.
        overlay_alpha: Strength of the overlay's tint, 0 to 1.
        keep: H×W uint8, 0 where there is never rock; None = rock may be anywhere.
    """

    threshold: float | None = None
    rocks: RockSettings = field(default_factory=RockSettings)
    overlay_alpha: float = 0.4
    keep: NDArray[np.uint8] | None = None


@dataclass
class Analysis:
    """A picture and what is found in it.

    Attributes:
        picture: H×W×3 uint8 RGB, any strides.
        segmenter: The network that is asked.
        settings: How it is asked.
        header: Whatever came with the picture and goes out with the results; never looked into.
    """

    picture: NDArray[np.uint8]
    segmenter: Segmenter
    settings: Settings = field(default_factory=Settings)
    header: Any = None

    def __post_init__(self) -> None:
        """Refuses an ignore mask of another size before any work is done, with SizeError."""
        if self.settings.keep is not None:
            check_size(self.settings.keep, self.picture.shape[:2])

    @cached_property
    def segmentation(self) -> Segmentation:
        """Class ids and confidence, with the ignored pixels taken out."""
        return self._kept(self.segmenter.segment(self.picture, self.settings.threshold))

    def _kept(self, result: Segmentation) -> Segmentation:
        return result if self.settings.keep is None else suppress(result, self.settings.keep)

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """H×W uint8: 255 rock, 0 not."""
        return self.segmentation.mask()

    @cached_property
    def rocks(self) -> list[Rock]:
        """The rocks, largest first."""
        return find_rocks(self.segmentation, self.settings.rocks)

    @cached_property
    def overlay(self) -> NDArray[np.uint8]:
        """H×W×3 uint8 RGB, contiguous: the picture with the rocks drawn on."""
        return draw_overlay(self.picture, self.mask, self.rocks, self.settings.overlay_alpha)


def segment_together(analyses: Sequence[Analysis]) -> None:
    """Works out the segmentations of pictures in one run of the network, where they are alike.

    Args:
        analyses: At least one, of the same segmenter and threshold.
    """
    first = analyses[0]
    pictures = [analysis.picture for analysis in analyses]
    results = first.segmenter.segment_batch(pictures, first.settings.threshold)
    for analysis, result in zip(analyses, results, strict=True):
        analysis.segmentation = analysis._kept(result)
