# SPDX-License-Identifier: Apache-2.0
"""The `rock_seg doctor` command."""
