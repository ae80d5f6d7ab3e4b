# SPDX-License-Identifier: Apache-2.0
"""The mailbox and the worker."""

from __future__ import annotations

import threading
import time

from rock_seg_ros.node.worker import Mailbox, Worker


def test_the_newest_item_wins_and_the_loss_is_told():
    mailbox = Mailbox()
    assert mailbox.put('old') is False
    assert mailbox.put('new') is True
    assert mailbox.wait() == 'new'
    assert mailbox.put('next') is False


def test_a_closed_mailbox_lets_the_waiting_go_at_once():
    mailbox = Mailbox()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(mailbox.wait()))
    waiting.start()
    mailbox.close()
    waiting.join(5)
    assert answers == [None]


def test_what_comes_while_the_time_is_not_up_replaces_what_was_there():
    mailbox = Mailbox()
    mailbox.put('old')
    threading.Timer(0.05, mailbox.put, ['new']).start()
    due = time.monotonic() + 0.3
    assert mailbox.wait(due) == 'new'
    assert time.monotonic() >= due


def test_a_stopped_worker_has_finished_the_item_in_hand():
    done, started = [], threading.Event()

    def work(item):
        started.set()
        time.sleep(0.05)
        done.append(item)

    worker = Worker(work, lambda: 0.0)
    worker.mailbox.put('picture')
    assert started.wait(5)
    worker.stop()
    assert done == ['picture']
    assert worker.mailbox.wait() is None


def test_the_pause_is_asked_anew_before_each_item():
    pauses, starts, all_done = iter([0.0, 0.2, 0.0]), [], threading.Event()

    def work(item):
        starts.append(time.monotonic())
        if item == 3:
            all_done.set()
        else:
            worker.mailbox.put(item + 1)

    worker = Worker(work, lambda: next(pauses, 0.0))
    worker.mailbox.put(1)
    assert all_done.wait(5)
    worker.stop()
    assert starts[1] - starts[0] >= 0.2
    assert len(starts) == 3
