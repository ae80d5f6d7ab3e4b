# SPDX-License-Identifier: Apache-2.0
"""Adapts the size and the JPEG quality of the images to the link of a viewer."""

from __future__ import annotations

from typing import NamedTuple

# Time from sending an image to its acknowledgement, s.
SLOW = 0.3  # above it, images become smaller if a newer image is waiting
TOO_SLOW = 0.9  # above it, images become smaller
FAST = 0.12  # below it, images become larger
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
    """Chooses a step for each image from the time that the last images took.

    An image that was slow, while a newer one waited, lowers the step at once. Several fast ones
    raise it; after each fall more of them are needed, so that the step does not swing on a link
    that suits none exactly.
    """

    def __init__(self) -> None:
        """Starts with the middle step, because the speed of the link is unknown."""
        self._place = START
        self._fast = 0
        self._patience = 2

    @property
    def step(self) -> Step:
        """Size and quality of the next image."""
        return STEPS[self._place]

    def acknowledged(self, seconds: float, waiting: bool = True) -> None:
        """Adjusts the step to the time from sending an image to its acknowledgement.

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
