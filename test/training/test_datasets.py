# SPDX-License-Identifier: Apache-2.0
"""Bad data is told by file name before a training starts; draws do not depend on the loader."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from training.config import Stage, TrainingConfig
from training.datasets import (
    CropsAndPictures,
    DataError,
    EpochOfDraws,
    Pictures,
    RandomCrops,
    Sample,
    find_samples,
    read_sample,
)

TWO = {0: 0, 255: 1}


def config_of(data: Path, **changes: object) -> TrainingConfig:
    stages = [Stage(4, 32, (0.5, 1.0)), Stage(2, 48, (0.5, 1.0))]
    settings: dict[str, object] = {'batch_size': 2, 'steps_per_epoch': 2, 'workers': 0}
    return TrainingConfig(str(data), 'unused', stages, **(settings | changes))  # type: ignore[arg-type]


def names(samples: list[Sample]) -> list[str]:
    return [sample.picture.stem for sample in samples]


def test_a_manifest_says_which_picture_is_in_which_split(own_discs: Path) -> None:
    lines = ['id,sol,split', '0,9,train', '1,9,val', '2,9,train', '3,9,elsewhere']
    (own_discs / 'manifest.csv').write_text('\n'.join(lines))
    assert names(find_samples(own_discs, 'train')) == ['0', '2']
    assert names(find_samples(own_discs, 'val')) == ['1']
    assert names(find_samples(own_discs, 'all')) == ['0', '1', '2', '3', '4']


def test_without_a_manifest_the_draw_is_always_the_same_and_leaves_nothing_out(
    own_discs: Path,
) -> None:
    train, val = (names(find_samples(own_discs, split, 0.4)) for split in ('train', 'val'))
    assert (len(train), len(val)) == (3, 2)
    assert sorted(train + val) == ['0', '1', '2', '3', '4']
    assert names(find_samples(own_discs, 'val', 0.4)) == val


def test_pictures_without_a_mask_and_other_files_are_left_out(own_discs: Path) -> None:
    (own_discs / 'masks/1.png').unlink()
    (own_discs / 'images/notes.txt').write_text('hello')
    assert names(find_samples(own_discs, 'all')) == ['0', '2', '3', '4']


def test_data_that_is_not_there_is_told_by_name(tmp_path: Path, own_discs: Path) -> None:
    with pytest.raises(DataError, match='nowhere: no folder with images/ and masks/'):
        find_samples(tmp_path / 'nowhere', 'all')
    (own_discs / 'manifest.csv').write_text('id,split\n0,train\n')
    with pytest.raises(DataError, match="no picture with a mask in split 'val'"):
        find_samples(own_discs, 'val')
    (own_discs / 'manifest.csv').write_text('name,set\n0,train\n')
    with pytest.raises(DataError, match=r'manifest\.csv: needs the columns id and split'):
        find_samples(own_discs, 'val')


def test_a_file_that_does_not_decode_is_told_by_name(own_discs: Path) -> None:
    sample = Sample(own_discs / 'images/0.png', own_discs / 'masks/0.png')
    sample.mask.write_bytes(b'no picture')
    with pytest.raises(DataError, match=r'masks/0\.png: does not decode'):
        read_sample(sample, TWO)
    sample.picture.write_bytes(b'')
    with pytest.raises(DataError, match=r'images/0\.png: does not decode'):
        read_sample(sample, TWO)


def test_a_mask_of_another_size_is_refused(own_discs: Path) -> None:
    sample = Sample(own_discs / 'images/0.png', own_discs / 'masks/0.png')
    cv2.imwrite(str(sample.mask), np.zeros((80, 90), np.uint8))
    with pytest.raises(DataError, match=r'masks/0\.png: is 90×80, its picture 96×80'):
        read_sample(sample, TWO)


def test_a_mask_value_that_nobody_named_is_refused_and_named(own_discs: Path) -> None:
    sample = Sample(own_discs / 'images/0.png', own_discs / 'masks/0.png')
    mask = np.zeros((80, 96), np.uint8)
    mask[5, 5] = 7
    cv2.imwrite(str(sample.mask), mask)
    with pytest.raises(DataError, match=r'has the value 7; legal is \[0, 255\]'):
        read_sample(sample, TWO)
    _, targets = read_sample(sample, {0: 1, 7: 255})
    assert (targets[5, 5], targets[0, 0]) == (255, 1)


def test_a_bad_file_shows_before_the_training_and_not_within(own_discs: Path) -> None:
    (own_discs / 'images/3.png').write_bytes(b'')
    with pytest.raises(DataError, match=r'images/3\.png'):
        CropsAndPictures(config_of(own_discs))


def test_a_picture_is_read_as_rgb(own_discs: Path) -> None:
    blue = np.zeros((80, 96, 3), np.uint8)
    blue[:, :, 0] = 200  # OpenCV writes BGR
    cv2.imwrite(str(own_discs / 'images/0.png'), blue)
    picture, targets = Pictures(find_samples(own_discs, 'all'), TWO)[0]
    assert picture.shape == (3, 80, 96)
    assert picture[:, 0, 0].tolist() == [0, 0, 200]
    assert targets.dtype == torch.int64


def test_picture_and_mask_stay_aligned_through_the_transforms(discs: Path) -> None:
    config = config_of(discs)
    crops = RandomCrops(find_samples(discs, 'all'), config)
    for draw in range(6):
        picture, targets = crops[draw]
        grey = picture.float().mean(dim=0)
        rock, ground = grey[targets == 1], grey[targets == 0]
        if len(rock) > 30 and len(ground) > 30:
            assert rock.mean() > ground.mean() + 20
            assert (
                (grey > (rock.mean() + ground.mean()) / 2) == (targets == 1)
            ).float().mean() > 0.9


def test_a_stage_gives_its_crop_size(discs: Path) -> None:
    crops = RandomCrops(find_samples(discs, 'all'), config_of(discs))
    assert crops[7][0].shape == (3, 32, 32)
    assert crops[8][0].shape == (3, 48, 48)
    assert crops[8][1].shape == (48, 48)
    assert len(crops) == 12


def test_every_picture_is_drawn_before_one_is_drawn_again(
    discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crops = RandomCrops(find_samples(discs, 'all'), config_of(discs))
    drawn: list[int] = []
    original = Pictures.__getitem__
    monkeypatch.setattr(
        Pictures, '__getitem__', lambda self, i: drawn.append(i) or original(self, i)
    )
    for draw in range(12):
        crops[draw]
    assert sorted(drawn[:6]) == sorted(drawn[6:]) == list(range(6))
    assert drawn[:6] != drawn[6:]


def test_draws_are_the_same_with_any_number_of_workers(discs: Path) -> None:
    config = config_of(discs)
    crops = RandomCrops(find_samples(discs, 'all'), config)
    alone, helped = (
        list(DataLoader(crops, 2, sampler=EpochOfDraws(config, 1), num_workers=workers))
        for workers in (0, 2)
    )
    assert len(alone) == 2
    for one, two in zip(alone, helped, strict=True):
        assert torch.equal(one[0], two[0])
        assert torch.equal(one[1], two[1])


def test_drawing_leaves_the_random_numbers_of_others_alone(discs: Path) -> None:
    crops = RandomCrops(find_samples(discs, 'all'), config_of(discs))
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    crops[0]
    assert torch.equal(torch.rand(3), expected)


def test_epochs_follow_one_another_without_gap_or_overlap(discs: Path) -> None:
    config = config_of(discs)
    draws = EpochOfDraws(config)
    seen: list[int] = []
    for epoch in range(3):
        draws.set_epoch(epoch)
        seen += list(draws)
    assert seen == list(range(12))
