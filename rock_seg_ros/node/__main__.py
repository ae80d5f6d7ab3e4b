# SPDX-License-Identifier: Apache-2.0
"""`python -m rock_seg_ros.node`: the node without an installed command."""

from rock_seg_ros.entry_points import seg_node

seg_node()
