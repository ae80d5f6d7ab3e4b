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


class LogitsError(ValueError):
    """The logits of the network are not finite."""

    def __init__(self) -> None:
        """Creates the error with its message."""
        super().__init__(
            "the network's logits are not finite: the weights are damaged, or need precision 'fp32'"
        )


class Pipeline(Protocol):
    """Computes segmentations from images."""

    def run(self, images: Sequence[Pixels], threshold: float) -> list[Segmentation]:
        """Segments images of one size.

        Args:
            images: H×W×3 uint8 RGB each, any strides.
            threshold: Probability from which a pixel is rock, 0 to 1.

        Raises:
            LogitsError: The logits for one of the images are not finite.
        """

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Prepares for batches of this size, so that the first one is not slower.

        Raises:
            LogitsError: The logits are not finite.
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
        logits = self._predictor.logits(self._preprocess(images))
        return [postprocess(one, self._predictor.metadata, threshold) for one in logits]

    def warm_up(self, batch: int, height: int, width: int) -> None:
        """Runs the network once."""
        self.run(
            [np.zeros((height, width, 3), np.uint8)] * batch, self._predictor.metadata.threshold
        )

    def capture_pending(self) -> None:
        """Does nothing: the speed does not depend on a preparation."""


def postprocess(logits: Tensor, metadata: ModelMetadata, threshold: float) -> Segmentation:
    """Computes the segmentation of one image from its logits.

    Args:
        logits: channels×H×W float32 on any device.
        metadata: The metadata of the weights.
        threshold: Probability from which a pixel is rock, 0 to 1.

    Raises:
        LogitsError: The logits are not finite.
    """
    if not are_finite(logits):
        raise LogitsError
    if logits.device.type == 'cpu':
        ids, rock_confidence = classify_on_cpu(logits, metadata, threshold)
        return DeferredSegmentation(
            ids,
            lambda: confidence_on_cpu(logits, metadata, ids),
            metadata.rock_ids,
            metadata.rim_id,
            lambda: rock_confidence,
        )
    class_ids, confidence = classify(logits, metadata, threshold)
    return DeferredSegmentation(
        class_ids.cpu().numpy(),
        lambda: confidence.cpu().numpy(),
        metadata.rock_ids,
        metadata.rim_id,
    )


def are_finite(logits: Tensor) -> Tensor:
    """Returns whether the logits of each image are finite.

    Args:
        logits: …×channels×H×W float32, on any device.

    Returns:
        … bool, on the same device.
    """
    return logits.sum(dim=(-3, -2, -1)).isfinite()  # needs no temporary array
