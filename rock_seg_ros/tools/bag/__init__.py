# SPDX-License-Identifier: Apache-2.0
"""The `rock_seg bag` command, and reading and writing of bags for all tools."""
