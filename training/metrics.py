# SPDX-License-Identifier: Apache-2.0
"""The figures that a segmentation is judged by."""

from __future__ import annotations

from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryJaccardIndex, BinaryPrecision, BinaryRecall

from training.datasets import IGNORE


def rock_metrics(prefix: str = '') -> MetricCollection:
    """Returns IoU, precision and recall of rock pixels, pooled over all pictures.

    Its `update` takes int tensors of equal shape: 1 rock, 0 not; in the truth 255 is ignored.
    """
    return MetricCollection(
        {
            'iou': BinaryJaccardIndex(ignore_index=IGNORE),
            'precision': BinaryPrecision(ignore_index=IGNORE),
            'recall': BinaryRecall(ignore_index=IGNORE),
        },
        prefix=prefix,
    )
