# SPDX-License-Identifier: Apache-2.0
"""Publishes or receives one topic: `python -m rock_seg_ros.tools.doctor.discovery receive TOPIC`.

It is a separate program, because a failure in DDS may end the process.
"""

from __future__ import annotations

import sys
import threading
import time

import rclpy
from std_msgs.msg import Empty

PERIOD = 0.1  # s
TIMEOUT = 10.0  # s


def main() -> int:
    """Publishes until stdin ends, or receives one message; returns the exit status."""
    action, topic = sys.argv[1:]
    rclpy.init(args=[])
    node = rclpy.create_node(f'{topic}_{action}', start_parameter_services=False)
    if action == 'publish':
        publisher = node.create_publisher(Empty, topic, 1)
        node.create_timer(PERIOD, lambda: publisher.publish(Empty()))
        threading.Thread(target=lambda: (sys.stdin.read(), rclpy.shutdown()), daemon=True).start()
        while rclpy.ok():
            rclpy.spin_once(node, timeout_sec=PERIOD)
        return 0
    received: list[Empty] = []
    began = time.monotonic()
    node.create_subscription(Empty, topic, received.append, 1)
    while not received and time.monotonic() - began < TIMEOUT:
        rclpy.spin_once(node, timeout_sec=PERIOD)
    if not received:
        print(f'two processes did not find each other within {TIMEOUT:.0f} s', file=sys.stderr)
        return 1
    print(time.monotonic() - began)
    return 0


if __name__ == '__main__':
    sys.exit(main())
