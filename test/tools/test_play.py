# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosbags.interfaces import QosDurability, QosHistory, QosReliability
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image

from rock_seg_ros.tools import play
from rock_seg_ros.tools.bag.files import RELIABLE, Bag, BagError, BagMessage, BagWriter
from rock_seg_ros.tools.main import UsageError, main
from rock_seg_ros.tools.play import (
    Player,
    choose_topics,
    message_class,
    paced,
    to_profile,
    with_clock_ticks,
)

PATIENCE = 60.0
TOPIC = '/camera/image_raw/compressed'
MESSAGES = [BagMessage('/a', stamp, b'') for stamp in (10**9, 2 * 10**9, 5 * 10**9)]


class Listener:
    """A ROS node that subscribes as the seg_node does, spun by the test."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('listener', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def listen(self, kind, topic, raw=True):
        got = []
        every = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(kind, topic, got.append, every, raw=raw)
        return got

    def spin_until(self, moment):
        while (left := moment - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=left)

    def wait_for(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline
            self.executor.spin_once(timeout_sec=0.1)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.close()


@pytest.fixture
def bag(demo_data):
    with Bag(demo_data / 'mars_drive') as opened:
        yield opened


def test_each_message_waits_for_its_own_time_counted_from_the_first_one():
    waited = []
    began = time.monotonic()
    items = [stamp for stamp, _ in paced(with_clock_ticks(MESSAGES, 0), 2.0, waited.append)]
    assert items == [message.stamp for message in MESSAGES]
    assert waited[0] == pytest.approx(began, abs=0.5)
    assert [moment - waited[0] for moment in waited] == pytest.approx([0.0, 0.5, 2.0])


def test_a_late_start_of_one_message_does_not_delay_the_next():
    waited = []
    for _ in paced(with_clock_ticks(MESSAGES, 0), 1.0, waited.append):
        time.sleep(0.01)  # stands for slow publishing
    assert [moment - waited[0] for moment in waited] == pytest.approx([0.0, 1.0, 4.0])


def test_ticks_come_at_their_period_from_the_first_message_to_the_last():
    timed = list(with_clock_ticks(MESSAGES, 10**9))
    assert [stamp // 10**9 for stamp, message in timed if message is None] == [1, 2, 3, 4, 5]
    assert timed == sorted(timed, key=lambda item: item[0])
    assert [message for _, message in timed if message] == MESSAGES


def test_a_best_effort_subscriber_of_depth_1_gets_every_image_as_it_was_recorded(listener, bag):
    got = listener.listen(CompressedImage, TOPIC)
    player = Player(listener.node, bag, bag.topics)
    player.wait_for_subscriber(PATIENCE, listener.spin_until)
    played = []
    for message in player.play(1.0, listener.spin_until):
        played.append(message.data)
        listener.wait_for(lambda: len(got) >= len(played))
    assert player.count == len(played) == 12
    assert [bytes(data) for data in got] == played


def test_the_clock_is_the_bags(listener, bag):
    got = listener.listen(Clock, '/clock', raw=False)
    player = Player(listener.node, bag, bag.topics)
    for _ in player.play(5.0, listener.spin_until, clock_rate=200.0):
        listener.wait_for(lambda: listener.node.count_subscribers('/clock'))
    listener.wait_for(lambda: got)
    stamps = [message.clock.sec + message.clock.nanosec * 1e-9 for message in got]
    assert stamps == sorted(stamps)
    assert 1_391_040_000 <= stamps[0] <= stamps[-1] <= 1_391_040_000 + bag.duration


def test_waiting_for_a_subscriber_that_never_comes_ends_with_a_reason(listener, bag):
    player = Player(listener.node, bag, bag.topics)
    with pytest.raises(TimeoutError, match=f'no subscriber to {TOPIC}'):
        player.wait_for_subscriber(0.1, listener.spin_until)


@pytest.fixture
def strange_bag(tmp_path):
    """A bag with a type that rosbags knows and this machine may not have, then with none else."""
    with BagWriter(tmp_path / 'strange') as writer:
        writer.add_topic('/strange', 'stereo_msgs/msg/DisparityImage')
        writer.write('/strange', 1, b'')
    with Bag(tmp_path / 'strange') as opened:
        yield opened


def test_a_type_that_is_not_installed_is_skipped_with_a_line(
    listener, strange_bag, bag, monkeypatch
):
    monkeypatch.setattr(play, 'message_class', _only_sensor_msgs)
    with pytest.raises(BagError, match=r'/strange is skipped: stereo_msgs/msg/DisparityImage'):
        Player(listener.node, strange_bag, strange_bag.topics)
    player = Player(listener.node, bag, [*strange_bag.topics, *bag.topics])
    assert player.skipped == [
        '/strange is skipped: stereo_msgs/msg/DisparityImage is not installed'
    ]
    assert player.count == 12


def _only_sensor_msgs(name):
    return CompressedImage if name == 'sensor_msgs/msg/CompressedImage' else None


def test_message_classes_are_found_by_name():
    assert message_class('sensor_msgs/msg/Image') is Image
    assert message_class('no_such_msgs/msg/Thing') is None
    assert message_class('sensor_msgs/msg/Thing') is None


def test_topics_are_chosen_by_name(bag):
    assert [topic.name for topic in choose_topics(bag, [TOPIC, TOPIC])] == [TOPIC]
    assert choose_topics(bag, None) == bag.topics
    with pytest.raises(UsageError, match=f'no topic /x; it has {TOPIC}'):
        choose_topics(bag, ['/x'])


def test_the_recorded_quality_of_service_is_offered():
    profile = to_profile(RELIABLE)
    assert (profile.reliability, profile.durability, profile.history, profile.depth) == (
        ReliabilityPolicy.RELIABLE, DurabilityPolicy.VOLATILE, HistoryPolicy.KEEP_LAST, 10,
    )  # fmt: skip
    other = to_profile(
        RELIABLE._replace(
            reliability=QosReliability.BEST_EFFORT,
            durability=QosDurability.TRANSIENT_LOCAL,
            history=QosHistory.KEEP_ALL,
        )
    )
    assert (other.reliability, other.durability, other.history) == (
        ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.TRANSIENT_LOCAL, HistoryPolicy.KEEP_ALL,
    )  # fmt: skip


def test_what_a_bag_does_not_tell_becomes_the_default():
    unknown = RELIABLE._replace(
        reliability=QosReliability.UNKNOWN, durability=QosDurability.SYSTEM_DEFAULT, depth=0
    )
    assert to_profile(unknown) == to_profile(RELIABLE)


def test_a_bag_that_is_not_there_is_one_line(capsys):
    assert main(['play', 'no_bag']) == 1
    assert capsys.readouterr().err == 'rock_seg play: no_bag: the bag does not exist\n'


def test_of_a_damaged_bag_what_comes_before_arrives_and_the_status_tells_of_it(
    listener, demo_data, monkeypatch, capsys
):
    whole, finished = Bag.messages, []

    def messages(bag, topics):
        for _, message in zip(range(3), whole(bag, topics), strict=False):
            yield message
        raise BagError('bag: damaged')

    monkeypatch.setattr(Bag, 'messages', messages)
    monkeypatch.setattr(Player, 'finish', lambda player: finished.append(player.count))
    assert main(['play', str(demo_data / 'mars_drive'), '--rate', '100']) == 1
    assert finished == [12]
    assert 'rock_seg play: bag: damaged' in capsys.readouterr().err


@pytest.mark.parametrize('option', ['--rate=0', '--rate=-1', '--clock=0', '--rate=inf'])
def test_a_rate_that_is_not_above_zero_is_wrong_use(option):
    assert main(['play', 'no_bag', option]) == 2


def test_the_whole_bag_is_played_to_a_waiting_subscriber(listener, demo_data):
    got = listener.listen(CompressedImage, TOPIC)
    bag = str(demo_data / 'mars_drive')
    process = _start(bag, '--wait-for-subscribers', str(PATIENCE))
    listener.wait_for(lambda: len(got) == 12 or process.poll())  # the last may come after its end
    assert process.wait(PATIENCE) == 0
    assert len(got) == 12


def test_ctrl_c_ends_a_loop_at_once_and_quietly(listener, demo_data):
    got = listener.listen(CompressedImage, TOPIC)
    process = _start(str(demo_data / 'mars_drive'), '--loop', '--rate', '4')
    listener.wait_for(lambda: len(got) > 12)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert 'Traceback' not in error
    assert time.monotonic() - sent < 2.0


def _start(*arguments):
    return subprocess.Popen(
        [sys.executable, '-m', 'rock_seg_ros.tools', 'play', *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
