# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmark, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.evaluation import NetworkResult, Result

# Path in the metrics → heading.
COLUMNS = {
    'iou': 'IoU',
    'boundary_iou': 'boundary IoU',
    'rocks.precision': 'rocks, precision',
    'rocks.recall': 'rocks, recall',
    'false_rock': 'false rock, %',
    'ece': 'ECE',
}
NEED_ROCK = ('iou', 'boundary_iou', 'rocks.precision', 'rocks.recall')
PERCENT = ('false_rock',)
UNDEFINED = '–'
SIGNIFICANT = ' *'


class Table(NamedTuple):
    """A table of text.

    Attributes:
        title: Title of the table.
        heads: Headings of the columns.
        rows: Rows with one cell per column.
    """

    title: str
    heads: list[str]
    rows: list[list[str]]


def figures_table(networks: Sequence[NetworkResult]) -> Table:
    """Returns a table with a row per case and network.

    Args:
        networks: Results on the same cases, at least one.
    """
    heads = ['case', 'network', 'images', *COLUMNS.values(), 'ms']
    rows = []
    for result in networks[0].results:
        for network in networks:
            of_network = network.result(result.name)
            cells = [figure_cell(of_network, name) for name in COLUMNS]
            speed = network.milliseconds
            ms = UNDEFINED if speed is None else f'{speed:.1f}'
            images = str(of_network.figures['images'])
            rows.append([result.name, network.name, images, *cells, ms])
    return Table('Figures, with 95 % intervals', heads, rows)


def figure_cell(result: Result, name: str) -> str:
    """Returns a metric and its interval: '0.790 [0.711, 0.854]', or '–' if it is undefined."""
    if name in NEED_ROCK and not result.counts.pixels[:, 1].any():
        return UNDEFINED
    return _cell(name, _at(result.figures, name), _at(result.figures['intervals'], name))


def differences_table(
    against: str, differences: Mapping[str, Mapping[str, Any]], order: Sequence[str]
) -> Table:
    """Returns a table of the differences between networks, with a row per case and network.

    Args:
        against: Name of the weights that the others are compared with.
        differences: Name of a network → name of a case → result of `compare`.
        order: Names of the cases.
    """
    rows = []
    for case in order:
        for network, of_network in differences.items():
            cells = [_difference_cell(name, _at(of_network[case], name)) for name in COLUMNS]
            rows.append([case, network, *cells])
    title = f'Difference from {against}, paired; * = the 95 % interval excludes 0'
    return Table(title, ['case', 'network', *COLUMNS.values()], rows)


def _difference_cell(name: str, difference: Mapping[str, Any]) -> str:
    text = _cell(name, difference['difference'], difference['interval'], '+')
    return text + SIGNIFICANT if difference['excludes_zero'] else text


def _cell(name: str, value: float | None, bounds: Sequence[float] | None, sign: str = '') -> str:
    if value is None:
        return UNDEFINED
    scale, places = (100, 2) if name in PERCENT else (1, 3)
    texts = [f'{scale * each:{sign}.{places}f}' for each in (value, *(bounds or ()))]
    return f'{texts[0]} [{texts[1]}, {texts[2]}]' if bounds else texts[0]


def _at(figures: Mapping[str, Any], path: str) -> Any:
    value: Any = figures
    for name in path.split('.'):
        value = value[name]
    return value


def as_text(table: Table) -> str:
    """Returns the title, and the table with aligned columns."""
    lines = [table.heads, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return '\n'.join([table.title, '', *aligned])


def as_markdown(table: Table) -> str:
    """Returns the table in Markdown, without the title."""
    lines = [table.heads, ['---'] * len(table.heads), *table.rows]
    cells = ([cell.replace('|', r'\|') for cell in line] for line in lines)
    return '\n'.join(f'| {" | ".join(line)} |' for line in cells)
