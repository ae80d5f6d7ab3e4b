# SPDX-License-Identifier: Apache-2.0
"""The `rock_seg` command: one file a subcommand, and what they share."""
