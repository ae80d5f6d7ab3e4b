# SPDX-License-Identifier: Apache-2.0
"""Finds rocks in camera images: a ROS 2 node and the tools around it."""
