# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import yaml

from rock_seg_ros.node.outputs import OUTPUTS

FILE = Path(__file__).parents[2] / 'config' / 'seg.rviz'


KINDS = {
    'Overlay': ('Image', '/rock_seg/overlay'),
    'Mask': ('Image', '/rock_seg/mask'),
    'Camera': ('Camera', '/camera/image_raw'),
    'Markers': ('MarkerArray', '/rock_seg/markers'),
    'Obstacles': ('PointCloud2', '/rock_seg/obstacles'),
}


def test_the_displays_subscribe_to_published_topics_with_a_compatible_qos() -> None:
    displays = yaml.safe_load(FILE.read_text())['Visualization Manager']['Displays']
    shown = {d['Name']: (d['Class'].split('/')[1], d['Topic']['Value']) for d in displays}
    assert shown == KINDS
    published = {output.topic.replace('~', '/rock_seg') for output in OUTPUTS}
    for display in displays:
        topic = display['Topic']
        assert display['Enabled']
        assert display['Value']
        own = topic['Value'] in published
        assert topic['Reliability Policy'] == ('Reliable' if own else 'Best Effort')
        assert topic['Durability Policy'] == 'Volatile'
        assert own or display['Name'] == 'Camera'


def test_the_camera_display_draws_only_the_markers_on_the_image() -> None:
    displays = yaml.safe_load(FILE.read_text())['Visualization Manager']['Displays']
    (camera,) = (display for display in displays if display['Name'] == 'Camera')
    visible = {name for name, shown in camera['Visibility'].items() if shown}
    assert visible == {'Value', 'Markers'}
