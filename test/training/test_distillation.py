# SPDX-License-Identifier: Apache-2.0
"""Distillation: the loss of a student against its teachers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.preprocessing import normalize
from rock_seg_ros.perception.inference.weights_file import WeightsError, save_weights
from training.config import DistillConfig
from training.distillation import Distillation

METADATA = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DeepLabV3]:
    torch.manual_seed(3)
    model = build(METADATA).eval()
    file = tmp_path_factory.mktemp('teacher') / 'teacher.safetensors'
    save_weights(file, model.state_dict(), METADATA)
    return file, model


@pytest.fixture
def crops() -> Tensor:
    torch.manual_seed(4)
    return torch.randint(1, 256, (2, 3, 64, 64), dtype=torch.uint8)


def log_probabilities(model: DeepLabV3, crops: Tensor) -> Tensor:
    """Returns the log of the teacher's mean probabilities for crops and their mirror images."""
    prepared = normalize(crops, METADATA)
    plain = model(prepared)['out'].softmax(1)
    mirrored = model(prepared.flip(-1))['out'].softmax(1).flip(-1)
    return ((plain + mirrored) / 2).log()


def test_the_loss_of_a_student_that_equals_the_teacher_is_0(
    teacher: tuple[Path, DeepLabV3], crops: Tensor
) -> None:
    file, model = teacher
    distillation = Distillation(DistillConfig([str(file)]), build(METADATA), METADATA)
    with torch.no_grad():
        logits = log_probabilities(model, crops)
    assert distillation(logits, crops) < 1e-4
    assert distillation(logits.flip(1), crops) > 1e-3


def test_black_pixels_from_outside_the_image_have_no_gradient(
    teacher: tuple[Path, DeepLabV3], crops: Tensor
) -> None:
    distillation = Distillation(DistillConfig([str(teacher[0])]), build(METADATA), METADATA)
    crops[:, :, :, 32:] = 0
    logits = torch.zeros(2, 2, 64, 64, requires_grad=True)
    distillation(logits, crops).backward()
    assert logits.grad is not None
    assert logits.grad[..., :32].abs().min() > 0
    assert logits.grad[..., 32:].abs().max() == 0


def test_the_feature_loss_trains_backbone_and_adapter(
    teacher: tuple[Path, DeepLabV3], crops: Tensor
) -> None:
    student = build(METADATA).train()
    distillation = Distillation(DistillConfig([str(teacher[0])], 0.0, 1.0), student, METADATA)
    logits = student(normalize(crops, METADATA))['out']
    loss = distillation(logits, crops)
    assert 0 < loss <= 2
    loss.backward()
    assert student.backbone.conv_stem.weight.grad.abs().max() > 0
    assert (
        student.classifier.score.weight.grad is None
        or not student.classifier.score.weight.grad.any()
    )


def test_teachers_are_neither_trained_nor_saved(teacher: tuple[Path, DeepLabV3]) -> None:
    distillation = Distillation(
        DistillConfig([str(teacher[0])], 1.0, 1.0), build(METADATA), METADATA
    )
    assert {name for name, _ in distillation.named_parameters()} == {
        'adapter.weight',
        'adapter.bias',
    }
    assert set(distillation.state_dict()) == {'adapter.weight', 'adapter.bias'}


def test_a_teacher_with_different_classes_is_rejected(teacher: tuple[Path, DeepLabV3]) -> None:
    metadata = ModelMetadata(
        ('ground', 'rock'), architecture=METADATA.architecture, output_stride=32
    )
    with pytest.raises(WeightsError, match='must have the classes ground, rock, not background'):
        Distillation(DistillConfig([str(teacher[0])]), build(metadata), metadata)
