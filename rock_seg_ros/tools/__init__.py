# SPDX-License-Identifier: Apache-2.0
"""The `rock_seg` command: one module or package per subcommand, and the code that they share."""
