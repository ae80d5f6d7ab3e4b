# SPDX-License-Identifier: Apache-2.0
"""Prediction of logits in the size of the image, for any input size of the network."""

from __future__ import annotations

from torch import Tensor

from rock_seg_ros.perception.inference.backends import Backend
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.networks import NETWORKS
from rock_seg_ros.perception.inference.scaling import pad, resize

MAX_ENLARGEMENT = 2.0  # factor
# Pixels of an enlarged image; a narrow image would otherwise need gigabytes of memory.
MAX_NETWORK_PIXELS = 3840 * 2160


def enlargement(height: int, width: int, metadata: ModelMetadata) -> float:
    """Returns the factor by which an image is enlarged for the network, 1 to `MAX_ENLARGEMENT`."""
    wanted = metadata.smallest_side / min(height, width)
    limit = (MAX_NETWORK_PIXELS / (height * width)) ** 0.5
    return min(MAX_ENLARGEMENT, max(1.0, min(wanted, limit)))


def grid_size(height: int, width: int, metadata: ModelMetadata) -> tuple[int, int]:
    """Returns height and width of the network's input for an image that is scaled to a size, px.

    Each is the next multiple of the largest output stride. With other sizes, the cells of the
    coarse feature maps would extend beyond the image, and the skip decoder, which scales them to
    the image, would shift them by up to half an output stride. Without a decoder, the result is
    that of torchvision for any size.
    """
    if metadata.decoder == 'none':
        return height, width
    grid = NETWORKS[metadata.architecture].output_strides[-1]
    return -(-height // grid) * grid, -(-width // grid) * grid


class Predictor:
    """Runs the network at its input size, and resizes the logits to the size of the image.

    Attributes:
        backend: The network.
        metadata: The metadata of its weights.
    """

    def __init__(
        self, backend: Backend, metadata: ModelMetadata, input_size: tuple[int, int] = (0, 0)
    ) -> None:
        """Stores the network.

        Args:
            backend: The network.
            metadata: The metadata of its weights.
            input_size: Width and height of the network's input, px; 0 = those of the image. If
                both are 0, small images are enlarged if the metadata requires it.
        """
        self.backend = backend
        self.metadata = metadata
        self._input_size = input_size

    def logits(self, prepared: Tensor) -> Tensor:
        """Runs the network.

        Args:
            prepared: N×3×H×W normalised float32 RGB, on the device of the network.

        Returns:
            N×channels×H×W float32 logits.
        """
        height, width = prepared.shape[-2:]
        if any(self._input_size):
            rows, columns = self._input_size[1] or height, self._input_size[0] or width
        else:
            scale = enlargement(height, width, self.metadata)
            rows, columns = round(height * scale), round(width * scale)
        padded = pad(resize(prepared, (rows, columns)), grid_size(rows, columns, self.metadata))
        return resize(self.backend.logits(padded)[..., :rows, :columns], (height, width))
