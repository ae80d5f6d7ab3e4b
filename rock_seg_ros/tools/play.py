# SPDX-License-Identifier: Apache-2.0
"""`rock_seg play`: publishes the messages of a bag at the times at which they were recorded."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import rclpy
from rclpy.duration import Duration
from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.interfaces import Qos, QosDurability, QosHistory, QosReliability
from rosgraph_msgs.msg import Clock
from tqdm import tqdm

from rock_seg_ros.tools.bag.files import RELIABLE, Bag, BagError, BagMessage, BagTopic
from rock_seg_ros.tools.bag.storage import BAG_HELP
from rock_seg_ros.tools.main import UsageError

CLOCK_RATE = 40.0
SUBSCRIBER_TIMEOUT = 10.0
ACKNOWLEDGE_TIMEOUT = Duration(seconds=1)
POLL_INTERVAL = 0.05

Wait = Callable[[float], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg play`."""
    parser.add_argument('bag', type=Path, metavar='BAG', help=BAG_HELP)
    parser.add_argument(
        '--rate', type=_above_zero, default=1.0, metavar='R',
        help='playback speed relative to the recording: 0.5 is half as fast (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--loop', action='store_true', help='restart at the end of the bag until interrupted'
    )
    parser.add_argument(
        '--topics', nargs='+', metavar='TOPIC', help='publish only these topics (default: all)'
    )
    parser.add_argument(
        '--clock', type=_above_zero, nargs='?', const=CLOCK_RATE, metavar='HZ',
        help='also publish /clock at this rate, Hz, for nodes with use_sim_time'
        ' (without a number: %(const)s)',
    )  # fmt: skip
    parser.add_argument(
        '--wait-for-subscribers', type=_above_zero, nargs='?', const=SUBSCRIBER_TIMEOUT,
        default=0.0, metavar='S',
        help='wait until a topic has a subscriber before the start, at most this many seconds'
        ' (without a number: %(const)s)',
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Plays the bag until its end, or until it is interrupted."""
    with Bag(arguments.bag) as bag:
        topics = choose_topics(bag, arguments.topics)
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        try:
            node = rclpy.create_node('rock_seg_play', start_parameter_services=False)
            player = Player(node, bag, topics)
            for line in player.skipped:
                print(f'rock_seg play: {line}', file=sys.stderr)
            if arguments.wait_for_subscribers:
                player.wait_for_subscriber(arguments.wait_for_subscribers)
            while True:
                frames = player.play(arguments.rate, sleep_until, arguments.clock)
                try:
                    for _ in tqdm(frames, total=player.count, unit='message', file=sys.stderr):
                        pass
                except BagError:
                    player.finish()
                    raise
                if not arguments.loop:
                    break
            player.finish()
        finally:
            rclpy.try_shutdown()
    return 0


def choose_topics(bag: Bag, names: Iterable[str] | None) -> list[BagTopic]:
    """Returns the topics of the bag with these names, or all topics if `names` is None.

    Raises:
        UsageError: The bag has no such topic.
    """
    if names is None:
        return bag.topics
    topics = {topic.name: topic for topic in bag.topics}
    for name in names:
        if name not in topics:
            raise UsageError(f'{bag.path}: has no topic {name}; topics: {", ".join(topics)}')
    return [topics[name] for name in dict.fromkeys(names)]


class Player:
    """Publishes messages of a bag without decoding them.

    Attributes:
        skipped: One line per topic that cannot be published, with the reason.
        count: Number of messages in one pass over the bag.
    """

    def __init__(self, node: Node, bag: Bag, topics: Iterable[BagTopic]) -> None:
        """Creates a publisher for each topic with the recorded QoS.

        Raises:
            BagError: None of the topics can be published, or they have no messages.
        """
        self._node = node
        self._bag = bag
        self.skipped: list[str] = []
        self._publishers: dict[str, Any] = {}
        self._topics: list[BagTopic] = []
        for topic in topics:
            kind = message_class(topic.type)
            if kind is None:
                self.skipped.append(f'{topic.name} is skipped: {topic.type} is not installed')
            elif not bag.has_ros2_form(topic):
                self.skipped.append(
                    f'{topic.name} is skipped: {topic.type} has other fields in ROS 2'
                )
            else:
                try:
                    self._publishers[topic.name] = node.create_publisher(
                        kind, topic.name, to_profile(topic.qos or RELIABLE)
                    )
                except InvalidTopicNameException:  # ROS 1 permits tokens such as 0
                    self.skipped.append(
                        f'{topic.name} is skipped: it is not a valid topic name in ROS 2'
                    )
                else:
                    self._topics.append(topic)
        self.count = sum(topic.count for topic in self._topics)
        if not self.count:
            raise BagError(f'{bag.path}: {"; ".join(self.skipped) or "has no messages"}')
        self._clock: Any = None

    def wait_for_subscriber(self, timeout: float, wait: Wait | None = None) -> None:
        """Waits until one of the topics has a subscriber.

        Args:
            timeout: Maximum waiting time, s.
            wait: Called with the `time.monotonic()` until which to wait; None = sleep.

        Raises:
            TimeoutError: There is still no subscriber.
        """
        deadline = time.monotonic() + timeout
        while not any(p.get_subscription_count() for p in self._publishers.values()):
            if time.monotonic() > deadline:
                raise TimeoutError(f'no subscriber to {", ".join(self._publishers)}')
            (wait or sleep_until)(time.monotonic() + POLL_INTERVAL)

    def play(
        self, rate: float, wait: Wait, clock_rate: float | None = None
    ) -> Iterator[BagMessage]:
        """Publishes each message at its time, then yields it.

        Args:
            rate: Playback speed relative to the recording.
            wait: Called with the `time.monotonic()` until which to wait.
            clock_rate: Rate of /clock, Hz; None = /clock is not published.
        """
        if clock_rate and self._clock is None:
            self._clock = self._node.create_publisher(Clock, '/clock', 10)
        timed = with_clock_ticks(
            self._bag.messages(self._topics), int(1e9 * rate / clock_rate) if clock_rate else 0
        )
        for stamp, message in paced(timed, rate, wait):
            if message is None:
                self._publish_clock(stamp)
                continue
            self._publishers[message.topic].publish(message.data)
            yield message

    def finish(self) -> None:
        """Waits until reliable subscribers have acknowledged the last messages."""
        for publisher in self._publishers.values():
            publisher.wait_for_all_acked(ACKNOWLEDGE_TIMEOUT)

    def _publish_clock(self, stamp: int) -> None:
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(stamp, 10**9)
        self._clock.publish(message)


def with_clock_ticks(
    messages: Iterable[BagMessage], period: int
) -> Iterator[tuple[int, BagMessage | None]]:
    """Pairs messages with their stamps and inserts clock ticks (None) between them.

    Args:
        messages: Messages in the order of their stamps.
        period: Period of the ticks in bag time, ns; the first tick has the stamp of the first
            message. 0 = no ticks.

    Yields:
        Stamp (ns) and message, or None for a tick.
    """
    tick: int | None = None
    for message in messages:
        if period:
            tick = message.stamp if tick is None else tick
            while tick <= message.stamp:
                yield tick, None
                tick += period
        yield message.stamp, message


def paced(
    timed: Iterable[tuple[int, BagMessage | None]], rate: float, wait: Wait
) -> Iterator[tuple[int, BagMessage | None]]:
    """Yields each item at its time, which is computed from the first item to avoid drift.

    Args:
        timed: Stamp (ns) and item.
        rate: Playback speed relative to the stamps.
        wait: Called with the `time.monotonic()` until which to wait.
    """
    first: int | None = None
    start = 0.0
    for stamp, item in timed:
        if first is None:
            first, start = stamp, time.monotonic()
        wait(start + (stamp - first) * 1e-9 / rate)
        yield stamp, item


def sleep_until(moment: float) -> None:
    """Sleeps until `time.monotonic()` reaches `moment`."""
    time.sleep(max(0.0, moment - time.monotonic()))


def message_class(name: str) -> Any:
    """Returns the Python class of a message type; None if the type is not installed."""
    package, _, short = name.rpartition('/')
    try:
        kind = getattr(importlib.import_module(package.replace('/', '.')), short)
        kind.__class__.__import_type_support__()
    except (ImportError, AttributeError):
        return None
    return kind


def to_profile(qos: Qos) -> QoSProfile:
    """Converts a recorded QoS to a QoSProfile; unknown policies become the defaults of ROS 2."""
    best_effort = qos.reliability == QosReliability.BEST_EFFORT
    latched = qos.durability == QosDurability.TRANSIENT_LOCAL
    keep_all = qos.history == QosHistory.KEEP_ALL
    return QoSProfile(
        history=HistoryPolicy.KEEP_ALL if keep_all else HistoryPolicy.KEEP_LAST,
        depth=qos.depth or RELIABLE.depth,
        reliability=ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def _above_zero(text: str) -> float:
    value = float(text)
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be above 0, not {text}')
    return value
