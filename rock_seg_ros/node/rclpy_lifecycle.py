# SPDX-License-Identifier: Apache-2.0
"""The private parts of rclpy's lifecycle node that this package needs, and nothing else does.

rclpy 7.1 offers no public way to do two things:

- A transition callback that is a coroutine. rclpy calls it in the executor and waits, so that
  nothing else is answered while weights are loaded.
- A safe answer to a `change_state` request that the state does not allow. rclpy raises an
  exception, which ends the process.

The names used here exist in rclpy 7.1 (ROS 2 Jazzy) to 9 (Kilted). `check_rclpy` runs on import,
so that an rclpy without them is rejected by name instead of failing in the middle of a transition.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import CallbackGroup
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import (
    LifecycleNode,
    LifecycleNodeMixin,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.node import Node

TransitionCallback = Callable[
    [LifecycleState], TransitionCallbackReturn | Awaitable[TransitionCallbackReturn]
]
_ON_CHANGE_STATE = '_LifecycleNodeMixin__on_change_state'
_ATTRIBUTES = ('_callbacks', '_state_machine')
_STATE_MACHINE = (
    'available_transitions',
    'current_state',
    'trigger_transition_by_id',
    'trigger_transition_by_label',
)


def check_rclpy(
    mixin: type = LifecycleNodeMixin,
    state_machine: type = rclpy_implementation.LifecycleStateMachine,
) -> None:
    """Checks that rclpy has the private parts that this file uses.

    Args:
        mixin: rclpy's LifecycleNodeMixin.
        state_machine: rclpy's LifecycleStateMachine.

    Raises:
        ImportError: A part is missing; the message names it.
    """
    initializer = vars(mixin)['__init__']
    used = initializer.__code__.co_names
    missing = [f'LifecycleNodeMixin.{name}' for name in _ATTRIBUTES if name not in used]
    if 'callback_group' not in inspect.signature(initializer).parameters:
        missing.append('argument callback_group of LifecycleNodeMixin')
    handler = getattr(mixin, _ON_CHANGE_STATE, None)
    if handler is None or len(inspect.signature(handler).parameters) != 3:
        missing.append('LifecycleNodeMixin.__on_change_state(request, response)')
    missing += [
        f'LifecycleStateMachine.{n}' for n in _STATE_MACHINE if not hasattr(state_machine, n)
    ]
    if missing:
        raise ImportError(
            f'rclpy: {missing[0]} is missing; rock_seg_ros needs the rclpy of ROS 2 Jazzy or Kilted'
        )


check_rclpy()


class OpenLifecycleNode(LifecycleNode):
    """rclpy's lifecycle node with its state machine open to subclasses."""

    def __init__(self, name: str, group: CallbackGroup, **node_arguments: Any) -> None:
        """Creates the node and its lifecycle services.

        Args:
            name: Name of the node.
            group: Callback group of the lifecycle services.
            node_arguments: Arguments of rclpy's node.
        """
        Node.__init__(self, name, **node_arguments)
        LifecycleNodeMixin.__init__(self, callback_group=group)

    @property
    def state_number(self) -> int:
        """The lifecycle state as a number of lifecycle_msgs/State."""
        return int(self._state_machine.current_state[0])

    @property
    def state(self) -> str:
        """The lifecycle state as a label, such as 'active' or 'configuring'."""
        return str(self._state_machine.current_state[1])

    def available_transitions(self) -> dict[str, int]:
        """Returns the transitions that the state allows: label → number."""
        return {label: number for number, label, *_ in self._state_machine.available_transitions}

    def begin_transition(self, number: int) -> None:
        """Enters the transition state of a transition that the state allows."""
        self._state_machine.trigger_transition_by_id(number, True)

    def transition_callback(self) -> TransitionCallback:
        """Returns the `on_` callback of the transition state that the node is in."""
        callback: TransitionCallback = self._callbacks[self.state_number]
        return callback

    def end_transition(self, outcome: TransitionCallbackReturn) -> None:
        """Leaves the transition state for the state that the outcome leads to."""
        self._state_machine.trigger_transition_by_label(outcome.to_label(), True)

    async def change_state(self, wanted: int | str) -> bool:
        """Performs a transition; returns whether it succeeded. Subclasses implement it."""
        raise NotImplementedError

    async def _LifecycleNodeMixin__on_change_state(  # noqa: N802  (rclpy's name)
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Answers a `change_state` request."""
        wanted = request.transition
        response.success = await self.change_state(wanted.label or wanted.id)
        return response
