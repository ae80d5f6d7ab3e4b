# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import rclpy
import yaml
from rclpy.context import Context
from rclpy.node import Node

from rock_seg_ros.node.parameters import PARAMETERS, declare_parameters, read_parameters

FILE = Path(__file__).parents[2] / 'config' / 'seg.yaml'
COMMENTED = re.compile(r'^    # (?P<line>(?P<name>[a-z_]+): (\S+|\[.+\]))$', re.MULTILINE)


@pytest.fixture
def context() -> Iterator[Context]:
    context = Context()
    yield context
    context.try_shutdown()


def node_with(file: Path, context: Context) -> Node:
    rclpy.init(args=['--ros-args', '--params-file', str(file)], context=context)
    node = Node('anything', namespace='/any/where', context=context)
    declare_parameters(node)
    return node


def test_each_parameter_and_nothing_else_is_listed_once() -> None:
    documented = [match['name'] for match in COMMENTED.finditer(FILE.read_text())]
    assert sorted(documented) == sorted(PARAMETERS)


def test_the_unchanged_file_leaves_each_parameter_at_its_default(context: Context) -> None:
    node = node_with(FILE, context)
    assert asdict(read_parameters(node)) == {n: spec.default for n, spec in PARAMETERS.items()}


def test_each_line_is_valid_and_has_an_effect_when_uncommented(
    context: Context, tmp_path: Path
) -> None:
    text = COMMENTED.sub(r'    \g<line>', FILE.read_text())
    (tmp_path / 'all.yaml').write_text(text)
    node = node_with(tmp_path / 'all.yaml', context)
    chosen = yaml.safe_load(text)['/**']['ros__parameters']
    del chosen['start_type_description_service']
    for name in ('image_topics', 'depth_topics'):
        chosen[name] = tuple(chosen[name])
    assert asdict(read_parameters(node)) == chosen
    assert not [name for name, spec in PARAMETERS.items() if spec.default == chosen[name]]


def test_live_parameters_are_marked_as_live() -> None:
    explained = dict.fromkeys(PARAMETERS, '')
    explanation = ''
    for line in FILE.read_text().splitlines():
        match = COMMENTED.match(line)
        if match:
            explained[match['name']] = explanation
        else:
            explanation = explanation + line if line.strip() else ''
    live = {name for name, text in explained.items() if text.endswith('Live.')}
    assert live == {name for name, spec in PARAMETERS.items() if spec.metadata['live']}
