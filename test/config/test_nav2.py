# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rock_seg_ros.node.outputs import OUTPUTS
from rock_seg_ros.perception.inference.weights_file import EMBEDDED, load_weights

CONFIG = Path(__file__).parents[2] / 'config'
TOPICS = {output.topic.replace('~', '/rock_seg') for output in OUTPUTS} | {'/rock_seg/label_info'}


def layers(name: str) -> dict:
    parameters = yaml.safe_load((CONFIG / name).read_text())['local_costmap']['local_costmap']
    own = parameters['ros__parameters']
    assert set(own['plugins']) == {layer for layer in own if isinstance(own[layer], dict)}
    return own


@pytest.mark.parametrize('name', ['nav2_costmap.yaml', 'nav2_semantic_costmap.yaml'])
def test_the_costmap_examples_use_topics_that_the_node_publishes(name: str) -> None:
    text = (CONFIG / name).read_text()
    named = {word for word in text.split() if word.startswith('/rock_seg/')}
    assert named
    assert named <= TOPICS


def test_the_obstacle_layer_marks_with_rocks_and_clears_with_the_depth_cloud() -> None:
    layer = layers('nav2_costmap.yaml')['rock_layer']
    sources = {name: layer[name] for name in layer['observation_sources'].split()}
    roles = {name: (source['marking'], source['clearing']) for name, source in sources.items()}
    assert roles == {'rocks': (True, False), 'seen': (False, True)}
    assert sources['seen']['min_obstacle_height'] < 0, 'the ground clears, too'
    assert sources['seen']['raytrace_max_range'] > sources['rocks']['obstacle_max_range']


@pytest.mark.parametrize('name', EMBEDDED)
def test_the_semantic_layer_lists_each_class_of_the_embedded_weights_once(name: str) -> None:
    camera = layers('nav2_semantic_costmap.yaml')['semantic_layer']['camera']
    named = [own for kind in camera['class_types'] for own in camera[kind]['classes']]
    assert sorted(named) == sorted(load_weights(name).metadata.classes)
