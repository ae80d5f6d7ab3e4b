# SPDX-License-Identifier: Apache-2.0
"""The documentation is up to date with the code, and its links have targets."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
PAGES = [*sorted(DOCS.glob('*.md')), ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']


@pytest.fixture(scope='module')
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location('generate', DOCS / 'generate.py')
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_pages_equal_the_code(generate: ModuleType) -> None:
    pages = generate.pages()
    assert len(pages) >= 5
    for page, text in pages.items():
        assert page.read_text() == text, f'{page.name} is out of date: run python docs/generate.py'
        assert str(ROOT) not in text, page.name


def test_each_parameter_has_a_row_with_its_default_and_description() -> None:
    from rock_seg_ros.node.parameters import PARAMETERS

    text = (DOCS / 'interfaces.md').read_text()
    rows = {row.split('`')[1]: row for row in text.splitlines() if row.startswith('| `')}
    for name, spec in PARAMETERS.items():
        assert spec.metadata['description'].split()[-1] in rows[name]
        assert f'`{spec.default}`'.lower() in rows[name].lower() or spec.default in ('', ())
        assert ('*live*' in rows[name]) == spec.metadata['live']


def test_each_output_has_a_row_with_its_type() -> None:
    from rock_seg_ros.node.outputs import OUTPUTS

    text = (DOCS / 'interfaces.md').read_text()
    for output in OUTPUTS:
        kind = output.message_type.__name__
        assert re.search(rf'^\| `{output.topic}`<br>\w+/{kind} \|', text, re.MULTILINE)


def test_each_key_on_diagnostics_has_a_row() -> None:
    from rock_seg_ros.node.diagnostics import CameraStatistics

    statistics = CameraStatistics()
    statistics.rejected('REASON')
    statistics.failed('REASON')
    statistics.ignored('REASON')
    statistics.published({'STAGE': 0.1}, 0.2)
    source = (ROOT / 'rock_seg_ros' / 'node' / 'seg_node.py').read_text()
    keys = re.findall(r"^ +values\['([a-z ]+)'\] =", source, re.MULTILINE)
    assert {'device', 'weights', 'loading'} <= set(keys)
    keys += [pair.key for pair in statistics.status('', {'state': 'active'}).values]
    page = (DOCS / 'interfaces.md').read_text()
    described = page[page.index('## Diagnostics') : page.index('## Parameters')]
    for key in keys:
        assert re.sub(r' p(95|99) ms', ' p50 ms', key) in described, key


def test_each_service_of_the_node_is_described() -> None:
    source = (ROOT / 'rock_seg_ros/node/seg_node.py').read_text()
    services = re.findall(r"\('(~/\w+)', self\._\w+\)", source)
    assert len(services) >= 3
    text = (DOCS / 'interfaces.md').read_text()
    for service in services:
        assert f'| `{service}` | std_srvs/Trigger |' in text


def test_every_message_has_an_entry_on_the_page_on_troubleshooting(generate: ModuleType) -> None:
    text = (DOCS / 'troubleshooting.md').read_text()
    for entry in {*generate.ENTRIES.values(), *generate.SOURCE_ENTRIES.values()}:
        assert f'\n## {entry}\n' in text


def headings(generate: ModuleType, page: Path) -> set[str]:
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {generate.slug(heading) for heading in re.findall(r'^#+ (.+)$', text, re.MULTILINE)}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_the_targets_of_links_exist(generate: ModuleType, page: Path) -> None:
    for link in re.findall(r'\]\(([^)\s]+)\)', page.read_text()):
        if link.startswith('https://'):
            continue
        name, _, anchor = link.partition('#')
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in headings(generate, target), link
        if page.parent == DOCS:
            assert target.resolve().is_relative_to(DOCS), f'{link} is not in the built pages'


def test_each_page_is_in_the_table_of_contents() -> None:
    index = (DOCS / 'index.md').read_text()
    listed = set(re.findall(r'^(\w+)$', index, re.MULTILINE))
    assert {page.stem for page in DOCS.glob('*.md')} - {'index'} == listed


def test_pages_load_nothing_from_the_network() -> None:
    for file in DOCS.iterdir():
        if file.suffix in ('.py', '.css', '.html', '.svg'):
            loaded = re.findall(r'(?:src|href|url)\W+https?://\S+', file.read_text())
            assert not loaded, file.name


def test_pages_use_the_words_of_the_glossary() -> None:
    for page in PAGES:
        text = page.read_text()
        if page.stem != 'glossary':
            assert not re.search(r'\b(legal|so many)\b', text), page.name
        if page.stem not in ('glossary', 'command_line', 'messages', 'interfaces'):
            assert not re.search(r'\b(pictures?|set aside|told|the own|let go)\b', text), page.name
