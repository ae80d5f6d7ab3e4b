# SPDX-License-Identifier: Apache-2.0
"""A scene is in one split only, and new images do not change the split of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from training.datasets import DataError, DatasetConfig, MissingDataError, Sample
from training.datasets.splits import draw, halve

Finder = Callable[..., list[Sample]]
Writer = Callable[..., None]


def names(samples: list[Sample]) -> list[str]:
    return [sample.name for sample in samples]


def test_the_manifest_assigns_images_to_splits(
    find: Finder, write_masks: Writer, tmp_path: Path
) -> None:
    write_masks('0', '1', '2', '3', '4')
    rows = ['id,sol,split', '0,9,train', '1,9,val', '2,9,train', '3,9,other']
    (tmp_path / 'manifest.csv').write_text('\n'.join(rows))
    assert names(find('masks', 'train')) == ['0', '2']
    assert names(find('masks', 'val')) == ['1']
    assert names(find('masks', 'all')) == ['0', '1', '2', '3', '4']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('name,set\n0,train\n', 'must have the columns id and split'),
        ('id,split\n0,train\n9,val\n', "lists '9', but there is no such labelled image"),
        ('id,split\n0,train\n0,val\n', "lists '0' twice"),
        ('id,split,group\n0,train,x\n1,val,x\n', 'has x in train and in val'),
    ],
)
def test_an_invalid_manifest_is_reported(
    find: Finder, write_masks: Writer, tmp_path: Path, text: str, message: str
) -> None:
    write_masks('0', '1')
    (tmp_path / 'manifest.csv').write_text(text)
    with pytest.raises(DataError, match=rf'manifest\.csv: {message}'):
        find('masks')


def test_a_manifest_with_a_byte_order_mark_is_read(
    find: Finder, write_masks: Writer, tmp_path: Path
) -> None:
    write_masks('0', '1')
    (tmp_path / 'manifest.csv').write_bytes(b'\xef\xbb\xbfid,split\r\n0,train\r\n1,val\r\n')
    assert names(find('masks', 'val')) == ['1']


def test_a_manifest_that_is_not_utf_8_is_reported(
    find: Finder, write_masks: Writer, tmp_path: Path
) -> None:
    write_masks('0')
    (tmp_path / 'manifest.csv').write_bytes(b'id,split\n\xff,train\n')
    with pytest.raises(DataError, match=r'manifest\.csv: cannot be read'):
        find('masks')


def test_the_regular_expression_selects_the_scene(find: Finder, write_masks: Writer) -> None:
    write_masks(*(f'{sol}_{image}' for sol in ('12', '7', '30', '41') for image in 'abc'))
    train, val = (find('masks', split, group=r'^(\d+)_') for split in ('train', 'val'))
    assert {sample.group for sample in train + val} == {'12', '7', '30', '41'}
    assert not {s.group for s in train} & {s.group for s in val}
    assert len(train) + len(val) == 12


def test_a_scene_in_two_splits_of_the_manifest_is_an_error(
    find: Finder, write_masks: Writer, tmp_path: Path
) -> None:
    write_masks('12_a', '12_b')
    (tmp_path / 'manifest.csv').write_text('id,split\n12_a,train\n12_b,val\n')
    assert len(find('masks')) == 2
    with pytest.raises(DataError, match='has 12 in train and in val'):
        find('masks', group=r'^(\d+)_')


def test_an_image_name_without_a_scene_is_an_error(find: Finder, write_masks: Writer) -> None:
    write_masks('quarry')
    with pytest.raises(DataError, match="does not match the image name 'quarry'"):
        find('masks', group=r'^(\d+)_')


def test_the_draw_is_reproducible_and_close_to_the_fraction() -> None:
    groups = [str(number) for number in range(1000)]
    held_out = draw(groups, 0.2)
    assert draw(reversed(groups), 0.2) == held_out
    assert 150 < len(held_out) < 250
    assert sorted(held_out)[:3] == ['101', '105', '109']  # on any machine, in any version


def test_new_groups_do_not_change_the_split_of_others() -> None:
    groups = [str(number) for number in range(100)]
    more = [*groups, *(f'new {number}' for number in range(50))]
    assert draw(more, 0.3) & set(groups) == draw(groups, 0.3)


@pytest.mark.parametrize('fraction', [1e-9, 0.5, 1 - 1e-9])
def test_of_two_groups_one_is_in_each_split(fraction: float) -> None:
    assert len(draw(['a', 'b'], fraction)) == 1


def test_fractions_of_0_and_1_leave_a_split_empty(find: Finder, write_masks: Writer) -> None:
    write_masks('0', '1', '2')
    assert names(find('masks', 'train', val_fraction=0)) == ['0', '1', '2']
    assert find('masks', 'val', val_fraction=0) == []
    assert names(find('masks', 'val', val_fraction=1)) == ['0', '1', '2']
    assert find('masks', 'train', val_fraction=1) == []


def test_an_empty_split_is_reported(find: Finder, write_masks: Writer, tmp_path: Path) -> None:
    write_masks('0')
    with pytest.raises(DataError, match="no labelled image in split 'val'"):
        find('masks', 'val')
    (tmp_path / 'masks/0.png').unlink()
    for split in ('train', 'val', 'all'):
        with pytest.raises(DataError, match=f"no labelled image in split '{split}'"):
            find('masks', split, val_fraction=0)


def test_an_unknown_split_is_rejected(find: Finder) -> None:
    with pytest.raises(ValueError, match="split 'test' is unknown; expected: train, val, all"):
        find('masks', 'test')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'format': 'voc'}, "format 'voc' is unknown; expected: masks, coco, labelme, unlabelled"),
        ({'val_fraction': 1.5}, 'val_fraction must be 0 to 1, not 1.5'),
        ({'val_fraction': float('nan')}, 'val_fraction must be 0 to 1, not nan'),
        ({'group': '('}, r"group '\(': invalid regular expression"),
        ({'group': 'sol'}, "group 'sol' needs parentheses"),
    ],
)
def test_an_invalid_setting_is_rejected(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DatasetConfig('data', **settings)  # type: ignore[arg-type]


def test_excluded_images_are_skipped_and_the_others_keep_their_split(
    find: Finder, write_masks: Writer, tmp_path: Path
) -> None:
    write_masks('0', '1', '2')
    (tmp_path / 'manifest.csv').write_text('id,split\n0,train\n1,val\n2,val\n')
    assert names(find('masks', 'all', exclude=['1'])) == ['0', '2']
    assert names(find('masks', 'val', exclude=['1'])) == ['2']
    with pytest.raises(DataError, match="has no image '9', which is listed in exclude"):
        find('masks', 'all', exclude=['9'])


def test_halves_have_whole_groups_and_similar_sizes_and_do_not_depend_on_order() -> None:
    groups = [f'sol {number // 2}' for number in range(40)]
    halves = halve(groups)
    assert halves[::2] == halves[1::2], 'a group is in one half only'
    assert halves.count('tune') == halves.count('report') == 20
    assert halve(groups[::-1])[::-1] == halves
    assert halves[:20] != ['report'] * 20


def test_a_single_group_is_reported_and_never_tuned_on() -> None:
    assert halve(['a', 'a']) == ['report', 'report']
    assert halve([]) == []


def test_missing_data_and_invalid_data_raise_different_errors(
    find: Finder, write_masks: Writer, tmp_path: Path
) -> None:
    with pytest.raises(MissingDataError, match='nowhere'):
        find('masks', path='nowhere')
    write_masks('0', '1')
    (tmp_path / 'manifest.csv').write_text('id,split\n0,train\n1,train\n')
    with pytest.raises(MissingDataError, match="in split 'val'"):
        find('masks', 'val')
    (tmp_path / 'manifest.csv').write_text('id\n0\n')
    with pytest.raises(DataError) as raised:
        find('masks', 'val')
    assert not isinstance(raised.value, MissingDataError)
