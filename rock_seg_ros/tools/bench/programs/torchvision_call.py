# SPDX-License-Identifier: Apache-2.0
"""DeepLabV3-ResNet50 of torchvision, called as in its documentation.

https://docs.pytorch.org/vision/stable/models.html#semantic-segmentation: initialise the model,
`eval()`, preprocess, batch, `model(batch)['out']`, softmax. Two changes make it faster: images
keep their size (the transforms enlarge them to 520 px by default), and no gradients are recorded.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.models.segmentation import deeplabv3_resnet50
from torchvision.transforms._presets import SemanticSegmentation

CLASSES = 2


class TorchvisionCall:
    """The eager model in fp32 at output stride 8. Random weights take as long as trained ones."""

    precision = 'fp32'

    def __init__(self, device: str = 'cpu') -> None:
        """Initialises the model and the transforms.

        Args:
            device: 'cpu' or 'cuda'.
        """
        self.device = device
        model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=CLASSES)
        self._model = model.eval().to(device)
        self._preprocess = SemanticSegmentation(resize_size=None)

    def prepare(self, image: NDArray[np.uint8]) -> Tensor:
        """Preprocesses H×W×3 uint8 RGB to 1×3×H×W float32 on the device."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)
        return self._preprocess(pixels).unsqueeze(0).to(self.device)

    @torch.no_grad()
    def network(self, batch: Tensor) -> Tensor:
        """Returns 1×2×H×W logits of a 1×3×H×W batch."""
        return self._model(batch)['out']

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Segments H×W×3 uint8 RGB; returns H×W bool, True for class 1."""
        normalized_masks = self.network(self.prepare(image)).softmax(dim=1)
        return (normalized_masks[0].argmax(dim=0) == 1).cpu().numpy()
