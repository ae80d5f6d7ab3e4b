# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from rock_seg_ros.perception.card import Card, CardError


def test_a_card_survives_json() -> None:
    card = Card(
        ('sky', 'sand', 'rock'),
        ('rock', 'sand'),
        'none',
        threshold=0.4,
        metrics={'a': 1.0},
        activation_ranges={'a.conv': (-0.5, 2.0)},
    )
    assert Card.from_json(card.to_json()) == card
    assert card.rock_ids == (1, 2)
    assert card.channels == 3
    assert Card(activation='sigmoid').channels == 1


def test_keys_of_later_versions_are_left_out() -> None:
    assert Card.from_json('{"format_version": 1, "colour": "red"}') == Card()


@pytest.mark.parametrize(
    ('text', 'told'),
    [
        ('nonsense', 'not JSON'),
        ('[1]', 'a JSON list'),
        ('{}', 'format_version is None'),
        ('{"format_version": 2}', 'format_version is 2; this version reads 1'),
    ],
)
def test_what_is_no_card_of_this_format_is_refused(text: str, told: str) -> None:
    with pytest.raises(CardError, match=told):
        Card.from_json(text)


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('architecture', 'unet'),
        ('decoder', 'fcn'),
        ('activation', 'relu'),
        ('output_stride', 32),
        ('classes', ['rock']),
        ('classes', ['rock', 'rock']),
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
    ],
)
def test_a_value_that_no_model_could_be_built_from_is_refused_by_name(
    key: str, value: object
) -> None:
    with pytest.raises(CardError) as refused:
        Card.from_json(json.dumps({'format_version': 1, key: value}))
    if value not in (0.2, 'half'):
        assert key in str(refused.value)
