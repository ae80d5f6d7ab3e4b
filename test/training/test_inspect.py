# SPDX-License-Identifier: Apache-2.0
"""Statistics and contact sheets of data sets, and the report of invalid files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from training.datasets import DatasetConfig, Labelled, find_samples, fingerprint
from training.datasets.contact_sheet import OUTLINE, pages, thumbnail
from training.datasets.statistics import Statistics
from training.datasets.unlabelled import UnlabelledSample
from training.inspect import main

POLYGONS = [[10, 10, 40, 10, 40, 30, 10, 30], [40, 10, 60, 10, 60, 30, 40, 30]]


@pytest.fixture
def belt(tmp_path: Path) -> Path:
    """A COCO data set of five images of 96×80 px with two stones of 600 and 400 px each."""
    folder = tmp_path / 'belt'
    (folder / 'images').mkdir(parents=True)
    annotations: list[dict[str, Any]] = []
    for number in range(5):
        cv2.imwrite(str(folder / 'images' / f'{number}.png'), np.full((80, 96, 3), 90, np.uint8))
        annotations += [
            {'id': 10 * number + part, 'image_id': number, 'category_id': 1, 'segmentation': [flat]}
            for part, flat in enumerate(POLYGONS)
        ]
    data = {
        'images': [{'id': n, 'file_name': f'{n}.png'} for n in range(5)],
        'categories': [{'id': 1, 'name': 'stone'}, {'id': 2, 'name': 'unused'}],
        'annotations': annotations,
    }
    (folder / 'annotations.coco.json').write_text(json.dumps(data))
    return folder


def summary_of(out: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((out / 'summary.json').read_text())
    return summary


def test_images_pixels_and_rocks_are_counted(belt: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    rows = ['id,split,group', '0,train,x', '1,train,x', '2,train,y', '3,val,z', '4,,']
    (belt / 'manifest.csv').write_text('\n'.join(rows))
    assert main([str(belt), '--class-map', '{stone: rock}', '-o', str(out)]) == 0
    summary = summary_of(out)
    assert summary['classes'] == ['background', 'rock']
    (source,) = summary['sources']
    assert source['problems'] == []
    assert (source['format'], set(source['splits'])) == ('coco', {'train', 'val', ''})
    train = source['splits']['train']
    assert (train['images'], train['groups']) == (3, 2)
    assert (train['width']['min'], train['height']['max']) == (96, 80)
    share = 1000 / (96 * 80)
    assert train['share'] == pytest.approx({'background': 1 - share, 'rock': share, 'ignored': 0})
    rocks = train['instances']['rock']
    assert (rocks['count'], rocks['area']['min'], rocks['area']['max']) == (6, 400, 600)


def test_without_a_class_map_the_classes_are_the_labels(belt: Path, tmp_path: Path) -> None:
    assert main([str(belt), '-o', str(tmp_path / 'out')]) == 0
    assert summary_of(tmp_path / 'out')['classes'] == ['background', 'rock', 'stone']


def test_several_sources_are_reported_together(
    belt: Path, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(belt), str(discs)]) == 0
    output = capsys.readouterr().out
    assert f'belt: {belt} (coco)\n' in output
    assert f'{discs} (masks)\n' in output
    assert 'no instances' in output
    assert output.count('  problems: 0\n') == 2


def test_sources_with_the_same_name_have_separate_sheets(belt: Path, tmp_path: Path) -> None:
    out = tmp_path / 'out'
    (belt / 'manifest.csv').write_text('id,split\n0,val\n1,val\n2,val\n3,val\n4,val\n')
    assert main([str(belt), str(belt), '-o', str(out)]) == 0
    names = sorted(file.name for file in out.glob('*.jpg'))
    assert names == ['belt_2_val_1.jpg', 'belt_val_1.jpg']


def test_the_sources_of_a_configuration_are_inspected_with_their_class_maps(
    belt: Path, discs: Path, tmp_path: Path
) -> None:
    config = tmp_path / 'training.yaml'
    ore = {'path': str(belt), 'format': 'coco', 'class_map': {'stone': 'pebble'}}
    settings = {
        'sources': {'ore': ore, 'discs': {'path': str(discs)}},
        'classes': ['background', 'rock', 'pebble'],
        'rock_classes': ['rock', 'pebble'],
        'run': 'unused',
        'stages': [{'steps': 100, 'crop': 32, 'area': [0.5, 1.0]}],
    }
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    assert main(['--config', str(config), '-o', str(tmp_path / 'out')]) == 0
    output = summary_of(tmp_path / 'out')
    assert [source['name'] for source in output['sources']] == ['ore', 'discs']
    assert output['sources'][0]['splits']['train']['instances'].keys() == {'pebble'}
    assert (tmp_path / 'out/ore_train_1.jpg').exists()


def test_a_class_map_may_contain_the_class_rim(own_discs: Path, tmp_path: Path) -> None:
    config = tmp_path / 'training.yaml'
    mine = {'path': str(own_discs), 'class_map': {'0': 'background', '255': 'rim'}}
    settings = {
        'sources': {'mine': mine},
        'rim_width': 2.0,
        'run': 'unused',
        'stages': [{'steps': 100, 'crop': 32, 'area': [0.5, 1.0]}],
    }
    config.write_text(yaml.safe_dump(settings))
    assert main(['--config', str(config), '-o', str(tmp_path / 'out')]) == 0
    assert summary_of(tmp_path / 'out')['classes'] == ['background', 'rock', 'rim']


def test_invalid_files_are_reported_and_the_others_counted(
    own_discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_discs / 'images/1.png').write_bytes(b'')
    (own_discs / 'masks/3.png').write_bytes(b'')
    (own_discs / 'images/9.png').write_bytes(b'')
    out = tmp_path / 'out'
    assert main([str(own_discs), '--val-fraction', '0', '-o', str(out)]) == 1
    output = capsys.readouterr().out
    assert 'train: 3 images, 3 groups\n' in output
    assert 'not used: 1 images without labels' in output
    assert 'problems: 2\n' in output
    assert 'images/1.png: does not decode' in output
    assert 'masks/3.png: does not decode' in output
    (source,) = summary_of(out)['sources']
    assert [problem['name'] for problem in source['problems']] == ['1', '3']


def test_control_characters_in_file_names_are_replaced_in_the_output(
    own_discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(b'\xff\x1b')
    for folder in ('images', 'masks'):
        (own_discs / folder / '1.png').rename(own_discs / folder / f'{name}.png')
    samples = find_samples(DatasetConfig(str(own_discs)), 'all', ('background', 'rock'))
    assert fingerprint(samples)
    (own_discs / f'masks/{name}.png').write_bytes(b'')
    out = tmp_path / 'out'
    assert main([str(own_discs), '--val-fraction', '0', '-o', str(out)]) == 1
    output = capsys.readouterr().out
    assert 'masks/??.png: does not decode' in output
    assert all(line.isprintable() for line in output.splitlines())
    (source,) = summary_of(out)['sources']
    assert [problem['name'] for problem in source['problems']] == [name]


def test_too_many_classes_are_an_error(belt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(belt), '--classes', ','.join(map(str, range(256)))]) == 1
    assert 'there are 256 classes; the maximum is 255' in capsys.readouterr().out


def test_after_an_invalid_source_the_next_one_is_inspected(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / 'nowhere'), str(discs)]) == 1
    output = capsys.readouterr().out
    assert 'nowhere: must be a folder with images/, and masks/' in output
    assert f'{discs} (masks)\n  train: ' in output
    assert 'problems: 1\n' in output


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['data', '--format', 'voc'],
        ['data', '--class-map', 'rock'],
        ['data', '--class-map', '{'],
        ['data', '--val-fraction', '2'],
        ['data', '--group', '('],
        ['data', '--max-images', '-1'],
        ['data', '--config', 'training.yaml'],
    ],
)
def test_invalid_arguments_end_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match='2'):
        main(arguments)
    assert 'python -m training.inspect: error: ' in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_written_is_reported_in_one_line(
    discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'out').write_text('a file')
    assert main([str(discs), '-o', str(tmp_path / 'out')]) == 1
    expected = f'training.inspect: {tmp_path / "out"}: Not a directory\n'
    assert capsys.readouterr().err.endswith(expected)


def test_sheets_show_the_images_of_each_split(belt: Path, tmp_path: Path) -> None:
    (belt / 'manifest.csv').write_text('id,split\n0,train\n1,train\n2,train\n3,train\n4,val\n')
    assert main([str(belt), '-o', str(tmp_path / 'out')]) == 0
    names = sorted(file.name for file in (tmp_path / 'out').glob('*.jpg'))
    assert names == ['belt_train_1.jpg', 'belt_val_1.jpg']
    sheet = cv2.imread(str(tmp_path / 'out/belt_train_1.jpg'))
    assert sheet is not None
    assert sheet.std() > 10


@pytest.mark.parametrize(('max_images', 'drawn'), [(0, 5), (2, 2), (9, 5)])
def test_at_most_max_images_are_drawn(
    belt: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_images: int, drawn: int
) -> None:
    names: list[str] = []
    monkeypatch.setattr(
        'training.inspect.thumbnail',
        lambda labelled, name: names.append(name) or thumbnail(labelled, name),
    )
    options = ['--val-fraction', '0', '--max-images', str(max_images)]
    main([str(belt), *options, '-o', str(tmp_path / 'out')])
    assert len(set(names)) == len(names) == drawn


def labelled_of(classes: np.ndarray, instances: np.ndarray | None = None) -> Labelled:
    image = np.full((*classes.shape, 3), 100, np.uint8)
    return Labelled(image, classes.astype(np.uint8), instances)


def test_a_thumbnail_tints_rock_and_outlines_each_instance() -> None:
    classes = np.zeros((316, 316), np.uint8)
    classes[100:200, 100:300] = 1
    instances = classes.astype(np.int32)
    instances[:, 200:] *= 2
    plain, apart = (thumbnail(labelled_of(classes, numbers), 'a') for numbers in (None, instances))
    assert plain[50, 50].tolist() == [100, 100, 100]
    assert plain[150, 150].tolist() != [100, 100, 100]
    border = (apart[150, 195:205] == OUTLINE).all(axis=1)
    assert border.any()
    assert not (plain[150, 195:205] == OUTLINE).all(axis=1).any()


def test_a_completely_ignored_image_is_not_tinted() -> None:
    unknown = thumbnail(labelled_of(np.full((50, 100), 255)), 'a')
    assert unknown[50, 50].tolist() == [100, 100, 100]
    half = np.full((50, 100), 255)
    half[:, 50:] = 0
    assert thumbnail(labelled_of(half), 'a')[50, 50].tolist() != [100, 100, 100]


def test_all_pages_except_the_last_are_full() -> None:
    cells = [np.full((3, 2, 3), number, np.uint8) for number in range(1, 23)]
    first, last = pages(cells)
    assert first.shape == (15, 8, 3)
    assert last.shape == (3, 8, 3)
    assert first[3, 2].tolist() == [6, 6, 6]
    assert last[0].max(axis=1).tolist() == [21, 21, 22, 22, 0, 0, 0, 0]


def test_rocks_under_ignored_pixels_are_not_counted() -> None:
    classes = np.zeros((4, 6), np.uint8)
    classes[:, :2], classes[:, 4:] = 255, 1
    instances = np.zeros((4, 6), np.int32)
    instances[:, :2], instances[:, 4:] = 1, 2
    statistics = Statistics(['background', 'rock'])
    sample = UnlabelledSample(source='s', name='a', image=Path('a.png'), group='g')
    statistics.add(sample, labelled_of(classes, instances))
    figures = statistics.figures()
    assert figures['instances'].keys() == {'rock'}
    assert figures['instances']['rock']['count'] == 1
    assert figures['share'] == pytest.approx({'background': 1 / 3, 'rock': 1 / 3, 'ignored': 1 / 3})


def test_names_that_are_not_utf_8_are_read_and_written(own_discs: Path, tmp_path: Path) -> None:
    for folder in ('images', 'masks'):
        file = own_discs / folder / '0.png'
        file.rename(os.fsdecode(os.fsencode(own_discs / folder) + b'/stone\xff.png'))
    assert main([str(own_discs), '-o', str(tmp_path / 'out')]) == 0
    (source,) = summary_of(tmp_path / 'out')['sources']
    assert source['problems'] == []
    assert sum(split['images'] for split in source['splits'].values()) == 5
    assert fingerprint(find_samples(DatasetConfig(str(own_discs)), 'all', ['background', 'rock']))
