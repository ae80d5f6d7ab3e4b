# SPDX-License-Identifier: Apache-2.0
"""A network under training looks at whole images as the node's does."""

from __future__ import annotations

import torch
from torch import Tensor

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.classification import classify
from rock_seg_ros.perception.inference.model import DeepLabV3
from rock_seg_ros.perception.inference.preparation import normalize
from rock_seg_ros.perception.inference.scoring import Scorer
from rock_seg_ros.perception.inference.tiling import Tiling

TILE = 1536  # px; what a tile takes is the most that an image of any size takes
OVERLAP = 256  # px


class TrainingBackend:
    """A network as a backend: in the precision that it is trained in."""

    precision = 'fp32'

    def __init__(self, model: DeepLabV3, device: torch.device) -> None:
        """Takes the network in; it must be in evaluation mode."""
        self.device = device
        self._model = model

    def scores(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×channels×H×W float32 scores (logits)."""
        return self._model(images)['out'].float()

    def deep(self, images: Tensor) -> Tensor:
        """Maps N×3×H×W normalised float32 RGB to N×deep_channels×h×w float32."""
        return self._model.deep(images).float()

    def context(self, deep: Tensor) -> Tensor:
        """Maps that to N×context_channels×h×w, or N×channels×h×w, float32."""
        return self._model.context(deep).float()

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        """Maps N×3×H×W and their scaled context to N×channels×h×w float32 scores."""
        return self._model.decode(images, context).float()


@torch.no_grad()
def predict_classes(model: DeepLabV3, card: Card, image: Tensor) -> Tensor:
    """Classifies the pixels of an image: small ones enlarged, large ones in tiles.

    Args:
        model: In evaluation mode.
        card: Of the weights that the training makes.
        image: 3×H×W uint8 RGB, on the model's device.

    Returns:
        H×W uint8 class ids, on the same device.
    """
    scorer = Scorer(TrainingBackend(model, image.device), card)
    if max(image.shape[1:]) > TILE:
        pixels = image.permute(1, 2, 0).cpu().numpy()
        found = Tiling(scorer, TILE, OVERLAP).run(pixels, card.threshold)
        return torch.from_numpy(found.class_ids).to(image.device)
    return classify(scorer.scores(normalize(image[None], card))[0], card, card.threshold)[0]
