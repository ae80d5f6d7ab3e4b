# SPDX-License-Identifier: Apache-2.0
"""Programs that `rock_seg bench` runs for comparison, each in its own process."""
