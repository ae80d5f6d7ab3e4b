# SPDX-License-Identifier: Apache-2.0
"""The mailbox and the worker."""

from __future__ import annotations

import threading
import time

from rock_seg_ros.node.worker import Mailbox, Worker


def at_once():
    return 0.0


def test_the_newest_item_wins_and_the_loss_is_told():
    mailbox = Mailbox()
    assert mailbox.put('old') is False
    assert mailbox.put('new') is True
    assert mailbox.wait(at_once) == 'new'
    assert mailbox.put('next') is False


def test_a_closed_mailbox_lets_the_waiting_go_at_once():
    mailbox = Mailbox()
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(mailbox.wait(at_once)))
    waiting.start()
    mailbox.close()
    waiting.join(5)
    assert answers == [None]


def test_what_comes_while_the_time_is_not_up_replaces_what_was_there():
    mailbox = Mailbox()
    mailbox.put('old')
    asked = []

    def not_before():
        asked.append(time.monotonic())
        if len(asked) == 2:
            mailbox._item = 'new'
        return asked[0] + 0.3

    assert mailbox.wait(not_before) == 'new'
    assert time.monotonic() >= asked[0] + 0.3


def test_a_time_that_moves_nearer_while_waiting_is_seen():
    mailbox = Mailbox()
    mailbox.put('item')
    answers = iter([float('inf'), 1e300])
    assert mailbox.wait(lambda: next(answers, 0.0)) == 'item'


def test_a_stopped_worker_has_finished_the_item_in_hand():
    done, started = [], threading.Event()

    def work(item):
        started.set()
        time.sleep(0.05)
        done.append(item)

    worker = Worker(work, lambda: 0.0)
    worker.mailbox.put('picture')
    assert started.wait(5)
    assert worker.stop() is False
    assert done == ['picture']
    assert worker.mailbox.wait(at_once) is None


def test_the_pause_lies_between_the_starts_of_two_works():
    starts, all_done = [], threading.Event()

    def work(item):
        starts.append(time.monotonic())
        if item == 3:
            all_done.set()
        else:
            worker.mailbox.put(item + 1)

    worker = Worker(work, lambda: 0.3)
    worker.mailbox.put(1)
    assert all_done.wait(10)
    worker.stop()
    assert starts[2] - starts[0] >= 0.5


def test_a_stopped_worker_tells_whether_an_item_was_left():
    in_hand, go_on = threading.Event(), threading.Event()

    def work(item):
        in_hand.set()
        go_on.wait(10)

    worker = Worker(work, lambda: 0.0)
    worker.mailbox.put('in hand')
    assert in_hand.wait(10)
    worker.mailbox.put('left')
    threading.Timer(0.05, go_on.set).start()
    assert worker.stop() is True
