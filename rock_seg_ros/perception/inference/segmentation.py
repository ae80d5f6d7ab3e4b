# SPDX-License-Identifier: Apache-2.0
"""The segmentation of an image: class ids and confidence, and the ignore mask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class SizeError(ValueError):
    """The size of an image or an ignore mask is not valid."""


class Segmentation:
    """The class of each pixel of an image.

    Attributes:
        class_ids: H×W uint8, the class of each pixel.
        rock_ids: The class ids that are rock.
        rim_id: The class id of the rim between touching rocks; None = the network has no rim class.
    """

    def __init__(
        self,
        class_ids: Pixels,
        confidence: Pixels,
        rock_ids: tuple[int, ...],
        rim_id: int | None = None,
    ) -> None:
        """Stores the parts.

        Args:
            class_ids: H×W uint8.
            confidence: H×W uint8, the confidence of each pixel's class, 0 to 255.
            rock_ids: The class ids that are rock.
            rim_id: The class id of the rim; None = the network has no rim class.
        """
        self.class_ids = class_ids
        self.rock_ids = rock_ids
        self.rim_id = rim_id
        self._confidence = confidence

    @property
    def confidence(self) -> Pixels:
        """H×W uint8, the confidence of each pixel's class, 0 to 255; see `classify`."""
        return self._confidence

    @property
    def rock_confidence(self) -> Pixels:
        """H×W uint8, the confidence of pixels that are rock or rim, and 0 elsewhere."""
        return cv2.bitwise_and(self.confidence, self.mask())  # type: ignore[return-value]

    @property
    def mask_ids(self) -> tuple[int, ...]:
        """Class ids of the mask: those of rock and rim."""
        return self.rock_ids if self.rim_id is None else (*self.rock_ids, self.rim_id)

    def mask(self) -> Pixels:
        """Returns H×W uint8: 255 rock or rim, 0 neither."""
        ids = sorted(self.mask_ids)
        if ids == list(range(ids[0], ids[-1] + 1)):  # several times as fast as a lookup table
            return cv2.inRange(self.class_ids, ids[0], ids[-1])  # type: ignore[return-value]
        table = np.zeros(256, np.uint8)
        table[ids] = 255
        return cv2.LUT(self.class_ids, table)  # type: ignore[return-value]


class DeferredSegmentation(Segmentation):
    """A segmentation whose confidence is computed when it is first used."""

    def __init__(
        self,
        class_ids: Pixels,
        compute_confidence: Callable[[], Pixels],
        rock_ids: tuple[int, ...],
        rim_id: int | None = None,
        compute_rock_confidence: Callable[[], Pixels] | None = None,
    ) -> None:
        """Stores the parts.

        Args:
            class_ids: H×W uint8.
            compute_confidence: Returns `confidence`; called at most once.
            rock_ids: The class ids that are rock.
            rim_id: The class id of the rim; None = the network has no rim class.
            compute_rock_confidence: Returns `rock_confidence`; None = it is computed from
                `confidence`.
        """
        self.class_ids = class_ids
        self.rock_ids = rock_ids
        self.rim_id = rim_id
        self._compute_confidence: Callable[[], Pixels] | None = compute_confidence
        self._compute_rock_confidence = compute_rock_confidence

    @property
    def confidence(self) -> Pixels:
        """H×W uint8, the confidence of each pixel's class, 0 to 255; see `classify`."""
        compute = self._compute_confidence  # another thread may set it to None
        if compute is not None:
            self._confidence = compute()
            self._compute_confidence = None  # releases the logits
        return self._confidence

    @cached_property
    def rock_confidence(self) -> Pixels:
        """H×W uint8, the confidence of pixels that are rock or rim, and 0 elsewhere."""
        if self._compute_rock_confidence is None:
            return super().rock_confidence
        return self._compute_rock_confidence()


def class_mask(class_ids: Pixels, class_id: int) -> Pixels:
    """Returns H×W uint8, 255 for pixels of a class; several times as fast as NumPy's comparison."""
    return cv2.inRange(class_ids, class_id, class_id)  # type: ignore[return-value]


def apply_ignore_mask(segmentation: Segmentation, valid_mask: Pixels) -> Segmentation:
    """Returns a segmentation in which ignored pixels, such as the robot's deck, are never rock.

    Args:
        segmentation: The segmentation of the image.
        valid_mask: H×W uint8. Where it is 0, rock and rims become background with a confidence of
            255.

    Raises:
        SizeError: The sizes differ.
    """
    check_size(valid_mask, segmentation.class_ids.shape)
    ignored = (valid_mask == 0) & (segmentation.mask() > 0)
    background = next(i for i in range(256) if i not in segmentation.mask_ids)
    return DeferredSegmentation(
        np.where(ignored, np.uint8(background), segmentation.class_ids),
        lambda: np.where(ignored, np.uint8(255), segmentation.confidence),
        segmentation.rock_ids,
        segmentation.rim_id,
        lambda: np.where(ignored, np.uint8(0), segmentation.rock_confidence),
    )


def check_size(valid_mask: Pixels, size: tuple[int, ...]) -> None:
    """Raises SizeError if the size of an ignore mask differs from that of the image.

    Args:
        valid_mask: H×W uint8.
        size: Height and width of the image, px.
    """
    if valid_mask.shape != tuple(size):
        height, width = valid_mask.shape
        raise SizeError(f'the ignore mask is {width}×{height}, the image is {size[1]}×{size[0]}')
