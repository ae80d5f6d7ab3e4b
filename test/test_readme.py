# SPDX-License-Identifier: Apache-2.0
"""The README says what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rock_seg_ros.node.outputs import OUTPUTS
from rock_seg_ros.node.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / 'README.md').read_text()


@pytest.mark.parametrize('name', sorted(PARAMETERS))
def test_the_parameter_table_has_each_parameter_with_its_default_and_description(name):
    spec = PARAMETERS[name]
    row = next(line for line in README.splitlines() if line.startswith(f'| `{name}`'))
    _, parameter, default, _, what, _ = (cell.strip() for cell in row.split('|'))
    written = '' if spec.default == () else str(spec.default)
    written = written.lower() if isinstance(spec.default, bool) else written
    assert default == (f'`{written}`' if written else 'empty')
    assert what == spec.metadata['description']
    assert ('*live*' in parameter) == spec.metadata['live']


def test_the_topic_table_has_each_output():
    for output in OUTPUTS:
        assert f'`{output.topic}`' in README


def test_every_file_that_it_links_to_exists():
    links = re.findall(r'\]\(([^)#:]+)\)', README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
