# SPDX-License-Identifier: Apache-2.0
"""Validation on whole images with the inference code of the node."""

from __future__ import annotations

import torch
from torch import Tensor

from rock_seg_ros.perception.inference.classification import classify
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import DeepLabV3
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.preprocessing import correct_exposure, normalize
from rock_seg_ros.perception.inference.tiling import Tiling

TILE = 1536  # px; it limits the memory for images of any size
OVERLAP = 256  # px


class TrainingBackend:
    """A backend that runs the network in the precision of the training."""

    precision = 'fp32'

    def __init__(self, model: DeepLabV3, device: torch.device) -> None:
        """Stores the network, which must be in evaluation mode."""
        self.device = device
        self._model = model

    def logits(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 logits."""
        return self._model(images)['out'].float()

    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×deep_channels×h×w float32."""
        return self._model.deep(images).float()

    def context(self, deep: Tensor) -> Tensor:
        """Maps deep features to N×context_channels×h×w, or N×channels×h×w, float32."""
        return self._model.context(deep).float()

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W images and their scaled context to N×channels×h×w float32 logits."""
        return self._model.decode(images, context).float()


@torch.no_grad()
def predict_classes(model: DeepLabV3, metadata: ModelMetadata, image: Tensor) -> Tensor:
    """Classifies the pixels of an image; small images are enlarged, large ones divided into tiles.

    Args:
        model: The network, in evaluation mode.
        metadata: Metadata of the network.
        image: 3×H×W uint8 RGB, on the model's device.

    Returns:
        H×W uint8 class ids, on the same device.
    """
    predictor = Predictor(TrainingBackend(model, image.device), metadata)
    pixels = correct_exposure(image.permute(1, 2, 0).cpu().numpy())
    if max(pixels.shape[:2]) > TILE:
        found = Tiling(predictor, TILE, OVERLAP).run(pixels, metadata.threshold)
        return torch.from_numpy(found.class_ids).to(image.device)
    prepared = normalize(torch.from_numpy(pixels).to(image.device).permute(2, 0, 1)[None], metadata)
    return classify(predictor.logits(prepared)[0], metadata, metadata.threshold)[0]
