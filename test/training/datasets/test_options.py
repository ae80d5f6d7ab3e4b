# SPDX-License-Identifier: Apache-2.0
"""A source's settings are told on the command line as a configuration tells them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from training.datasets import DatasetConfig
from training.datasets.options import add_dataset_options, dataset_from_options, read_class_map


@pytest.mark.parametrize(
    'text', ['{0: background, 128: ignore}', '{"0": "background", "128": "ignore"}']
)
def test_a_class_map_is_yaml_or_json(text: str) -> None:
    assert read_class_map(text) == {'0': 'background', '128': 'ignore'}


@pytest.mark.parametrize('text', ['rock', '[rock]', '{rock: 1}', '{', ''])
def test_what_is_no_class_map_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match='must be like'):
        read_class_map(text)


def test_what_is_not_given_is_guessed_or_as_configured(
    write_coco: Callable[..., Path], tmp_path: Path
) -> None:
    write_coco({})
    parser = argparse.ArgumentParser()
    add_dataset_options(parser)
    assert dataset_from_options(tmp_path, parser.parse_args([])) == DatasetConfig(
        str(tmp_path), 'coco'
    )
    given = ['--format', 'masks', '--class-map', '{9: rock}', '--unlabelled', 'ignore']
    given += ['--val-fraction', '0.5', '--group', '(a)']
    expected = DatasetConfig(str(tmp_path), 'masks', {'9': 'rock'}, 'ignore', 0.5, '(a)')
    assert dataset_from_options(tmp_path, parser.parse_args(given)) == expected
    images = dataset_from_options(tmp_path, parser.parse_args(['--images', 'elsewhere']))
    assert images == DatasetConfig(str(tmp_path), 'coco', images='elsewhere')


@pytest.mark.parametrize('kind', ['masks', 'unlabelled'])
def test_images_that_lie_elsewhere_are_for_formats_that_name_their_images(kind: str) -> None:
    with pytest.raises(ValueError, match=f'images is for coco and labelme, not for {kind}'):
        DatasetConfig('data', kind, images='elsewhere')
