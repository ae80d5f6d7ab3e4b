# SPDX-License-Identifier: Apache-2.0
"""Adapts the size and the JPEG quality of the images to the link of a viewer."""

from __future__ import annotations

from typing import NamedTuple

SLOW = 0.3  # s for an image to the viewer and its acknowledgement back; slower is made smaller
TOO_SLOW = 0.9  # the same, even if there is no newer image
FAST = 0.12  # faster is made larger
MAX_PATIENCE = 64


class Step(NamedTuple):
    """Size and quality of the images.

    Attributes:
        side: Longer side, px.
        quality: JPEG quality, 1 to 100.
    """

    side: int
    quality: int


STEPS = (
    Step(240, 30),
    Step(320, 40),
    Step(480, 50),
    Step(640, 60),
    Step(800, 70),
    Step(1280, 80),
    Step(1920, 85),
)
START = 3


class Link:
    """Chooses a step for each image by the time that the last ones took.

    An image that was slow, while a newer one waited, lowers the step at once. Several fast ones
    raise it; after each fall more of them are needed, so that the step does not swing on a link
    that suits none exactly.
    """

    def __init__(self) -> None:
        """Starts in the middle, because the link is not known yet."""
        self._place = START
        self._fast = 0
        self._patience = 2

    @property
    def step(self) -> Step:
        """Size and quality of the next image."""
        return STEPS[self._place]

    def acknowledged(self, seconds: float, waiting: bool = True) -> None:
        """Takes the time of an image to the viewer and its acknowledgement back.

        Args:
            seconds: The time, s.
            waiting: Whether a newer image waits already.
        """
        if seconds > (SLOW if waiting else TOO_SLOW):
            fall = 1 if seconds < TOO_SLOW else 2
            self._place = max(0, self._place - fall)
            self._fast, self._patience = 0, min(2 * self._patience, MAX_PATIENCE)
        elif seconds > FAST:
            self._fast = 0
        else:
            self._fast += 1
            if self._fast >= self._patience and self._place < len(STEPS) - 1:
                self._place, self._fast = self._place + 1, 0
