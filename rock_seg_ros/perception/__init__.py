# SPDX-License-Identifier: Apache-2.0
"""Perception of rocks, with arrays and dataclasses as input and output, without ROS."""
