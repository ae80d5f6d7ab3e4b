# SPDX-License-Identifier: Apache-2.0
"""`python -m rock_seg_ros.tools`: the `rock_seg` command without an installed one."""

from rock_seg_ros.entry_points import rock_seg

rock_seg()
