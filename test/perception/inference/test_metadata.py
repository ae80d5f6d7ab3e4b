# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from rock_seg_ros.perception.inference.metadata import MetadataError, ModelMetadata


def test_metadata_are_equal_after_a_round_trip_through_json() -> None:
    metadata = ModelMetadata(
        ('sky', 'sand', 'rock'),
        ('rock', 'sand'),
        'none',
        threshold=0.4,
        metrics={'a': 1.0},
        activation_ranges={'a.conv': (-0.5, 2.0)},
    )
    assert ModelMetadata.from_json(metadata.to_json()) == metadata
    assert metadata.rock_ids == (1, 2)
    assert metadata.channels == 3
    assert ModelMetadata(activation='sigmoid').channels == 1


def test_unknown_keys_are_ignored() -> None:
    assert ModelMetadata.from_json('{"format_version": 1, "colour": "red"}') == ModelMetadata()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('nonsense', 'not JSON'),
        ('[1]', 'a JSON object, not a list'),
        ('{}', 'format_version must be 1, not None'),
        ('{"format_version": 2}', 'format_version must be 1, not 2'),
    ],
)
def test_text_that_is_no_metadata_of_this_version_is_rejected(text: str, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        ModelMetadata.from_json(text)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('architecture', 'unet'),
        ('decoder', 'fcn'),
        ('activation', 'relu'),
        ('output_stride', 32),
        ('classes', ['rock']),
        ('classes', ['rock', 'rock']),
        ('classes', ['rock', 'rim']),
        ('classes', 'rock'),
        ('rock_classes', ['stone']),
        ('rock_classes', []),
        ('rock_classes', ['background', 'rock']),
        ('threshold', 1.5),
        ('threshold', 'half'),
        ('mean', [0.5, 0.5]),
        ('mean', ['a', 'b', 'c']),
        ('std', [0.2, 0.0, 0.2]),
        ('std', 0.2),
        ('activation_ranges', [0.0, 1.0]),
        ('activation_ranges', {'a.conv': [0.0]}),
        ('activation_ranges', {'a.conv': [1.0, 0.0]}),
        ('activation_ranges', {'a.conv': ['a', 'b']}),
        ('activation_ranges', {'a.conv': 1.0}),
        ('activation_ranges', {'a.conv': [0.0, 1e-300]}),
        ('activation_ranges', {'a.conv': [0.0, float('inf')]}),
        ('architecture', ['deeplabv3_resnet50']),
        ('decoder', 3),
        ('output_stride', 8.0),
        ('classes', [['background'], 'rock']),
        ('rock_classes', [1]),
        ('mean', [float('nan'), 0.4, 0.4]),
        ('mean', [10**400, 0.4, 0.4]),
        ('mean', [True, False, True]),
        ('mean', {'r': 0.4, 'g': 0.4, 'b': 0.4}),
        ('std', [0.2, float('inf'), 0.2]),
        ('std', [1e-320, 0.2, 0.2]),
        ('std', '0.2'),
        ('threshold', float('nan')),
        ('threshold', True),
        ('threshold', None),
        ('smallest_side', True),
        ('smallest_side', 1.5),
        ('training_size', [640]),
        ('training_size', 'large'),
        ('training_size', [-1, 4]),
        ('metrics', 'good'),
        ('metrics', {'iou': 'high'}),
        ('metrics', {'iou': None}),
        ('metrics', {'iou': float('nan')}),
        ('metrics', {'iou': {'val': 0.5}}),
        ('data', 7),
        ('licence', ['MIT']),
    ],
)
def test_an_invalid_value_is_rejected_with_its_key(key: str, value: object) -> None:
    with pytest.raises(MetadataError) as error:
        ModelMetadata.from_json(json.dumps({'format_version': 1, key: value}))
    assert key in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('version', [True, 1.0, '1', [1]])
def test_a_version_that_is_not_an_integer_is_rejected(version: object) -> None:
    with pytest.raises(MetadataError, match='format_version must be 1, not '):
        ModelMetadata.from_json(json.dumps({'format_version': version}))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('[' * 100_000, 'nested too deep'),
        ('{"format_version": 1, "metrics": ' + '{"a": ' * 50_000 + '1' + '}' * 50_001, 'too deep'),
        ('{"format_version": ' + '1' * 5000 + '}', 'not JSON'),
        (r'{"format_version": 1, "data": "\ud800"}', 'not JSON'),
        ('{"data": "' + ' ' * 2**24 + '"}', 'characters; the maximum is 16777216'),
    ],
    ids=['brackets', 'objects', 'digits', 'half a character', 'length'],
)
def test_json_that_python_cannot_parse_is_an_error_of_one_line(text: str, message: str) -> None:
    with pytest.raises(MetadataError, match=message) as error:
        ModelMetadata.from_json(text)
    assert '\n' not in str(error.value)


def test_too_many_classes_are_an_error_of_one_short_line() -> None:
    metadata = {'format_version': 1, 'classes': [f'class {number}' for number in range(100_000)]}
    with pytest.raises(MetadataError, match='2 to 255 different names, not 100000') as error:
        ModelMetadata.from_json(json.dumps(metadata))
    assert len(str(error.value)) < 400
