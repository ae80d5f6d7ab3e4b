# SPDX-License-Identifier: Apache-2.0
"""An image on its way through the house, and what is found in it, worked out when first asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.location import Place, locate
from rock_seg_ros.perception.geometry.target import TargetRule, choose_target
from rock_seg_ros.perception.geometry.view import PosedView, View
from rock_seg_ros.perception.inference.segmentation import (
    Segmentation,
    apply_ignore_mask,
    check_size,
)
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.instances.rocks import Rock, RockSettings, draw_instances, find_rocks
from rock_seg_ros.perception.instances.tracking import Tracker
from rock_seg_ros.perception.overlay import draw_overlay


@dataclass(frozen=True)
class Settings:
    """What may change from image to image.

    Attributes:
        threshold: Rock probability from which a pixel is rock; None = the card's.
        rocks: Which rocks are told.
        overlay_alpha: Strength of the overlay's tint, 0 to 1.
        track: Whether rocks keep the ids that they had in the images before, where a tracker
            knows them; else they are numbered from 1, the largest first.
        target: Which rocks suit a drill or an instrument.
        valid_mask: H×W uint8, 0 where there is never rock; None = rock may be anywhere.
    """

    threshold: float | None = None
    rocks: RockSettings = field(default_factory=RockSettings)
    overlay_alpha: float = 0.4
    track: bool = True
    target: TargetRule = field(default_factory=TargetRule)
    valid_mask: NDArray[np.uint8] | None = None


@dataclass
class Analysis:
    """An image and what is found in it.

    Attributes:
        image: H×W×3 uint8 RGB, any strides.
        segmenter: The network that is asked; None once it has answered, since a result outlives it.
        settings: How it is asked.
        header: Whatever came with the image and goes out with the results; never looked into.
        tracker: Of the camera, or None.
        time: When the image was taken, s; for the tracker.
        view: What makes metres of pixels; None = nothing is known. May be set until first used.
        previous_target: Id of the last image's target.
        pose: Of the camera in a frame that stands still, 4×4, m; with depth, helps the tracker.
    """

    image: NDArray[np.uint8]
    segmenter: Segmenter | None
    settings: Settings = field(default_factory=Settings)
    header: Any = None
    tracker: Tracker | None = None
    time: float = 0.0
    view: View | None = None
    previous_target: int | None = None
    pose: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        """Refuses an ignore mask of another size before any work is done, with SizeError."""
        self.classes = self._network.card.classes
        if self.settings.valid_mask is not None:
            check_size(self.settings.valid_mask, self.image.shape[:2])

    @cached_property
    def segmentation(self) -> Segmentation:
        """Class ids and confidence, with the ignored pixels taken out."""
        return self._kept(self._network.segment(self.image, self.settings.threshold))

    @property
    def _network(self) -> Segmenter:
        assert self.segmenter is not None
        return self.segmenter

    def _kept(self, result: Segmentation) -> Segmentation:
        self.segmenter = None
        return (
            result
            if self.settings.valid_mask is None
            else apply_ignore_mask(result, self.settings.valid_mask)
        )

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """H×W uint8: 255 rock, 0 not."""
        return self.segmentation.mask()

    @cached_property
    def _found(self) -> list[Rock]:
        """The rocks, numbered in this image."""
        return find_rocks(self.segmentation, self.settings.rocks)

    @cached_property
    def rocks(self) -> list[Rock]:
        """The rocks, largest first."""
        if self.tracker is None or not self.settings.track:
            return self._found
        sight = None
        if self.pose is not None and self.view is not None and self.view.depth is not None:
            sight = PosedView(self.view, self.pose)
        return self.tracker.update(self.image, self._found, self.time, sight, self.instances)

    @cached_property
    def places(self) -> list[Place]:
        """Where each rock is, and how large, in metres; NaN where that is not known."""
        if self.view is None:
            return [Place.unknown()] * len(self.rocks)
        return locate(self.rocks, self.view, self.instances)

    @cached_property
    def target(self) -> int | None:
        """The place among the rocks of the one that suits a drill or an instrument best."""
        size = self.image.shape[:2]
        return choose_target(
            self.rocks, self.places, size, self.settings.target, self.previous_target
        )

    @property
    def current_target(self) -> int | None:
        """Id of the target; of the one before where there is none, or none was asked for."""
        row = vars(self).get('target')
        return self.previous_target if row is None else self.rocks[row].id

    @cached_property
    def instances(self) -> NDArray[np.uint16]:
        """H×W uint16: 0, or a rock's place among the rocks, counted from 1."""
        return draw_instances(self._found, self.image.shape[:2])

    @cached_property
    def overlay(self) -> NDArray[np.uint8]:
        """H×W×3 uint8 RGB, contiguous: the image with the rocks drawn on."""
        return draw_overlay(self.image, self.mask, self.rocks, self.settings.overlay_alpha)


def segment_together(analyses: Sequence[Analysis]) -> None:
    """Works out the segmentations of images in one run of the network, where they are alike.

    Args:
        analyses: At least one, of the same segmenter and threshold.
    """
    first = analyses[0]
    images = [analysis.image for analysis in analyses]
    results = first._network.segment_batch(images, first.settings.threshold)
    for analysis, result in zip(analyses, results, strict=True):
        analysis.segmentation = analysis._kept(result)
