# SPDX-License-Identifier: Apache-2.0
"""Pipeline from images to segmentations on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from rock_seg_ros.perception.inference.classification import (
    classify,
    classify_on_cpu,
    confidence_on_cpu,
)
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.preprocessing import Preprocessing
from rock_seg_ros.perception.inference.segmentation import (
    DeferredSegmentation,
    Pixels,
    Segmentation,
)


class ScoresError(ValueError):
    """The scores of the network are not finite."""

    def __init__(self) -> None:
        """Creates the error with its message."""
        super().__init__(
            "the network's scores are not finite: the weights are damaged, or need precision 'fp32'"
        )


class Pipeline(Protocol):
    """Computes segmentations from images."""

    def run(self, images: Sequence[Pixels], threshold: float) -> list[Segmentation]:
        """Segments images of one size.

        Args:
            images: H×W×3 uint8 RGB each, any strides.
            threshold: Probability from which a pixel is rock, 0 to 1.

        Raises:
            ScoresError: The scores for one of the images are not finite.
        """

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Prepares for batches of this size, so that the first one is not slower.

        Raises:
            ScoresError: The scores are not finite.
        """

    def capture_pending(self) -> None:
        """Prepares for the image sizes that were processed without a warm-up."""


class PlainPipeline:
    """Runs one step after the other, with any backend."""

    def __init__(self, predictor: Predictor) -> None:
        """Stores the network; the pipeline runs on its device."""
        self._predictor = predictor
        self._preprocess = Preprocessing(predictor.metadata, predictor.backend.device)

    def run(self, images: Sequence[Pixels], threshold: float) -> list[Segmentation]:
        """Segments images of one size; see `Pipeline`."""
        scores = self._predictor.scores(self._preprocess(images))
        return [postprocess(one, self._predictor.metadata, threshold) for one in scores]

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Runs the network once."""
        self.run(
            [np.zeros((height, width, 3), np.uint8)] * batch, self._predictor.metadata.threshold
        )

    def capture_pending(self) -> None:
        """Does nothing: the speed does not depend on a preparation."""


def postprocess(scores: Tensor, metadata: ModelMetadata, threshold: float) -> Segmentation:
    """Computes the segmentation of one image from its scores.

    Args:
        scores: channels×H×W float32 logits on any device.
        metadata: The metadata of the weights.
        threshold: Probability from which a pixel is rock, 0 to 1.

    Raises:
        ScoresError: The scores are not finite.
    """
    if not are_finite(scores):
        raise ScoresError
    if scores.device.type == 'cpu':
        ids, rock_confidence = classify_on_cpu(scores, metadata, threshold)
        return DeferredSegmentation(
            ids,
            lambda: confidence_on_cpu(scores, metadata, ids),
            metadata.rock_ids,
            metadata.rim_id,
            lambda: rock_confidence,
        )
    class_ids, confidence = classify(scores, metadata, threshold)
    return DeferredSegmentation(
        class_ids.cpu().numpy(),
        lambda: confidence.cpu().numpy(),
        metadata.rock_ids,
        metadata.rim_id,
    )


def are_finite(scores: Tensor) -> Tensor:
    """Returns whether the scores of each image are finite.

    Args:
        scores: …×channels×H×W float32, on any device.

    Returns:
        … bool, on the same device.
    """
    return scores.sum(dim=(-3, -2, -1)).isfinite()  # needs no temporary array
