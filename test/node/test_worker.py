# SPDX-License-Identifier: Apache-2.0
"""The mailbox and the worker."""

from __future__ import annotations

import threading
import time

import pytest

from rock_seg_ros.node.worker import Mailbox, Worker


def at_once():
    return 0.0


def test_the_newest_item_of_a_sender_wins_and_the_loss_is_told():
    mailbox = Mailbox(1)
    assert mailbox.put(0, 'old') is False
    assert mailbox.put(0, 'new') is True
    assert mailbox.wait(at_once) == ['new']
    assert mailbox.is_idle
    assert mailbox.put(0, 'next') is False


def test_what_waits_together_is_taken_together_and_nothing_is_waited_for():
    mailbox = Mailbox(3)
    mailbox.put(0, 'front')
    assert mailbox.wait(at_once) == ['front']
    mailbox.put(1, 'left')
    mailbox.put(2, 'rear')
    mailbox.put(0, 'front again')
    assert sorted(mailbox.wait(at_once)) == ['front again', 'left', 'rear']


def test_only_what_is_alike_is_taken_together():
    mailbox = Mailbox(3, kind=len)
    for sender, item in enumerate(('big', 'small', 'huge!')):
        mailbox.put(sender, item)
    assert mailbox.wait(at_once) == ['big']
    assert mailbox.wait(at_once) == ['small', 'huge!']


def test_a_sender_that_is_seldom_heard_comes_before_one_that_always_sends():
    mailbox = Mailbox(2, kind=lambda item: item)
    taken = []
    for number in range(8):
        mailbox.put(0, 'often')
        if number == 3:
            mailbox.put(1, 'seldom')
        taken += mailbox.wait(at_once)
    assert taken == ['often'] * 3 + ['seldom'] + ['often'] * 4


def test_two_senders_that_always_send_take_turns():
    mailbox = Mailbox(2, kind=lambda item: item)
    taken = []
    for _ in range(6):
        mailbox.put(0, 'front')
        mailbox.put(1, 'rear')
        taken += mailbox.wait(at_once)
    assert taken == ['front', 'rear'] * 3


def test_a_closed_mailbox_lets_the_waiting_go_at_once():
    mailbox = Mailbox(1)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(mailbox.wait(at_once)))
    waiting.start()
    mailbox.close()
    waiting.join(5)
    assert answers == [[]]


def test_what_comes_while_the_time_is_not_up_replaces_what_was_there():
    mailbox = Mailbox(1)
    mailbox.put(0, 'first')
    assert mailbox.wait(at_once) == ['first']
    taken = time.monotonic()
    mailbox.put(0, 'old')
    asked = []

    def pause():
        asked.append(time.monotonic())
        if len(asked) == 2:
            mailbox._items[0] = 'new'
        return 0.3

    assert mailbox.wait(pause) == ['new']
    assert time.monotonic() - taken >= 0.29


def test_the_pause_of_one_sender_does_not_hold_up_another():
    mailbox = Mailbox(2)
    mailbox.put(0, 'front')
    assert mailbox.wait(at_once) == ['front']
    mailbox.put(0, 'front again')
    mailbox.put(1, 'rear')
    assert mailbox.wait(lambda: 1000.0) == ['rear']


def test_a_pause_that_becomes_shorter_while_waiting_is_seen():
    mailbox = Mailbox(1)
    mailbox.put(0, 'first')
    mailbox.wait(at_once)
    mailbox.put(0, 'item')
    answers = iter([float('inf'), 1e300])
    assert mailbox.wait(lambda: next(answers, 0.0)) == ['item']


def test_a_stopped_worker_has_finished_the_item_in_hand():
    done, started = [], threading.Event()

    def work(items):
        started.set()
        time.sleep(0.05)
        done.extend(items)

    worker = Worker(Mailbox(1), work, at_once)
    worker.mailbox.put(0, 'image')
    assert started.wait(5)
    assert worker.stop() == []
    assert done == ['image']
    assert worker.mailbox.wait(at_once) == []


def test_the_pause_lies_between_the_starts_of_two_works():
    starts, all_done = [], threading.Event()

    def work(items):
        starts.append(time.monotonic())
        if items == [3]:
            all_done.set()
        else:
            worker.mailbox.put(0, items[0] + 1)

    worker = Worker(Mailbox(1), work, lambda: 0.3)
    worker.mailbox.put(0, 1)
    assert all_done.wait(10)
    worker.stop()
    assert starts[2] - starts[0] >= 0.5


def test_a_stopped_worker_tells_what_was_left():
    begun, go_on = threading.Event(), threading.Event()

    def work(items):
        begun.set()
        go_on.wait(10)

    worker = Worker(Mailbox(2), work, at_once)
    worker.mailbox.put(0, 'in hand')
    assert begun.wait(10)
    worker.mailbox.put(1, 'left')
    threading.Timer(0.05, go_on.set).start()
    assert worker.stop() == ['left']


@pytest.mark.parametrize('where', ['work', 'rest'])
def test_a_worker_that_dies_tells_of_what_and_what_it_had_in_hand(where):
    death = SystemExit('out of luck')

    def die(items=()):
        raise death

    work, rest = (die, at_once) if where == 'work' else (lambda items: None, die)
    worker = Worker(Mailbox(1), work, at_once, rest)
    assert worker.error is None
    worker.mailbox.put(0, 'image')
    worker._thread.join(10)
    assert worker.error is death
    assert worker.current_items == (['image'] if where == 'work' else [])
    assert worker.stop() == []


def test_the_wait_for_the_end_of_a_worker_can_be_bounded():
    begun, go_on = threading.Event(), threading.Event()

    def work(items):
        begun.set()
        go_on.wait(10)

    worker = Worker(Mailbox(2), work, at_once)
    worker.mailbox.put(0, 'in hand')
    assert begun.wait(10)
    worker.mailbox.put(1, 'left')
    assert worker.stop(timeout=0.01) == ['left']
    assert not go_on.is_set()
    go_on.set()


@pytest.mark.parametrize(('more', 'rests'), [(False, True), (True, False)])
def test_a_worker_rests_only_when_nothing_waits(more, rests):
    happened, rested = [], threading.Event()

    def work(items):
        happened.extend(items)
        if more and items == [1]:
            worker.mailbox.put(0, 2)

    def rest():
        happened.append('rest')
        rested.set()

    worker = Worker(Mailbox(1), work, at_once, rest)
    worker.mailbox.put(0, 1)
    assert rested.wait(10)
    worker.stop()
    assert (happened[1] == 'rest') == rests


def test_a_worker_that_is_being_stopped_does_not_rest_first():
    rested, worked = [], threading.Event()

    def work(items):
        worker.mailbox.close()
        worked.set()

    worker = Worker(Mailbox(1), work, at_once, lambda: rested.append('rest'))
    worker.mailbox.put(0, 'image')
    assert worked.wait(10)
    worker.stop()
    assert rested == []


def test_a_worker_for_whom_something_always_waits_rests_now_and_then():
    rested = threading.Event()

    def work(items):
        if not rested.is_set():
            worker.mailbox.put(0, items[0] + 1)

    worker = Worker(Mailbox(1), work, at_once, rested.set)
    worker.mailbox.put(0, 1)
    assert rested.wait(10)
    worker.stop()
