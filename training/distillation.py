# SPDX-License-Identifier: Apache-2.0
"""Learning from the scores and features of other networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.preparation import normalize
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from training.config import DistillConfig


class Distillation(nn.Module):
    """The loss of a student against its teachers; see `DistillConfig`."""

    def __init__(self, config: DistillConfig, student: DeepLabV3, card: Card) -> None:
        """Loads the teachers.

        Args:
            config: The teachers and the weights of the losses.
            student: The network under training.
            card: Its card.

        Raises:
            WeightsError: A teacher cannot be used, or has other classes.
        """
        super().__init__()
        self.config = config
        # In a list, not as submodules: they are neither trained, averaged nor saved.
        self._teachers = [_load(path, card) for path in config.teachers]
        self.adapter: nn.Module | None = None
        if config.feature_weight:
            first = self._teachers[0][0]
            self._seen = _Tap(student)
            self._shown = _Tap(first)
            self.adapter = nn.Conv2d(student.context_channels, first.context_channels, 1)

    def forward(self, scores: Tensor, clean: Tensor) -> Tensor:
        """Returns the loss of a batch, right after the student saw it.

        Args:
            scores: N×channels×H×W logits of the student.
            clean: N×3×H×W uint8 RGB, what the teachers see; black pixels are outside of the image
                and do not count.
        """
        probabilities, features = self._teach(clean)
        divergence = functional.kl_div(
            scores.float().log_softmax(dim=1), probabilities, reduction='none'
        ).sum(dim=1)
        inside = (clean.amax(dim=1) > 0).float()
        loss = self.config.weight * (divergence * inside).sum() / inside.sum().clamp(min=1)
        if self.adapter is not None and features is not None:
            own = functional.adaptive_avg_pool2d(
                self._seen.maps, (features.shape[-2], features.shape[-1])
            )
            alike = functional.cosine_similarity(self.adapter(own).float(), features, dim=1)
            loss = loss + self.config.feature_weight * (1 - alike).mean()
        return loss

    @torch.no_grad()
    def _teach(self, clean: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the teachers' N×channels×H×W probabilities and the first one's features."""
        features = None
        found = []
        for teacher, card in self._teachers:
            teacher.to(clean.device)
            prepared = normalize(clean, card).contiguous(memory_format=torch.channels_last)
            found.append(teacher(prepared)['out'].float().softmax(dim=1))
            if self.adapter is not None and features is None:
                features = self._shown.maps.float()
            mirrored = teacher(prepared.flip(-1))['out'].float().softmax(dim=1)
            found.append(mirrored.flip(-1))
        return torch.stack(found).mean(dim=0), features


class _Tap:
    """Keeps the last result of a network's ASPP."""

    maps: Tensor

    def __init__(self, model: DeepLabV3) -> None:
        aspp = model.get_submodule('classifier.aspp')
        aspp.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple[Tensor, ...], result: Tensor) -> None:
        self.maps = result


def _load(path: str, card: Card) -> tuple[DeepLabV3, Card]:
    weights = load_weights(path)
    if weights.is_onnx:
        raise WeightsError(f'{path}: a teacher is a .safetensors or .ckpt file, not ONNX')
    if weights.card.classes != card.classes:
        raise WeightsError(
            f'{path}: a teacher must have the classes {", ".join(card.classes)},'
            f' not {", ".join(weights.card.classes)}'
        )
    try:
        teacher = restore(weights.card, weights.state)
    except ValueError as error:
        raise WeightsError(f'{path}: {error}') from None
    teacher.requires_grad_(False)
    return teacher.to(memory_format=torch.channels_last), weights.card
