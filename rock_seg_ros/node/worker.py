# SPDX-License-Identifier: Apache-2.0
"""The mailbox, which keeps the newest image of each camera, and the thread that processes them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar('Item')
POLL_INTERVAL = 0.2  # s, after which a waiting consumer asks for the minimum interval again
MAX_BATCHES_BEFORE_IDLE_TASK = 50
NEVER = float('-inf')


class Mailbox(Generic[Item]):
    """Holds at most one item per sender: a newer item replaces the waiting one.

    Items of the same group that wait at the same time are taken together. The sender whose last
    item was taken longest ago comes first, so that a frequent sender cannot starve another one.
    """

    def __init__(self, senders: int, group_of: Callable[[Item], Hashable] = lambda _: None) -> None:
        """Creates an empty, open mailbox.

        Args:
            senders: Number of senders. They are numbered from 0.
            group_of: Returns the group of an item. Only items of equal groups are taken together.
        """
        self._items: dict[int, Item] = {}
        self._taken = [NEVER] * senders
        self._group_of = group_of
        self._closed = False
        self._changed = threading.Condition()

    def put(self, sender: int, item: Item) -> bool:
        """Puts an item in; returns whether it replaced an older item of its sender."""
        with self._changed:
            replaced = sender in self._items
            self._items[sender] = item
            self._changed.notify()
            return replaced

    def wait(self, min_interval: Callable[[], float]) -> list[Item]:
        """Waits for an item, and takes it with the other waiting items of its group.

        Args:
            min_interval: Returns the minimum time between two items of the same sender, s. It is
                called repeatedly, because it may change. After that time the newest item is taken.

        Returns:
            Items of one group, at most one per sender; none after the mailbox was closed.
        """
        with self._changed:
            while not self._closed:
                now, interval = time.monotonic(), min_interval()
                due = {sender: self._taken[sender] + interval - now for sender in self._items}
                ready = [sender for sender in due if due[sender] <= 0]
                if ready:
                    return self._take(ready, now)
                self._changed.wait(min(*due.values(), POLL_INTERVAL) if due else None)
            return []

    def _take(self, ready: list[int], now: float) -> list[Item]:
        ready.sort(key=self._taken.__getitem__)
        group = self._group_of(self._items[ready[0]])
        together = [sender for sender in ready if self._group_of(self._items[sender]) == group]
        for sender in together:
            self._taken[sender] = now
        return [self._items.pop(sender) for sender in together]

    @property
    def is_idle(self) -> bool:
        """Whether the mailbox is open and empty."""
        return not (self._items or self._closed)

    def close(self) -> list[Item]:
        """Wakes the waiting consumer, which receives nothing; returns the remaining items."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return list(self._items.values())


class Worker(Generic[Item]):
    """A thread that processes the items of a mailbox.

    Attributes:
        mailbox: The mailbox.
        current_items: The items in work, also those during which the thread failed.
        error: The exception that ended the thread; None while it runs, or after a normal end.
    """

    def __init__(
        self,
        mailbox: Mailbox[Item],
        process: Callable[[list[Item]], None],
        min_interval: Callable[[], float],
        idle_task: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts the thread. An exception in `process` or `idle_task` ends it.

        Args:
            mailbox: The mailbox.
            process: Called with the items that were taken together.
            min_interval: Returns the minimum time between two items of the same sender, s.
            idle_task: Called after a batch if the mailbox is empty, and at least once in
                `MAX_BATCHES_BEFORE_IDLE_TASK` batches if it never is.
        """
        self.mailbox = mailbox
        self.current_items: list[Item] = []
        self.error: BaseException | None = None
        self._process = process
        self._min_interval = min_interval
        self._idle_task = idle_task
        self._thread = threading.Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> list[Item]:
        """Ends the thread after the current items; returns the items that remain in the mailbox.

        Args:
            timeout: Maximum time to wait for the end of the thread, s; None = unlimited. After
                that time the thread still ends by itself.
        """
        remaining = self.mailbox.close()
        self._thread.join(timeout)
        return remaining

    def _run(self) -> None:
        try:
            self._process_all()
        except BaseException as error:  # noqa: BLE001  (the owner of the worker checks it)
            self.error = error

    def _process_all(self) -> None:
        batches = 0
        while items := self.mailbox.wait(self._min_interval):
            self.current_items = items
            self._process(items)
            self.current_items = []
            batches += 1
            if self.mailbox.is_idle or batches == MAX_BATCHES_BEFORE_IDLE_TASK:
                self._idle_task()
                batches = 0
