# SPDX-License-Identifier: Apache-2.0
"""The profile config/fastdds.xml between two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROFILES = Path(__file__).resolve().parents[2] / 'config' / 'fastdds.xml'
IMAGES = 20
PROGRAM = """
import sys, time
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node(sys.argv[1], start_parameter_services=False)
executor = SingleThreadedExecutor()
executor.add_node(node)
profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
received = set()
if sys.argv[1] == 'camera':
    publisher = node.create_publisher(Image, 'image', profile)
    message = Image(height=480, width=640, encoding='rgb8', step=1920)
    message.data.frombytes(bytes(480 * 1920))
    while not publisher.get_subscription_count():
        executor.spin_once(timeout_sec=0.1)
    for number in range(int(sys.argv[2])):
        message.header.frame_id = str(number)
        publisher.publish(message)
        time.sleep(0.05)  # the rate of a camera
else:
    def take(image):
        number = int(image.header.frame_id)
        print(number, flush=True)
        received.add(number)
    subscription = node.create_subscription(Image, 'image', take, profile)
    last = int(sys.argv[2]) - 1
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and last not in received:
        executor.spin_once(timeout_sec=0.1)
node.destroy_node()
rclpy.shutdown()
"""


def test_all_best_effort_images_arrive_with_the_profile() -> None:
    names = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
    environment = {**os.environ, **dict.fromkeys(names, str(PROFILES))}

    def start(name: str) -> subprocess.Popen[str]:
        words = [sys.executable, '-c', PROGRAM, name, str(IMAGES)]
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)

    listener, camera = start('listener'), start('camera')
    try:
        received = listener.communicate(timeout=40)[0].split()
    finally:
        for process in (listener, camera):
            process.kill()
            process.communicate()
    first = int(received[0]) if received else 0
    assert [int(number) for number in received] == list(range(first, IMAGES))
    assert first < IMAGES / 2
