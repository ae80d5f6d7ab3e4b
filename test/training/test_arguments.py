# SPDX-License-Identifier: Apache-2.0
"""Error messages of the training commands about strange arguments."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from rock_seg_ros.perception.errors import MAX_LENGTH

CONFIG = Path(__file__).parents[2] / 'config'
STRANGE = f'no\x1b[31m{"where" * 200}'


@pytest.mark.parametrize(
    ('command', 'words'),
    [
        ('benchmark', ['--config', str(CONFIG / 'training/benchmark.yaml'), '--weights', STRANGE]),
        ('compare_runtimes', ['--weights', STRANGE]),
        ('evaluate', ['--weights', STRANGE, '--data', 'nowhere']),
        ('export', ['--checkpoint', STRANGE, '-o', 'nowhere.safetensors']),
        ('evaluate_tracking', ['--network', '--weights', STRANGE]),
        ('inspect', [STRANGE]),
        ('evaluate_geometry', ['--weights', STRANGE]),
        ('synthesize', ['-o', f'/dev/null/{STRANGE}', '--count', '1']),
        ('train', ['--config', str(CONFIG / 'training.yaml'), '--sources.mine.path', STRANGE]),
    ],
)
def test_an_error_is_short_and_has_no_control_characters(
    command: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(f'training.{command}').main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    name, message = line.split(': ', 1)
    assert name == f'training.{command}'
    assert message.isprintable()
    assert 'wherewhere' in message
    assert len(message) <= MAX_LENGTH
