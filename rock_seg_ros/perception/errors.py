# SPDX-License-Identifier: Apache-2.0
"""Errors told in one line."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says; its class's name if it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
