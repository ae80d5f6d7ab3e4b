# SPDX-License-Identifier: Apache-2.0
"""The mailbox, where the newest image of each camera wins, and the thread that empties it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Item = TypeVar('Item')
POLL_INTERVAL = 0.2
MAX_BATCHES_BEFORE_IDLE_TASK = 50  # works
NEVER = float('-inf')


class Mailbox(Generic[Item]):
    """Holds at most one item a sender: a newer one takes its place.

    Those that wait together and are alike are taken together. The sender whose last item was
    taken longest ago comes first, so that none starves however often another one sends.
    """

    def __init__(self, senders: int, kind: Callable[[Item], Hashable] = lambda _: None) -> None:
        """Starts empty and open.

        Args:
            senders: How many there are, counted from 0.
            kind: Of an item; those of the same kind are alike.
        """
        self._items: dict[int, Item] = {}
        self._taken = [NEVER] * senders
        self._kind = kind
        self._closed = False
        self._changed = threading.Condition()

    def put(self, sender: int, item: Item) -> bool:
        """Puts an item in; returns whether an older one of its sender was lost by that."""
        with self._changed:
            lost = sender in self._items
            self._items[sender] = item
            self._changed.notify()
            return lost

    def wait(self, pause: Callable[[], float]) -> list[Item]:
        """Waits for items and takes out those that go together, without waiting for more.

        Args:
            pause: Shortest time between two takes from a sender, s; asked again now and then,
                since it may change. The newest item is taken then.

        Returns:
            Items of one kind, each of another sender; none once the mailbox is closed.
        """
        with self._changed:
            while not self._closed:
                now, least = time.monotonic(), pause()
                due = {sender: self._taken[sender] + least - now for sender in self._items}
                ready = [sender for sender in due if due[sender] <= 0]
                if ready:
                    return self._take(ready, now)
                self._changed.wait(min(*due.values(), POLL_INTERVAL) if due else None)
            return []

    def _take(self, ready: list[int], now: float) -> list[Item]:
        ready.sort(key=self._taken.__getitem__)
        kind = self._kind(self._items[ready[0]])
        together = [sender for sender in ready if self._kind(self._items[sender]) == kind]
        for sender in together:
            self._taken[sender] = now
        return [self._items.pop(sender) for sender in together]

    @property
    def is_idle(self) -> bool:
        """Whether it is open and no item waits."""
        return not (self._items or self._closed)

    def close(self) -> list[Item]:
        """Lets the one who waits go, with nothing; returns the items that were left."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return list(self._items.values())


class Worker(Generic[Item]):
    """A thread that works on what is newest, one after the other.

    Attributes:
        mailbox: Where the items are taken from.
        current_items: The items that it works on, or died of.
        error: What it died of; None while it lives, or was stopped.
    """

    def __init__(
        self,
        mailbox: Mailbox[Item],
        work: Callable[[list[Item]], None],
        pause: Callable[[], float],
        rest: Callable[[], None] = lambda: None,
    ) -> None:
        """Starts the thread.

        Args:
            mailbox: Where the items are taken from.
            work: Called with the items that go together; the thread dies of what it raises.
            pause: Shortest time between the starts of two works for a sender, s; asked each time.
            rest: Called after a work when nothing waits, and where something always waits, now
                and then all the same; the thread dies of what it raises.
        """
        self.mailbox = mailbox
        self.current_items: list[Item] = []
        self.error: BaseException | None = None
        self._work = work
        self._pause = pause
        self._rest = rest
        self._thread = threading.Thread(target=self._run, name='worker', daemon=True)
        self._thread.start()

    def stop(self, timeout: float | None = None) -> list[Item]:
        """Ends the thread as soon as the work in hand is done; returns the items that were left.

        Args:
            timeout: Longest wait for its end, s; None = any. It ends later then, by itself.
        """
        left = self.mailbox.close()
        self._thread.join(timeout)
        return left

    def _run(self) -> None:
        try:
            self._work_on()
        except BaseException as error:  # noqa: BLE001  (whoever stops or watches it asks for it)
            self.error = error

    def _work_on(self) -> None:
        unrested = 0
        while items := self.mailbox.wait(self._pause):
            self.current_items = items
            self._work(items)
            self.current_items = []
            unrested += 1
            if self.mailbox.is_idle or unrested == MAX_BATCHES_BEFORE_IDLE_TASK:
                self._rest()
                unrested = 0
