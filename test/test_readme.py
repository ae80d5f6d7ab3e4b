# SPDX-License-Identifier: Apache-2.0
"""Topics, commands and examples of the README exist and run."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from rock_seg_ros.node.outputs import OUTPUTS
from rock_seg_ros.tools.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()


def test_the_readme_is_shorter_than_100_lines() -> None:
    assert len(README.splitlines()) < 100


def test_each_topic_in_the_readme_is_published() -> None:
    published = {output.topic for output in OUTPUTS}
    named = set(re.findall(r'`(~/[\w/]+)`', README))
    assert {'~/mask', '~/rocks', '~/instances'} <= named <= published


def test_each_command_in_readme_and_docs_exists() -> None:
    text = README + ''.join(page.read_text() for page in (ROOT / 'docs').glob('*.md'))
    named = set(re.findall(r'^(?:\s*|.*bin/)rock_seg ([a-z]+)\b', text, re.MULTILINE))
    assert {'images', 'bag'} <= named <= set(COMMANDS)
    modules = set(re.findall(r'python -m (training\.\w+)', text))
    assert modules
    for module in modules:
        assert (ROOT / f'{module.replace(".", "/")}.py').exists(), module


def test_each_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / 'Makefile').read_text()
    for target in re.findall(r'make ([a-z]+)\b', README):
        assert re.search(rf'^{target}:', makefile, re.MULTILINE), target


def test_the_python_example_of_the_readme_writes_an_overlay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / 'demo').symlink_to(ROOT / 'demo')
    monkeypatch.chdir(tmp_path)
    lines = re.search(r'## Python\n\n.*\n\n((?:    .*\n)+)', README)
    assert lines is not None
    exec(textwrap.dedent(lines[1]), {})
    assert (tmp_path / 'overlay.png').stat().st_size > 10_000
