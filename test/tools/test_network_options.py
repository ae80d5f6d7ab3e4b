# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import argparse
import inspect

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.analysis import Settings
from rock_seg_ros.perception.inference.segmenter import CAPTURE_AFTER, Segmenter
from rock_seg_ros.tools.network_options import add_network_options, segmenter_of, settings_of


@pytest.fixture
def parse():
    parser = argparse.ArgumentParser()
    add_network_options(parser)
    return lambda *arguments: parser.parse_args(arguments)


def test_the_default_settings_are_those_of_perception(parse):
    assert settings_of(parse()) == Settings()


def test_the_default_network_options_are_those_of_the_segmenter(parse):
    given = vars(parse())
    for name, parameter in inspect.signature(Segmenter).parameters.items():
        if name not in ('weights', 'capture_after'):  # the latter has one value for all commands
            assert given[name] == parameter.default


def test_options_are_passed_to_the_settings(parse, tmp_path):
    mask = np.eye(4, 6, dtype=np.uint8) * 255
    cv2.imwrite(str(tmp_path / 'keep.png'), mask)
    settings = settings_of(
        parse(
            '--threshold=0.3', '--min-area=7', '--max-rocks=9', '--polygon-tolerance=2.5',
            '--alpha=0.1', '--no-split-touching', f'--ignore-mask={tmp_path / "keep.png"}',
        )
    )  # fmt: skip
    assert (settings.threshold, settings.overlay_alpha) == (0.3, 0.1)
    rocks = settings.rocks
    assert (rocks.min_area, rocks.max_rocks, rocks.polygon_tolerance) == (7, 9, 2.5)
    assert not rocks.split_touching
    np.testing.assert_array_equal(settings.valid_mask, mask)


@pytest.mark.parametrize(
    'option',
    ['--threshold=1.5', '--threshold=nan', '--alpha=-1', '--min-area=-1', '--output-stride=7',
     '--precision=fp64', '--preset=best', '--tile=-1', '--tile-overlap=x',
     '--polygon-tolerance=inf', '--max-rocks=65536', '--significant-bits=7', '--max-pixels=x'],
)  # fmt: skip
def test_a_value_out_of_range_is_a_usage_error(parse, option, capsys):
    with pytest.raises(SystemExit) as leaving:
        parse(option)
    assert leaving.value.code == 2
    assert option.split('=')[0] in capsys.readouterr().err


def test_an_invalid_ignore_mask_is_rejected_by_name(parse, tmp_path):
    (tmp_path / 'keep.png').write_text('no image')
    with pytest.raises(ValueError, match=r'keep\.png: does not decode'):
        settings_of(parse(f'--ignore-mask={tmp_path / "keep.png"}'))
    cv2.imwrite(str(tmp_path / 'keep.png'), np.zeros((4, 6, 4), np.uint8))
    with pytest.raises(ValueError, match=r'keep\.png: a label image must have 1 channel, not 4'):
        settings_of(parse(f'--ignore-mask={tmp_path / "keep.png"}'))


def test_options_are_passed_to_the_segmenter(parse, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr('rock_seg_ros.tools.network_options.load_weights', lambda path, *_: path)
    monkeypatch.setattr(
        'rock_seg_ros.tools.network_options.Segmenter',
        lambda *given: asked.append(inspect.signature(Segmenter).bind(*given).arguments),
    )
    segmenter_of(
        parse(
            f'--weights={tmp_path}', '--device=cpu', '--precision=int8', '--backend=openvino',
            '--output-stride=8', '--input-size', '640', '480', '--preset=fast', '--tile=512',
            '--tile-overlap=100',
        )
    )  # fmt: skip
    assert asked == [
        {
            'weights': str(tmp_path), 'device': 'cpu', 'precision': 'int8', 'backend': 'openvino',
            'output_stride': 8, 'input_size': (640, 480), 'preset': 'fast', 'tile': 512,
            'tile_overlap': 100, 'capture_after': CAPTURE_AFTER,
        }
    ]  # fmt: skip
