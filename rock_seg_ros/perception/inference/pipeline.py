# SPDX-License-Identifier: Apache-2.0
"""Images → class ids and confidence, all the way on one device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.classification import (
    classify,
    classify_on_cpu,
    confidence_on_cpu,
)
from rock_seg_ros.perception.inference.preprocessing import Preprocessing
from rock_seg_ros.perception.inference.scoring import Scorer

Pixels = NDArray[np.uint8]


class ScoresError(ValueError):
    """Scores that are not finite, of which nothing can be found."""

    def __init__(self) -> None:
        """Says so, and what helps."""
        super().__init__(
            "the network's scores are not finite: the weights are damaged, or need precision 'fp32'"
        )


class Classified(NamedTuple):
    """What is found in one image.

    Attributes:
        class_ids: H×W uint8.
        confidence: Gives H×W uint8, 0 to 255; worked out, or fetched from the device, when it is
            called.
        rock_confidence: H×W uint8, the same where there is rock, elsewhere 0; None = not at hand.
    """

    class_ids: Pixels
    confidence: Callable[[], Pixels]
    rock_confidence: Pixels | None = None


class Pipeline(Protocol):
    """A way from images to class ids."""

    def run(self, images: Sequence[Pixels], threshold: float) -> list[Classified]:
        """Classifies the pixels of images of one size, H×W×3 uint8 RGB, any strides."""

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Makes everything ready that the first such images would otherwise wait for."""

    def capture_pending(self) -> None:
        """Makes ready what images of an unannounced size would have gained from."""


class PlainPipeline:
    """One step after the other, for any backend."""

    def __init__(self, scorer: Scorer) -> None:
        """Takes the network in, whose device is where all is done."""
        self._scorer = scorer
        self._prepare = Preprocessing(scorer.card, scorer.runner.device)

    def run(self, images: Sequence[Pixels], threshold: float) -> list[Classified]:
        """Classifies the pixels of images of one size, H×W×3 uint8 RGB, any strides."""
        scores = self._scorer.scores(self._prepare(images))
        return [postprocess(one, self._scorer.card, threshold) for one in scores]

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Runs the network once."""
        self.run([np.zeros((height, width, 3), np.uint8)] * batch, self._scorer.card.threshold)

    def capture_pending(self) -> None:
        """Has nothing to do: no size is quicker than another."""


def postprocess(scores: Tensor, card: Card, threshold: float) -> Classified:
    """Classifies the pixels of channels×H×W scores on whatever device and fetches the ids.

    Raises:
        ScoresError: The scores are not finite.
    """
    if not are_finite(scores):
        raise ScoresError
    if scores.device.type == 'cpu':
        class_ids, sure = classify_on_cpu(scores, card, threshold)
        return Classified(class_ids, lambda: confidence_on_cpu(scores, card, class_ids), sure)
    there = classify(scores, card, threshold)
    return Classified(there[0].cpu().numpy(), lambda: there[1].cpu().numpy())


def are_finite(scores: Tensor) -> Tensor:
    """Returns for …×channels×H×W scores whether each image's are finite: … bool on their device."""
    return scores.sum(dim=(-3, -2, -1)).isfinite()  # a sum reads them once and writes nothing
