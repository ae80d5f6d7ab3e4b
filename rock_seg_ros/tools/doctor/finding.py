# SPDX-License-Identifier: Apache-2.0
"""The result of a check of the installation."""

from __future__ import annotations

import importlib
import shlex
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from rock_seg_ros.perception.errors import first_line

State = Literal['ok', 'warning', 'failed']


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was checked.
        state: 'failed' = the node cannot run; 'warning' = something that is optional is missing.
        text: Versions, or the reason.
        fix: Command that fixes it; '' = nothing to do.
    """

    name: str
    state: State
    text: str
    fix: str = ''


def pip_install(*requirements: str) -> str:
    """Returns the command that installs packages into the environment of this Python."""
    return shlex.join([sys.executable, '-m', 'pip', 'install', *requirements])


def import_or_reason(name: str) -> tuple[ModuleType | None, str]:
    """Imports a module.

    Returns:
        The module and '', or None and the reason in one line.
    """
    try:
        return importlib.import_module(name), ''
    except ModuleNotFoundError as error:
        return None, f'{error.name or name} is not installed'
    except Exception as error:  # noqa: BLE001  (a broken installation raises any exception)
        return None, f'cannot be imported: {first_line(error)}'
