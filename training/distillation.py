# SPDX-License-Identifier: Apache-2.0
"""Knowledge distillation from the logits and features of teacher networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.preprocessing import normalize
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from training.config import DistillConfig


class Distillation(nn.Module):
    """The distillation loss of a student network; see `DistillConfig`."""

    def __init__(self, config: DistillConfig, student: DeepLabV3, metadata: ModelMetadata) -> None:
        """Loads the teachers.

        Args:
            config: The teachers and the loss weights.
            student: The network that is trained.
            metadata: Metadata of the student.

        Raises:
            WeightsError: A teacher cannot be used, or has different classes.
        """
        super().__init__()
        self.config = config
        # A list, not submodules, so that the teachers are neither trained, averaged nor saved.
        self._teachers = [_load(path, metadata) for path in config.teachers]
        self.adapter: nn.Module | None = None
        if config.feature_weight:
            first = self._teachers[0][0]
            self._student_features = _FeatureHook(student)
            self._teacher_features = _FeatureHook(first)
            self.adapter = nn.Conv2d(student.context_channels, first.context_channels, 1)

    def forward(self, logits: Tensor, clean: Tensor) -> Tensor:
        """Returns the loss of a batch; call it directly after the forward pass of the student.

        Args:
            logits: N×channels×H×W, those of the student.
            clean: N×3×H×W uint8 RGB input of the teachers. Black pixels are outside the image and
                do not contribute.
        """
        probabilities, features = self._run_teachers(clean)
        divergence = functional.kl_div(
            logits.float().log_softmax(dim=1), probabilities, reduction='none'
        ).sum(dim=1)
        inside = (clean.amax(dim=1) > 0).float()
        loss = self.config.weight * (divergence * inside).sum() / inside.sum().clamp(min=1)
        if self.adapter is not None and features is not None:
            resized = functional.adaptive_avg_pool2d(
                self._student_features.maps, (features.shape[-2], features.shape[-1])
            )
            adapted = self.adapter(resized).float()
            similarity = functional.cosine_similarity(adapted, features, dim=1)
            loss = loss + self.config.feature_weight * (1 - similarity).mean()
        return loss

    @torch.no_grad()
    def _run_teachers(self, clean: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the mean N×channels×H×W probabilities, and features of the first teacher."""
        features = None
        predictions = []
        for teacher, metadata in self._teachers:
            teacher.to(clean.device)
            prepared = normalize(clean, metadata).contiguous(memory_format=torch.channels_last)
            predictions.append(teacher(prepared)['out'].float().softmax(dim=1))
            if self.adapter is not None and features is None:
                features = self._teacher_features.maps.float()
            mirrored = teacher(prepared.flip(-1))['out'].float().softmax(dim=1)
            predictions.append(mirrored.flip(-1))
        return torch.stack(predictions).mean(dim=0), features


class _FeatureHook:
    """Stores the last output of the ASPP of a network."""

    maps: Tensor

    def __init__(self, model: DeepLabV3) -> None:
        aspp = model.get_submodule('classifier.aspp')
        aspp.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, _inputs: tuple[Tensor, ...], result: Tensor) -> None:
        self.maps = result


def _load(path: str, metadata: ModelMetadata) -> tuple[DeepLabV3, ModelMetadata]:
    weights = load_weights(path)
    if weights.is_onnx:
        raise WeightsError(f'{path}: a teacher must be a .safetensors or .ckpt file, not ONNX')
    if weights.metadata.classes != metadata.classes:
        raise WeightsError(
            f'{path}: a teacher must have the classes {", ".join(metadata.classes)},'
            f' not {", ".join(weights.metadata.classes)}'
        )
    try:
        teacher = restore(weights.metadata, weights.state)
    except ValueError as error:
        raise WeightsError(f'{path}: {error}') from None
    teacher.requires_grad_(False)
    return teacher.to(memory_format=torch.channels_last), weights.metadata
