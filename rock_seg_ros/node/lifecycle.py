# SPDX-License-Identifier: Apache-2.0
"""A lifecycle node that answers requests while a transition waits for slow work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from typing import Any

from lifecycle_msgs.msg import State
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.exceptions import InvalidHandle
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.task import Future

from rock_seg_ros.node.rclpy_lifecycle import OpenLifecycleNode
from rock_seg_ros.perception.errors import first_line


class AsyncLifecycleNode(OpenLifecycleNode):
    """A lifecycle node whose `on_` callbacks may be coroutines.

    Use `change_state` within this process. The `trigger_` methods of rclpy do not run coroutines.

    Attributes:
        reentrant_group: Callback group of callbacks that wait and must not block other callbacks.
    """

    def __init__(self, name: str, **node_arguments: Any) -> None:
        """Creates the node and its lifecycle services.

        Args:
            name: Name of the node.
            node_arguments: Arguments of rclpy's node.
        """
        self.reentrant_group = ReentrantCallbackGroup()
        super().__init__(name, self.reentrant_group, **node_arguments)

    def run_in_thread(self, work: Callable[[], Any], name: str) -> Future:
        """Runs slow work in a daemon thread.

        Args:
            work: Function without arguments.
            name: Name of the thread.

        Returns:
            A future of what `work` returns or raises. Await it in a callback of `reentrant_group`.
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
        """Performs a transition. A transition that the state does not allow is logged.

        Args:
            wanted: Number or label of lifecycle_msgs/Transition.

        Returns:
            Whether the transition succeeded.
        """
        number, label = self.state_number, self.state
        # What is available within a transition ends it, and only the node itself may do that.
        primary = number < State.TRANSITION_STATE_CONFIGURING
        allowed = self.available_transitions() if primary else {}
        chosen = allowed.get(wanted) if isinstance(wanted, str) else wanted
        if chosen is None or chosen not in allowed.values():
            names = ', '.join(f'{name} ({n})' for name, n in sorted(allowed.items())) or 'none'
            self.get_logger().warning(
                f'transition {wanted} is not allowed in state {label}; allowed: {names}'
            )
            return False
        before = LifecycleState(label=label, state_id=number)
        self.begin_transition(chosen)
        outcome = await self._run_callback(before)
        if outcome == TransitionCallbackReturn.ERROR:
            await self._run_callback(before)
        return bool(outcome == TransitionCallbackReturn.SUCCESS)

    async def _run_callback(self, before: LifecycleState) -> TransitionCallbackReturn:
        """Runs the callback of the transition that has begun, and ends the transition."""
        try:
            outcome = self.transition_callback()(before)
            if isawaitable(outcome):
                outcome = await outcome
        except Exception as error:  # noqa: BLE001  (on_error decides about the node)
            self.get_logger().error(f'error in state {self.state}: {first_line(error)}')
            outcome = TransitionCallbackReturn.ERROR
        self.end_transition(outcome)
        return outcome
