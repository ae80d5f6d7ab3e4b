# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rclpy.lifecycle import LifecycleNodeMixin

from rock_seg_ros.node.rclpy_lifecycle import check_rclpy

NODE = Path(__file__).parents[2] / 'rock_seg_ros' / 'node'
PRIVATE = re.compile(r'\b_state_machine\b|\bself\._callbacks\b|\b_LifecycleNodeMixin__')


class StateMachine:
    current_state = available_transitions = None
    trigger_transition_by_id = trigger_transition_by_label = None


def mixin(**changes: Any) -> type:
    """Returns a stand-in for rclpy's mixin with some parts changed; None removes a part."""

    def initializer(self, *, callback_group=None):
        self._callbacks = {}
        self._state_machine = None

    def handler(self, request, response):
        return response

    parts = {'__init__': initializer, '_LifecycleNodeMixin__on_change_state': handler, **changes}
    return type('Mixin', (), {name: part for name, part in parts.items() if part is not None})


def without_callbacks(self, *, callback_group=None):
    self._state_machine = None


def without_state_machine(self, *, callback_group=None):
    self._callbacks = {}


def without_group(self):
    self._callbacks = {}
    self._state_machine = None


def test_the_installed_rclpy_has_the_private_parts_that_the_node_uses():
    check_rclpy()
    check_rclpy(mixin(), StateMachine)


@pytest.mark.parametrize(
    ('changes', 'missing'),
    [
        ({'__init__': without_callbacks}, 'LifecycleNodeMixin._callbacks'),
        ({'__init__': without_state_machine}, 'LifecycleNodeMixin._state_machine'),
        ({'__init__': without_group}, 'argument callback_group'),
        ({'_LifecycleNodeMixin__on_change_state': None}, '__on_change_state'),
        ({'_LifecycleNodeMixin__on_change_state': lambda self, request: None}, '__on_change_state'),
    ],
)
def test_an_rclpy_without_a_private_part_of_the_mixin_is_rejected_by_name(changes, missing):
    with pytest.raises(ImportError, match=re.escape(missing)) as caught:
        check_rclpy(mixin(**changes), StateMachine)
    assert '\n' not in str(caught.value)
    assert 'Jazzy' in str(caught.value)


@pytest.mark.parametrize('name', [name for name in vars(StateMachine) if not name.startswith('__')])
def test_an_rclpy_without_a_part_of_the_state_machine_is_rejected_by_name(name):
    parts = {key: value for key, value in vars(StateMachine).items() if key != name}
    with pytest.raises(ImportError, match=f'LifecycleStateMachine.{name} is missing'):
        check_rclpy(LifecycleNodeMixin, type('StateMachine', (), parts))


def test_only_one_file_uses_private_parts_of_rclpy():
    users = {path.name for path in NODE.rglob('*.py') if PRIVATE.search(path.read_text())}
    assert users == {'rclpy_lifecycle.py'}
