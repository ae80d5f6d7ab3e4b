# SPDX-License-Identifier: Apache-2.0
"""The ROS shell: thin, no image arithmetic."""
