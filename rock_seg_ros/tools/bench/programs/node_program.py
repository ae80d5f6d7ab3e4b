# SPDX-License-Identifier: Apache-2.0
"""Runs a node of `rock_seg bench` as a program."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node


def run_node(description: str, make_node: Callable[[int | None], Node]) -> None:
    """Runs a node until it is interrupted; `make_node` gets the value of the option --rocks."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument('--rocks', type=int, metavar='N', help='number of rocks in the outputs')
    arguments, ros_arguments = parser.parse_known_args()
    rclpy.init(args=ros_arguments)
    try:
        rclpy.spin(make_node(arguments.rocks))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
