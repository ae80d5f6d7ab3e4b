# SPDX-License-Identifier: Apache-2.0
"""Crops depend only on the seed and their index, not on workers, processes or interruptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from training.augmentation import AugmentationConfig
from training.config import DistillConfig, Stage, TrainingConfig
from training.data_module import (
    CropLoader,
    EpochSampler,
    RandomCrops,
    RockDataModule,
    WholeImages,
    stage_shares,
)
from training.datasets import IGNORE, DataError, DatasetConfig, Labelled, find_samples

AREA = (0.5, 1.0)
STILL = AugmentationConfig(
    rotation_p=0,
    perspective_p=0,
    brightness=0,
    contrast=0,
    saturation=0,
    hue=0,
    exposure_p=0,
    gamma_p=0,
    white_balance_p=0,
    blur_p=0,
    motion_blur_p=0,
    resolution_p=0,
    noise_p=0,
    grey_p=0,
    jpeg_p=0,
    paste_p=0,
)


@dataclass(frozen=True)
class Flat:
    """An image of one grey value, with touching rocks in the middle."""

    grey: int
    rocks: int = 0
    class_id: int = 0

    def read(self) -> Labelled:
        image = np.full((40, 40, 3), self.grey, np.uint8)
        classes = np.full((40, 40), self.class_id, np.uint8)
        instances = np.zeros((40, 40), np.int32)
        for number in range(self.rocks):
            at = (slice(10, 30), slice(10 + 10 * number, 20 + 10 * number))
            image[at], classes[at], instances[at] = 200, 1, number + 1
        return Labelled(image, classes, instances)


def config_of(**changes: object) -> TrainingConfig:
    given: dict[str, object] = {
        'sources': {'one': DatasetConfig('1'), 'two': DatasetConfig('2')},
        'run': 'unused',
        'stages': [Stage(4, 32, AREA), Stage(2, 48, AREA)],
        'batch_size': 4,
        'steps_per_epoch': 2,
        'augmentation': STILL,
    }
    return TrainingConfig(**(given | changes))  # type: ignore[arg-type]


def test_a_validation_sample_is_a_whole_image_with_class_ids(discs: Path) -> None:
    samples = find_samples(DatasetConfig(str(discs)), 'all', ['background', 'rock'])
    image, classes = WholeImages(samples)[0]
    assert image.shape == (3, 80, 96)
    assert image.dtype == torch.uint8
    assert classes.dtype == torch.int64
    assert set(classes.unique().tolist()) == {0, 1}
    assert image.float().mean(dim=0)[classes == 1].mean() > 120


def test_image_and_labels_stay_aligned(discs: Path) -> None:
    samples = find_samples(DatasetConfig(str(discs)), 'all', ['background', 'rock'])
    rotated = replace(STILL, rotation_p=1.0, perspective_p=1.0)
    config = config_of(augmentation=rotated, sources={'one': DatasetConfig(str(discs))})
    crops = RandomCrops({'one': samples}, config, 0)
    correct = total = 0
    for draw in range(8):
        image, classes, clean = crops[draw]
        assert not clean.numel(), 'only teachers need the crop without augmentation'
        labelled = classes != IGNORE
        bright = image.float().mean(dim=0) > 105
        correct += int((bright == (classes == 1))[labelled].sum())
        total += int(labelled.sum())
    assert correct > 0.9 * total


def test_crops_have_the_size_of_their_stage() -> None:
    sources = {'one': [Flat(50)], 'two': [Flat(90)]}
    first, second = (RandomCrops(sources, config_of(), stage) for stage in (0, 1))
    assert first[0][0].shape == (3, 32, 32)
    assert second[0][0].shape == (3, 48, 48)
    assert second[0][1].shape == (48, 48)
    assert len(first) == 24


def greys(crops: RandomCrops, draws: int) -> list[int]:
    return [int(crops[draw][0][0, 0, 0]) for draw in range(draws)]


@pytest.mark.parametrize(
    ('shares', 'expected'), [({'one': 3, 'two': 1}, 0.75), ({'two': 5}, 0.0), ({}, 0.25)]
)
def test_sources_have_their_shares_of_the_crops(shares: dict[str, float], expected: float) -> None:
    config = config_of(stages=[Stage(100, 8, AREA, shares)])
    sources = {'one': [Flat(50)], 'two': [Flat(90)] * 3}
    drawn = greys(RandomCrops(sources, config, 0), 120)
    assert drawn.count(50) / 120 == pytest.approx(expected, abs=0.12)
    assert drawn.count(50) + drawn.count(90) == 120


def test_every_image_of_a_source_is_used() -> None:
    config = config_of(stages=[Stage(100, 8, AREA, {'one': 1})])
    sources = {'one': [Flat(grey) for grey in range(6)], 'two': [Flat(90)]}
    assert set(greys(RandomCrops(sources, config, 0), 50)) == set(range(6))


def test_teachers_get_the_crop_before_photometric_augmentation() -> None:
    sources = {'one': [Flat(50)], 'two': [Flat(50)]}
    augmentation = replace(STILL, exposure=(0.5, 0.5), exposure_p=1.0)
    distill = DistillConfig(['teacher.safetensors'])
    config = config_of(augmentation=augmentation, distill=distill)
    image, _, clean = RandomCrops(sources, config, 0)[0]
    assert clean.shape == image.shape
    assert (clean == 50).all()
    assert (image == 25).all()


def test_rocks_of_another_image_are_pasted_with_the_probability_paste_p() -> None:
    sources = {'one': [Flat(50)], 'two': [Flat(50, rocks=1)]}
    stages = [Stage(100, 32, (1.0, 1.0), {'one': 3, 'two': 1})]
    rocks = {}
    for chance in (0.0, 1.0):
        augmentation = replace(STILL, paste_p=chance, paste_tint_p=0, paste_scale=(1.0, 1.0))
        crops = RandomCrops(sources, config_of(stages=stages, augmentation=augmentation), 0)
        drawn = [crops[draw] for draw in range(40)]
        rocks[chance] = sum(bool((classes == 1).any()) for _, classes, _ in drawn)
        for image, classes, _ in drawn:
            assert (image[0][classes == 1] > 90).all(), 'a label without a pasted rock'
    assert rocks[1.0] > rocks[0.0] + 3


@pytest.mark.parametrize('width', [0.0, 2.0])
def test_touching_rocks_have_rims_if_rim_width_is_above_0(width: float) -> None:
    config = config_of(rim_width=width, stages=[Stage(100, 40, (1.0, 1.0), {'one': 1})])
    crops = RandomCrops({'one': [Flat(50, rocks=2)], 'two': []}, config, 0)
    rims = [int((crops[draw][1] == 2).sum()) for draw in range(5)]
    assert all(rims) if width else not any(rims)


def test_a_single_rock_has_no_rim() -> None:
    config = config_of(rim_width=2.0, stages=[Stage(100, 40, (1.0, 1.0), {'one': 1})])
    crops = RandomCrops({'one': [Flat(50, rocks=1)], 'two': []}, config, 0)
    assert not any((crops[draw][1] == 2).any() for draw in range(5))


def test_ignored_pixels_stay_ignored() -> None:
    config = config_of(
        rim_width=2.0,
        stages=[Stage(100, 40, AREA, {'one': 1})],
        augmentation=AugmentationConfig(paste_p=0),
    )
    crops = RandomCrops({'one': [Flat(50, class_id=IGNORE)], 'two': []}, config, 0)
    assert all((crops[draw][1] == IGNORE).all() for draw in range(10))


def test_crops_do_not_depend_on_the_number_of_workers() -> None:
    config = config_of(augmentation=AugmentationConfig(paste_p=1.0))
    crops = RandomCrops({'one': [Flat(50, rocks=1)], 'two': [Flat(90, rocks=2)]}, config, 0)
    without_workers, with_workers = (
        list(DataLoader(crops, 2, sampler=EpochSampler(config, 1), num_workers=workers))
        for workers in (0, 2)
    )
    assert len(without_workers) == 4
    for one, two in zip(without_workers, with_workers, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be decoded."""

    def read(self) -> Labelled:
        raise DataError('images/3.png: does not decode as an image (0 bytes)')


@pytest.mark.parametrize('workers', [0, 1])
def test_a_file_that_becomes_unreadable_is_reported_in_one_line(workers: int) -> None:
    crops = RandomCrops({'one': [Unreadable()], 'two': [Unreadable()]}, config_of(), 0)
    with pytest.raises(DataError) as raised:
        list(CropLoader(crops, 2, sampler=EpochSampler(config_of(), 0), num_workers=workers))
    assert str(raised.value) == 'images/3.png: does not decode as an image (0 bytes)'


def test_the_images_in_memory_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('training.data_module.CACHED_BYTES', 2 * 40 * 40 * 8)
    samples = [Flat(50), Flat(60), Flat(70)]
    crops = RandomCrops({'one': samples, 'two': []}, config_of(), 0)
    for sample in samples:
        crops._read(sample)
    assert list(crops._images) == [id(sample) for sample in samples[1:]]


@pytest.mark.parametrize('ranks', [1, 2, 4])
def test_processes_share_the_crops_of_each_step_without_gap_or_overlap(ranks: int) -> None:
    config = config_of()
    for epoch in range(3):
        shares = [list(EpochSampler(config, epoch, rank, ranks)) for rank in range(ranks)]
        assert [len(EpochSampler(config, epoch, rank, ranks)) for rank in range(ranks)] == [
            len(share) for share in shares
        ]
        for step in range(2):
            first, each = (2 * epoch + step) * 4, 4 // ranks
            parts = [share[step * each : (step + 1) * each] for share in shares]
            assert sorted(draw for part in parts for draw in part) == list(range(first, first + 4))


def test_making_a_crop_does_not_change_the_global_random_state() -> None:
    crops = RandomCrops({'one': [Flat(50)], 'two': [Flat(90)]}, config_of(), 0)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    crops[0]
    assert torch.equal(torch.rand(3), expected)


def test_crops_depend_on_the_seed() -> None:
    sources = {'one': [Flat(50, rocks=2)], 'two': [Flat(90)]}
    one, two = (RandomCrops(sources, config_of(seed=seed), 0) for seed in (0, 1))
    assert any(not torch.equal(one[draw][0], two[draw][0]) for draw in range(4))


def test_a_source_of_a_stage_without_train_images_is_an_error_before_the_training(
    discs: Path, own_discs: Path
) -> None:
    sources = {
        'one': DatasetConfig(str(discs)),
        'two': DatasetConfig(str(own_discs), val_fraction=1.0),
    }
    stages = [Stage(2, 32, AREA, {'one': 1}), Stage(2, 32, AREA, {'one': 1, 'two': 1})]
    with pytest.raises(DataError, match='source two: no image in split train; stage 2 uses it'):
        RockDataModule(config_of(sources=sources, stages=stages))


def test_data_without_a_labelled_val_image_are_an_error(discs: Path) -> None:
    sources = {'one': DatasetConfig(str(discs), val_fraction=0.0)}
    with pytest.raises(DataError, match='no source has a labelled image in split val'):
        RockDataModule(config_of(sources=sources))


def test_images_without_labels_are_used_only_in_stages_with_self_training() -> None:
    sources = {'one': DatasetConfig('1'), 'two': DatasetConfig('2', format='unlabelled')}
    stages = [Stage(2, 32, AREA), Stage(2, 32, AREA, self_train=['two'])]
    config = config_of(sources=sources, stages=stages)
    samples = {'one': [Flat(50)] * 2, 'two': [Flat(90)] * 5}
    assert stage_shares(samples, config, 0) == {'one': 2.0}
    assert stage_shares(samples, config, 1) == {'one': 2.0, 'two': 5.0}


def damage_image(data: Path) -> None:
    (data / 'images/3.png').write_bytes(b'')


def damage_mask(data: Path) -> None:
    (data / 'masks/3.png').write_bytes(b'no image')


@pytest.mark.parametrize('damage', [damage_image, damage_mask])
def test_the_check_reports_invalid_files(own_discs: Path, damage: Callable[[Path], None]) -> None:
    data = RockDataModule(config_of(sources={'one': DatasetConfig(str(own_discs))}))
    data.check()
    damage(own_discs)
    with pytest.raises(DataError, match=r'3\.png'):
        data.check()
