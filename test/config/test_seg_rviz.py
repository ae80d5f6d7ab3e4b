# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import yaml

FILE = Path(__file__).parents[2] / 'config' / 'seg.rviz'


def test_rviz_shows_overlay_and_mask_as_the_node_publishes_them() -> None:
    displays = yaml.safe_load(FILE.read_text())['Visualization Manager']['Displays']
    topics = {display['Name']: display['Topic'] for display in displays}
    assert {name: topic['Value'] for name, topic in topics.items()} == {
        'Overlay': '/rock_seg/overlay',
        'Mask': '/rock_seg/mask',
    }
    assert {display['Class'] for display in displays} == {'rviz_default_plugins/Image'}
    assert all(display['Enabled'] and display['Value'] for display in displays)
    for topic in topics.values():
        assert topic['Reliability Policy'] == 'Reliable'
        assert topic['Durability Policy'] == 'Volatile'
