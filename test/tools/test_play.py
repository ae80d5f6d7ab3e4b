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

TIMEOUT = 60.0
TOPIC = '/camera/image_raw/compressed'
MESSAGES = [BagMessage('/a', stamp, b'') for stamp in (10**9, 2 * 10**9, 5 * 10**9)]


class Listener:
    """A ROS node that subscribes with the QoS of the seg_node; the test spins it."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node('listener', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def subscribe(self, kind, topic, raw=True):
        received = []
        qos = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
        self.node.create_subscription(kind, topic, received.append, qos, raw=raw)
        return received

    def spin_until(self, moment):
        while (remaining := moment - time.monotonic()) > 0:
            self.executor.spin_once(timeout_sec=remaining)

    def wait_for(self, condition):
        deadline = time.monotonic() + TIMEOUT
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


def test_the_time_of_each_message_is_relative_to_the_first_one():
    waited = []
    start = time.monotonic()
    items = [stamp for stamp, _ in paced(with_clock_ticks(MESSAGES, 0), 2.0, waited.append)]
    assert items == [message.stamp for message in MESSAGES]
    assert waited[0] == pytest.approx(start, abs=0.5)
    assert [moment - waited[0] for moment in waited] == pytest.approx([0.0, 0.5, 2.0])


def test_a_delay_of_one_message_does_not_delay_the_next():
    waited = []
    for _ in paced(with_clock_ticks(MESSAGES, 0), 1.0, waited.append):
        time.sleep(0.01)  # simulates slow publishing
    assert [moment - waited[0] for moment in waited] == pytest.approx([0.0, 1.0, 4.0])


def test_clock_ticks_are_periodic_from_the_first_message_to_the_last():
    timed = list(with_clock_ticks(MESSAGES, 10**9))
    assert [stamp // 10**9 for stamp, message in timed if message is None] == [1, 2, 3, 4, 5]
    assert timed == sorted(timed, key=lambda item: item[0])
    assert [message for _, message in timed if message] == MESSAGES


def test_images_are_published_unchanged(listener, bag):
    received = listener.subscribe(CompressedImage, TOPIC)
    player = Player(listener.node, bag, bag.topics)
    player.wait_for_subscriber(TIMEOUT, listener.spin_until)
    played = []
    for message in player.play(1.0, listener.spin_until):
        played.append(message.data)
        listener.wait_for(lambda: len(received) >= len(played))
    assert player.count == len(played) == 12
    assert [bytes(data) for data in received] == played


def test_the_clock_has_the_time_of_the_bag(listener, bag):
    received = listener.subscribe(Clock, '/clock', raw=False)
    player = Player(listener.node, bag, bag.topics)
    for _ in player.play(5.0, listener.spin_until, clock_rate=200.0):
        listener.wait_for(lambda: listener.node.count_subscribers('/clock'))
    listener.wait_for(lambda: received)
    stamps = [message.clock.sec + message.clock.nanosec * 1e-9 for message in received]
    assert stamps == sorted(stamps)
    assert 1_391_040_000 <= stamps[0] <= stamps[-1] <= 1_391_040_000 + bag.duration


def test_waiting_for_a_subscriber_ends_with_an_error_after_the_timeout(listener, bag):
    player = Player(listener.node, bag, bag.topics)
    with pytest.raises(TimeoutError, match=f'no subscriber to {TOPIC}'):
        player.wait_for_subscriber(0.1, listener.spin_until)


@pytest.fixture
def bag_of_unknown_type(tmp_path):
    """A bag with only a type that rosbags knows and that may not be installed."""
    with BagWriter(tmp_path / 'unknown') as writer:
        writer.add_topic('/unknown', 'stereo_msgs/msg/DisparityImage')
        writer.write('/unknown', 1, b'')
    with Bag(tmp_path / 'unknown') as opened:
        yield opened


def test_a_topic_whose_type_is_not_installed_is_skipped_with_a_message(
    listener, bag_of_unknown_type, bag, monkeypatch
):
    monkeypatch.setattr(play, 'message_class', _only_sensor_msgs)
    with pytest.raises(BagError, match=r'/unknown is skipped: stereo_msgs/msg/DisparityImage'):
        Player(listener.node, bag_of_unknown_type, bag_of_unknown_type.topics)
    player = Player(listener.node, bag, [*bag_of_unknown_type.topics, *bag.topics])
    assert player.skipped == [
        '/unknown is skipped: stereo_msgs/msg/DisparityImage is not installed'
    ]
    assert player.count == 12


def _only_sensor_msgs(name):
    return CompressedImage if name == 'sensor_msgs/msg/CompressedImage' else None


def test_a_topic_whose_name_is_not_valid_in_ros_2_is_skipped_with_a_message(
    listener, bag, tmp_path
):
    with BagWriter(tmp_path / 'numbered') as writer:
        writer.add_topic('/uav/0/image', 'sensor_msgs/msg/CompressedImage')
        writer.write('/uav/0/image', 1, b'')
    with Bag(tmp_path / 'numbered') as numbered:
        player = Player(listener.node, bag, [*numbered.topics, *bag.topics])
    assert player.skipped == ['/uav/0/image is skipped: it is not a valid topic name in ROS 2']
    assert player.count == 12


def test_message_classes_are_found_by_name():
    assert message_class('sensor_msgs/msg/Image') is Image
    assert message_class('no_such_msgs/msg/Thing') is None
    assert message_class('sensor_msgs/msg/Thing') is None


def test_topics_are_chosen_by_name(bag):
    assert [topic.name for topic in choose_topics(bag, [TOPIC, TOPIC])] == [TOPIC]
    assert choose_topics(bag, None) == bag.topics
    with pytest.raises(UsageError, match=f'no topic /x; topics: {TOPIC}'):
        choose_topics(bag, ['/x'])


def test_the_recorded_qos_is_offered():
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


def test_unknown_qos_policies_become_the_defaults():
    unknown = RELIABLE._replace(
        reliability=QosReliability.UNKNOWN, durability=QosDurability.SYSTEM_DEFAULT, depth=0
    )
    assert to_profile(unknown) == to_profile(RELIABLE)


def test_a_missing_bag_gives_an_error_of_one_line(capsys):
    assert main(['play', 'no_bag']) == 1
    assert capsys.readouterr().err == 'rock_seg play: no_bag: the bag does not exist\n'


def test_messages_before_damage_are_published_and_the_status_is_an_error(
    listener, demo_data, monkeypatch, capsys
):
    original, finished = Bag.messages, []

    def messages(bag, topics):
        for _, message in zip(range(3), original(bag, topics), strict=False):
            yield message
        raise BagError('bag: damaged')

    monkeypatch.setattr(Bag, 'messages', messages)
    monkeypatch.setattr(Player, 'finish', lambda player: finished.append(player.count))
    assert main(['play', str(demo_data / 'mars_drive'), '--rate', '100']) == 1
    assert finished == [12]
    assert 'rock_seg play: bag: damaged' in capsys.readouterr().err


@pytest.mark.parametrize('option', ['--rate=0', '--rate=-1', '--clock=0', '--rate=inf'])
def test_a_rate_that_is_not_above_zero_is_a_usage_error(option):
    assert main(['play', 'no_bag', option]) == 2


def test_a_subscriber_receives_all_messages_with_wait_for_subscribers(listener, demo_data):
    received = listener.subscribe(CompressedImage, TOPIC)
    bag = str(demo_data / 'mars_drive')
    process = _start(bag, '--wait-for-subscribers', str(TIMEOUT))
    # The last message may arrive after the process has ended.
    listener.wait_for(lambda: len(received) == 12 or process.poll())
    assert process.wait(TIMEOUT) == 0
    assert len(received) == 12


def test_ctrl_c_ends_a_loop_at_once_without_a_traceback(listener, demo_data):
    received = listener.subscribe(CompressedImage, TOPIC)
    process = _start(str(demo_data / 'mars_drive'), '--loop', '--rate', '4')
    listener.wait_for(lambda: len(received) > 12)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=TIMEOUT)
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
