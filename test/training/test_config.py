# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torchvision import tv_tensors

from training.augmentation import AugmentationConfig
from training.config import LossConfig, MachineConfig, OptimizerConfig, Stage, TrainingConfig
from training.datasets import DatasetConfig
from training.transforms import photometric_transform

SOURCES = {'mine': DatasetConfig('d'), 'more': DatasetConfig('u', format='unlabelled')}
AREA = (0.1, 1.0)
STAGES = [Stage(100, 64, (0.2, 1.0)), Stage(200, 96, (0.1, 0.5))]


def blurred(sigma: float, chance: float = 1.0) -> AugmentationConfig:
    return AugmentationConfig(blur=(sigma, sigma), blur_p=chance)


def config(**changes: object) -> TrainingConfig:
    given: dict[str, object] = {'sources': SOURCES, 'run': 'r', 'stages': STAGES}
    return TrainingConfig(**(given | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'stages': []}, 'stages is empty'),
        ({'sources': {}}, 'sources is empty'),
        ({'sources': {'a/b': DatasetConfig('d')}}, "source name 'a/b'"),
        ({'steps_per_epoch': 70}, '100 steps; it must be a multiple'),
        ({'steps_per_epoch': 0}, 'steps_per_epoch must be 1 or more, not 0'),
        ({'batch_size': 1}, 'batch_size must be at least 2'),
        ({'decoder': 'unet'}, "'unet'"),
        ({'output_stride': 4}, 'output_stride is 4; it must be 0 or 8 or 16'),
        ({'backbone': 'vgg16'}, "backbone must be 'resnet50' or 'efficientnet_lite0' or"),
        ({'backbone': 'efficientnet_lite0', 'output_stride': 8}, '8; it must be 0 or 32'),
        (
            {'backbone': 'efficientnet_lite0', 'start_from': 'open_nsfw'},
            "start_from 'open_nsfw' has weights for the backbone resnet50, not efficientnet_lite0",
        ),
        ({'rock_classes': ['stone']}, 'stone'),
        ({'classes': ['background', 'rock', 'rim']}, 'rim_width adds automatically'),
        ({'rim_width': -1.0}, 'rim_width must be 0 or more'),
        ({'pseudo_label_threshold': -0.1}, 'pseudo_label_threshold must be 0 to 1, not -0.1'),
        ({'pseudo_label_threshold': 90.0}, 'pseudo_label_threshold must be 0 to 1, not 90.0'),
        (
            {'stages': [STAGES[0], Stage(100, 16, AREA)], 'augmentation': blurred(7.6)},
            r'augmentation\.blur is up to 7.6 px; the crops of stage 2, 16 px, allow at most 7.5',
        ),
        ({'stages': [Stage(100, 64, AREA, {'yours': 1})]}, "stage 1: unknown source 'yours'"),
        ({'stages': [Stage(100, 64, AREA, {'mine': 0})]}, 'must be above 0'),
        ({'stages': [Stage(100, 64, AREA, {'mine': -1})]}, 'must be above 0'),
        (
            {'stages': [Stage(100, 64, AREA, {'more': 1})]},
            "stage 1: the source 'more' has no labels",
        ),
        (
            {'stages': [STAGES[0], Stage(100, 64, AREA, {'mine': 1}, self_train=['more'])]},
            "stage 2: the source 'more' of self_train is not in its shares",
        ),
        (
            {'stages': [STAGES[0], Stage(100, 64, AREA, {'mine': 1, 'more': 0}, ['more'])]},
            "stage 2: the source 'more' of self_train is not in its shares",
        ),
        (
            {'stages': [Stage(100, 64, AREA, self_train=['more'])]},
            "stage 1 has self_train, but the weights of start_from 'pretrained' cannot make",
        ),
    ],
)
def test_an_invalid_configuration_is_rejected(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_the_old_name_of_pseudo_label_threshold_is_deprecated(
    caplog: pytest.LogCaptureFixture,
) -> None:
    changed = config(sure=0.7)
    assert (changed.pseudo_label_threshold, changed.sure) == (0.7, None)
    assert changed == config(pseudo_label_threshold=0.7)
    (line,) = caplog.messages
    assert line == 'the setting sure is deprecated; its new name is pseudo_label_threshold'


@pytest.mark.parametrize(
    ('make', 'message'),
    [
        (
            lambda: LossConfig(region='iou'),
            "loss.region is 'iou'; it must be 'dice' or 'lovasz' or",
        ),
        (lambda: LossConfig(boundary_width=-1), 'loss.boundary_width must be 0 or more, not -1'),
        (lambda: OptimizerConfig(name='lion'), "optimizer.name is 'lion'"),
        (lambda: OptimizerConfig(schedule='step'), "optimizer.schedule is 'step'"),
        (lambda: OptimizerConfig(ema_decay=1.0), 'optimizer.ema_decay'),
        (lambda: OptimizerConfig(warmup_steps=-1), 'optimizer.warmup_steps must be 0 or more'),
        (lambda: MachineConfig(accumulate=0), 'machine.accumulate must be 1 or more, not 0'),
        (
            lambda: MachineConfig(devices=0),
            'machine.devices must be auto, a number from 1, .* not 0',
        ),
        (lambda: MachineConfig(devices=-7), 'machine.devices must be auto, .* not -7'),
        (lambda: MachineConfig(devices='gpu'), "machine.devices must be auto, .* not 'gpu'"),
        (lambda: Stage(100, 0, AREA), 'crop must be 1 or more'),
        (lambda: Stage(100, 64, (0.0, 1.0)), r'area is \[0.0, 1.0\]'),
        (lambda: Stage(100, 64, (0.9, 0.2)), 'two shares in ascending order'),
    ],
)
def test_an_invalid_setting_is_reported_with_the_legal_values(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize('region', ['dice', 'lovasz', 'none'])
def test_every_region_loss_can_be_configured(region: str) -> None:
    assert LossConfig(region=region).region == region


def test_the_maximum_blur_works_with_the_crop_size() -> None:
    stages = [Stage(100, 16, AREA)]
    config(stages=stages, augmentation=blurred(100, chance=0))
    augmentation = config(stages=stages, augmentation=blurred(7.5)).augmentation
    image = tv_tensors.Image(torch.zeros(3, 16, 16, dtype=torch.uint8))
    labels = tv_tensors.Mask(torch.zeros(2, 16, 16, dtype=torch.int32))
    assert photometric_transform(augmentation)(image, labels)[0].shape == (3, 16, 16)


def test_the_first_stage_may_use_self_training_with_trained_initial_weights() -> None:
    stage = Stage(100, 64, AREA, {'more': 1}, self_train=['more'])
    assert config(stages=[stage], start_from='mine.safetensors').stages == [stage]


def test_a_step_belongs_to_its_stage() -> None:
    assert [config().stage_at(step) for step in (0, 99, 100, 299, 5000)] == [0, 0, 1, 1, 1]
    assert config().steps == 300


def test_the_metadata_describe_the_training() -> None:
    metadata = config(output_stride=8, data_description='my quarry').metadata()
    assert (metadata.training_size, metadata.output_stride, metadata.data) == (
        (96, 96),
        8,
        'my quarry',
    )
    assert metadata.classes == ('background', 'rock')


def test_rim_is_the_last_class_and_not_a_rock_class() -> None:
    metadata = config(rim_width=1.5).metadata()
    assert metadata.classes == ('background', 'rock', 'rim')
    assert metadata.rock_ids == (1,)


@pytest.mark.parametrize('devices', ['auto', 1, 3, -1, '2', '0,1', '0,'])
def test_devices_may_be_a_number_a_list_or_auto(devices: int | str) -> None:
    assert MachineConfig(devices=devices).devices == devices
