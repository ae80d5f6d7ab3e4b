# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
import torch

from rock_seg_ros.perception.inference import weights_file
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.weights_file import save_weights
from rock_seg_ros.tools.main import main


@pytest.fixture
def weights(tmp_path):
    state = {
        'layer.weight': torch.ones(4, 3),
        'norm.weight': torch.ones(4),
        'norm.running_mean': torch.zeros(4),
        'norm.running_var': torch.ones(4),
    }
    metadata = ModelMetadata(
        classes=('sand', 'rock'),
        metrics={'val_iou': 0.5},
        data='sand images',
        activation_ranges={'backbone.conv1': (-2.0, 2.5), 'backbone.conv2': (0.0, 6.0)},
    )
    path = tmp_path / 'w.safetensors'
    save_weights(path, state, metadata, int8=True)
    return path


def test_the_json_has_the_metadata_the_size_and_the_number_of_parameters(weights, capsys):
    assert main(['info', str(weights), '--json']) == 0
    metadata = json.loads(capsys.readouterr().out)
    assert metadata['parameters'] == 16
    assert metadata['bytes'] == weights.stat().st_size
    assert metadata['classes'] == ['sand', 'rock']
    assert metadata['metrics'] == {'val_iou': 0.5}
    assert metadata['activation_ranges']['backbone.conv1'] == [-2.0, 2.5]
    assert metadata['data'] == 'sand images'


def test_the_text_has_a_line_per_entry(weights, capsys):
    assert main(['info', str(weights)]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines['file'] == str(weights)
    assert lines['parameters'] == '16'
    assert lines['classes'] == 'sand, rock'
    assert lines['metrics'] == 'val_iou 0.5'
    assert lines['activation_ranges'] == '2 layers'
    assert lines['licence'] == '-'


def test_the_default_is_the_embedded_weights(weights, monkeypatch, capsys):
    monkeypatch.setattr(weights_file, 'embedded_path', lambda name: weights)
    assert main(['info', '--json']) == 0
    assert json.loads(capsys.readouterr().out)['file'] == str(weights)


def test_a_file_without_weights_gives_an_error_of_one_line(tmp_path, capsys):
    (tmp_path / 'w.safetensors').write_bytes(b'nonsense')
    assert main(['info', str(tmp_path / 'w.safetensors')]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f'rock_seg info: {tmp_path / "w.safetensors"}: ')
    assert error.count('\n') == 1
