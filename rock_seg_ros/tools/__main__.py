# SPDX-License-Identifier: Apache-2.0
"""Runs the `rock_seg` command as `python -m rock_seg_ros.tools`, without installation."""

from rock_seg_ros.entry_points import rock_seg

rock_seg()
