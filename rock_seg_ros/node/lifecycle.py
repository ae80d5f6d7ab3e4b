# SPDX-License-Identifier: Apache-2.0
"""A managed node whose executor stays free while a transition waits for what takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from typing import Any

from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import (
    LifecycleNode,
    LifecycleNodeMixin,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.node import Node
from rclpy.task import Future

from rock_seg_ros.perception.errors import first_line


class AsyncLifecycleNode(LifecycleNode):
    """A managed node whose `on_` callbacks may be coroutines.

    rclpy runs them in the executor, where nothing else is answered until they return.
    `change_state` is for use in this process; rclpy's `trigger_` methods run no coroutines.

    Attributes:
        beside: Callback group of what waits and must not hold up anything else.
    """

    def __init__(self, name: str, **node_arguments: Any) -> None:
        """Creates the node and its lifecycle services.

        Args:
            name: Of the node.
            node_arguments: Passed on to rclpy's node.
        """
        Node.__init__(self, name, **node_arguments)
        self.reentrant_group = ReentrantCallbackGroup()
        LifecycleNodeMixin.__init__(self, callback_group=self.reentrant_group)

    @property
    def state(self) -> str:
        """The lifecycle state, such as 'active' or 'configuring'."""
        return str(self._state_machine.current_state[1])

    def run_in_thread(self, work: Callable[[], Any], name: str) -> Future:
        """Runs what takes long in a thread of its own, which does not outlive the process.

        Args:
            work: Called without arguments.
            name: Of the thread.

        Returns:
            To be awaited in a callback of the group `beside`: what `work` returns, or raises.
        """
        done = Future(executor=self.executor)

        def run() -> None:
            try:
                done.set_result(work())
            except Exception as error:  # noqa: BLE001  (raised again where it is awaited)
                done.set_exception(error)
            with suppress(InvalidHandle, AttributeError):  # the executor may end meanwhile
                if (executor := self.executor) is not None:
                    executor.wake()

        threading.Thread(target=run, name=name, daemon=True).start()
        return done

    async def change_state(self, wanted: int | str) -> bool:
        """Goes through a transition; one that the state does not allow is logged.

        Args:
            wanted: Its number or its label, of lifecycle_msgs/Transition.

        Returns:
            Whether the node is in the state that was wanted.
        """
        machine = self._state_machine
        number, label = machine.current_state
        # What is available in the middle of a transition ends it, and is this node's own matter.
        primary = number < State.TRANSITION_STATE_CONFIGURING
        allowed = {t[1]: t[0] for t in machine.available_transitions} if primary else {}
        chosen = allowed.get(wanted) if isinstance(wanted, str) else wanted
        if chosen not in allowed.values():
            legal = ', '.join(f'{name} ({n})' for name, n in sorted(allowed.items())) or 'none'
            self.get_logger().warning(
                f'transition {wanted} is not possible while {label}; possible are {legal}'
            )
            return False
        before = LifecycleState(label=label, state_id=number)
        machine.trigger_transition_by_id(chosen, True)
        outcome = await self._run_callback(before)
        if outcome == TransitionCallbackReturn.ERROR:
            await self._run_callback(before)
        return bool(outcome == TransitionCallbackReturn.SUCCESS)

    async def _run_callback(self, before: LifecycleState) -> TransitionCallbackReturn:
        """Runs the callback of the transition that has begun, and ends it."""
        try:
            outcome = self._callbacks[self._state_machine.current_state[0]](before)
            if isawaitable(outcome):
                outcome = await outcome
        except Exception as error:  # noqa: BLE001  (on_error decides what becomes of the node)
            self.get_logger().error(f'error while {self.state}: {first_line(error)}')
            outcome = TransitionCallbackReturn.ERROR
        self._state_machine.trigger_transition_by_label(outcome.to_label(), True)
        return outcome

    async def _LifecycleNodeMixin__on_change_state(  # noqa: N802  (rclpy's private callback)
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        """Answers a request; rclpy 7.1 ends the process where the state does not allow it."""
        wanted = request.transition
        response.success = await self.change_state(wanted.label or wanted.id)
        return response
