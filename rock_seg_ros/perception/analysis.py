# SPDX-License-Identifier: Apache-2.0
"""The analysis of one image: its results, each computed when it is first used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.geometry.location import Location, locate
from rock_seg_ros.perception.geometry.target import TargetLimits, choose_target
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
    """The settings that may change from image to image.

    Attributes:
        threshold: Probability from which a pixel is rock, 0 to 1; None = that of the metadata.
        rocks: Which rocks are reported.
        overlay_alpha: Opacity of the tint in the overlay, 0 to 1.
        track: Whether a rock keeps its id from image to image, if there is a tracker. Otherwise
            the ids count from 1, the largest rock first.
        target: Which rocks are suited for a drill or an instrument.
        valid_mask: H×W uint8, 0 where there is never rock; None = rock may be anywhere.
    """

    threshold: float | None = None
    rocks: RockSettings = field(default_factory=RockSettings)
    overlay_alpha: float = 0.4
    track: bool = True
    target: TargetLimits = field(default_factory=TargetLimits)
    valid_mask: NDArray[np.uint8] | None = None


@dataclass
class Analysis:
    """An image and its results.

    Attributes:
        image: H×W×3 uint8 RGB, any strides.
        segmenter: The network; None after the segmentation, so that a result does not hold it.
        settings: The settings.
        header: A value that accompanies the image and its results; it is not used here.
        tracker: The tracker of the camera, or None.
        time: The time at which the image was taken, s; for the tracker.
        view: Intrinsics, depth and ground plane of the image; None = not known. It may be set
            until it is first used.
        previous_target: Id of the target rock in the image before.
        pose: Pose of the camera in a fixed frame, 4×4, m. The tracker uses it if there is depth.
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
        """Raises SizeError if the ignore mask has another size than the image."""
        self.classes = self._network.metadata.classes
        if self.settings.valid_mask is not None:
            check_size(self.settings.valid_mask, self.image.shape[:2])

    @cached_property
    def segmentation(self) -> Segmentation:
        """Class ids and confidence, after the ignore mask was applied."""
        return self._masked(self._network.segment(self.image, self.settings.threshold))

    @property
    def _network(self) -> Segmenter:
        assert self.segmenter is not None
        return self.segmenter

    def _masked(self, result: Segmentation) -> Segmentation:
        self.segmenter = None
        return (
            result
            if self.settings.valid_mask is None
            else apply_ignore_mask(result, self.settings.valid_mask)
        )

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """H×W uint8: 255 rock, 0 not rock."""
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
        posed_view = None
        if self.pose is not None and self.view is not None and self.view.depth is not None:
            posed_view = PosedView(self.view, self.pose)
        return self.tracker.update(self.image, self._found, self.time, posed_view, self.instances)

    @cached_property
    def locations(self) -> list[Location]:
        """Position and size of each rock, m; NaN if they are not known."""
        if self.view is None:
            return [Location.unknown()] * len(self.rocks)
        return locate(self.rocks, self.view, self.instances)

    @cached_property
    def target(self) -> int | None:
        """The index in `rocks` of the rock that suits a drill or an instrument best, or None."""
        size = self.image.shape[:2]
        return choose_target(
            self.rocks, self.locations, size, self.settings.target, self.previous_target
        )

    @property
    def current_target(self) -> int | None:
        """Id of the target; that of the image before if there is none, or it was not computed."""
        row = vars(self).get('target')
        return self.previous_target if row is None else self.rocks[row].id

    @cached_property
    def instances(self) -> NDArray[np.uint16]:
        """H×W uint16: 0, or the index of the rock in `rocks`, counted from 1."""
        return draw_instances(self._found, self.image.shape[:2])

    @cached_property
    def overlay(self) -> NDArray[np.uint8]:
        """H×W×3 uint8 RGB, contiguous: the image with the rocks drawn onto it."""
        return draw_overlay(self.image, self.mask, self.rocks, self.settings.overlay_alpha)


def segment_together(analyses: Sequence[Analysis]) -> None:
    """Computes the segmentations of several images; images of one size are one batch.

    Args:
        analyses: One or more analyses with the same segmenter and threshold.
    """
    first = analyses[0]
    images = [analysis.image for analysis in analyses]
    results = first._network.segment_batch(images, first.settings.threshold)
    for analysis, result in zip(analyses, results, strict=True):
        analysis.segmentation = analysis._masked(result)
