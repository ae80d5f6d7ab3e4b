# SPDX-License-Identifier: Apache-2.0
"""The mailbox and the worker."""

from __future__ import annotations

import threading
import time

import pytest

from rock_seg_ros.node.worker import Mailbox, Worker


def no_interval():
    return 0.0


def test_a_newer_item_replaces_the_older_one_of_its_sender_and_this_is_reported():
    mailbox = Mailbox(1)
    assert mailbox.put(0, 'old') is False
    assert mailbox.put(0, 'new') is True
    assert mailbox.wait(no_interval) == ['new']
    assert mailbox.is_idle
    assert mailbox.put(0, 'next') is False


def test_all_waiting_items_are_taken_together_without_waiting_for_more():
    mailbox = Mailbox(3)
    mailbox.put(0, 'front')
    assert mailbox.wait(no_interval) == ['front']
    mailbox.put(1, 'side')
    mailbox.put(2, 'rear')
    mailbox.put(0, 'front again')
    assert sorted(mailbox.wait(no_interval)) == ['front again', 'rear', 'side']


def test_only_items_of_one_group_are_taken_together():
    mailbox = Mailbox(3, group_of=len)
    for sender, item in enumerate(('big', 'small', 'huge!')):
        mailbox.put(sender, item)
    assert mailbox.wait(no_interval) == ['big']
    assert mailbox.wait(no_interval) == ['small', 'huge!']


def test_an_infrequent_sender_comes_before_a_frequent_one():
    mailbox = Mailbox(2, group_of=lambda item: item)
    taken = []
    for number in range(8):
        mailbox.put(0, 'often')
        if number == 3:
            mailbox.put(1, 'seldom')
        taken += mailbox.wait(no_interval)
    assert taken == ['often'] * 3 + ['seldom'] + ['often'] * 4


def test_two_frequent_senders_take_turns():
    mailbox = Mailbox(2, group_of=lambda item: item)
    taken = []
    for _ in range(6):
        mailbox.put(0, 'front')
        mailbox.put(1, 'rear')
        taken += mailbox.wait(no_interval)
    assert taken == ['front', 'rear'] * 3


def test_closing_a_mailbox_wakes_the_waiting_consumer():
    mailbox = Mailbox(1)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(mailbox.wait(no_interval)))
    waiting.start()
    mailbox.close()
    waiting.join(5)
    assert answers == [[]]


def test_an_item_that_arrives_during_the_interval_replaces_the_waiting_one():
    mailbox = Mailbox(1)
    mailbox.put(0, 'first')
    assert mailbox.wait(no_interval) == ['first']
    taken = time.monotonic()
    mailbox.put(0, 'old')
    asked = []

    def interval():
        asked.append(time.monotonic())
        if len(asked) == 2:
            mailbox._items[0] = 'new'
        return 0.3

    assert mailbox.wait(interval) == ['new']
    assert time.monotonic() - taken >= 0.29


def test_the_interval_of_one_sender_does_not_delay_another():
    mailbox = Mailbox(2)
    mailbox.put(0, 'front')
    assert mailbox.wait(no_interval) == ['front']
    mailbox.put(0, 'front again')
    mailbox.put(1, 'rear')
    assert mailbox.wait(lambda: 1000.0) == ['rear']


def test_an_interval_that_becomes_shorter_during_the_wait_takes_effect():
    mailbox = Mailbox(1)
    mailbox.put(0, 'first')
    mailbox.wait(no_interval)
    mailbox.put(0, 'item')
    answers = iter([float('inf'), 1e300])
    assert mailbox.wait(lambda: next(answers, 0.0)) == ['item']


def test_stop_waits_for_the_current_item():
    done, started = [], threading.Event()

    def process(items):
        started.set()
        time.sleep(0.05)
        done.extend(items)

    worker = Worker(Mailbox(1), process, no_interval)
    worker.mailbox.put(0, 'image')
    assert started.wait(5)
    assert worker.stop() == []
    assert done == ['image']
    assert worker.mailbox.wait(no_interval) == []


def test_the_interval_is_between_the_starts_of_two_items():
    starts, all_done = [], threading.Event()

    def process(items):
        starts.append(time.monotonic())
        if items == [3]:
            all_done.set()
        else:
            worker.mailbox.put(0, items[0] + 1)

    worker = Worker(Mailbox(1), process, lambda: 0.3)
    worker.mailbox.put(0, 1)
    assert all_done.wait(10)
    worker.stop()
    assert starts[2] - starts[0] >= 0.5


def test_stop_returns_the_remaining_items():
    begun, go_on = threading.Event(), threading.Event()

    def process(items):
        begun.set()
        go_on.wait(10)

    worker = Worker(Mailbox(2), process, no_interval)
    worker.mailbox.put(0, 'current')
    assert begun.wait(10)
    worker.mailbox.put(1, 'remaining')
    threading.Timer(0.05, go_on.set).start()
    assert worker.stop() == ['remaining']


@pytest.mark.parametrize('where', ['process', 'idle_task'])
def test_a_worker_that_died_has_the_error_and_its_current_items(where):
    error = SystemExit('test error')

    def die(items=()):
        raise error

    process, idle_task = (die, no_interval) if where == 'process' else (lambda items: None, die)
    worker = Worker(Mailbox(1), process, no_interval, idle_task)
    assert worker.error is None
    worker.mailbox.put(0, 'image')
    worker._thread.join(10)
    assert worker.error is error
    assert worker.current_items == (['image'] if where == 'process' else [])
    assert worker.stop() == []


def test_stop_returns_after_its_timeout():
    begun, go_on = threading.Event(), threading.Event()

    def process(items):
        begun.set()
        go_on.wait(10)

    worker = Worker(Mailbox(2), process, no_interval)
    worker.mailbox.put(0, 'current')
    assert begun.wait(10)
    worker.mailbox.put(1, 'remaining')
    assert worker.stop(timeout=0.01) == ['remaining']
    assert not go_on.is_set()
    go_on.set()


@pytest.mark.parametrize(('more', 'idle'), [(False, True), (True, False)])
def test_the_idle_task_runs_only_if_the_mailbox_is_empty(more, idle):
    happened, idle_task_ran = [], threading.Event()

    def process(items):
        happened.extend(items)
        if more and items == [1]:
            worker.mailbox.put(0, 2)

    def idle_task():
        happened.append('idle task')
        idle_task_ran.set()

    worker = Worker(Mailbox(1), process, no_interval, idle_task)
    worker.mailbox.put(0, 1)
    assert idle_task_ran.wait(10)
    worker.stop()
    assert (happened[1] == 'idle task') == idle


def test_a_worker_that_is_being_stopped_does_not_run_the_idle_task():
    idle_tasks, worked = [], threading.Event()

    def process(items):
        worker.mailbox.close()
        worked.set()

    worker = Worker(Mailbox(1), process, no_interval, lambda: idle_tasks.append(1))
    worker.mailbox.put(0, 'image')
    assert worked.wait(10)
    worker.stop()
    assert idle_tasks == []


def test_the_idle_task_also_runs_if_the_mailbox_is_never_empty():
    idle_task_ran = threading.Event()

    def process(items):
        if not idle_task_ran.is_set():
            worker.mailbox.put(0, items[0] + 1)

    worker = Worker(Mailbox(1), process, no_interval, idle_task_ran.set)
    worker.mailbox.put(0, 1)
    assert idle_task_ran.wait(10)
    worker.stop()
