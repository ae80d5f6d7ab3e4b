# SPDX-License-Identifier: Apache-2.0
"""The one-slot mailbox, where the newest picture wins, and the thread that empties it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar('Item')
ASK_AGAIN = 0.2


class Mailbox(Generic[Item]):
    """Holds at most one item: a newer one takes its place."""

    def __init__(self) -> None:
        """Starts empty and open."""
        self._item: Item | None = None
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Item) -> bool:
        """Puts an item in; returns whether an older one was lost by that."""
        with self._changed:
            lost = self._item is not None
            self._item = item
            self._changed.notify()
            return lost

    def wait(self, not_before: Callable[[], float]) -> Item | None:
        """Waits for an item and takes it out.

        Args:
            not_before: Tells the `time.monotonic()` before which nothing is taken; asked again
                now and then, since it may change. The newest item is taken then.

        Returns:
            The item; None once the mailbox is closed.
        """
        with self._changed:
            while not self._closed:
                delay = not_before() - time.monotonic()
                if delay > 0:
                    self._changed.wait(min(delay, ASK_AGAIN))
                elif self._item is None:
                    self._changed.wait()
                else:
                    item, self._item = self._item, None
                    return item
            return None

    def close(self) -> bool:
        """Lets the one who waits go, with None; returns whether an item was left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._item is not None


class Worker(Generic[Item]):
    """A thread that works on the newest item, one after the other."""

    def __init__(self, work: Callable[[Item], None], pause: Callable[[], float]) -> None:
        """Starts the thread.

        Args:
            work: Called with each item; must not raise.
            pause: Shortest time between the starts of two works, s; asked each time.
        """
        self.mailbox: Mailbox[Item] = Mailbox()
        self._work = work
        self._pause = pause
        self._started = float('-inf')
        self._thread = threading.Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Ends the thread as soon as the work in hand is done; returns whether an item was left."""
        left = self.mailbox.close()
        self._thread.join()
        return left

    def _due(self) -> float:
        return self._started + self._pause()

    def _run(self) -> None:
        while (item := self.mailbox.wait(self._due)) is not None:
            self._started = time.monotonic()
            self._work(item)
