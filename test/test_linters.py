# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    'linter',
    [('ruff', 'check'), ('ruff', 'format', '--check'), ('mypy',)],
    ids=lambda linter: ' '.join(linter),
)
def test_the_linter_reports_nothing(linter: tuple[str, ...]) -> None:
    result = subprocess.run(
        [sys.executable, '-m', *linter], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
