# SPDX-License-Identifier: Apache-2.0
"""What the software knows about rocks: arrays and plain dataclasses in and out, no ROS."""
