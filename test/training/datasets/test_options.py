# SPDX-License-Identifier: Apache-2.0
"""The settings of a source are given on the command line as in a configuration."""

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
def test_an_invalid_class_map_is_rejected(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match='must be like'):
        read_class_map(text)


def test_missing_options_have_the_defaults_of_the_configuration(
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
def test_a_folder_of_images_is_rejected_for_formats_that_do_not_use_it(kind: str) -> None:
    with pytest.raises(ValueError, match=f'images is for coco and labelme, not for {kind}'):
        DatasetConfig('data', kind, images='elsewhere')
