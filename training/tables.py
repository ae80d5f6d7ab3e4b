# SPDX-License-Identifier: Apache-2.0
"""The benchmark's tables, as text and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from training.evaluation import NetworkResult, Result

# Path in the figures → heading.
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
UNKNOWN = '–'
CLEAR = ' *'


class Table(NamedTuple):
    """A table of text.

    Attributes:
        title: What is in it.
        heads: The columns' headings.
        rows: Of as many cells each.
    """

    title: str
    heads: list[str]
    rows: list[list[str]]


def figures_table(networks: Sequence[NetworkResult]) -> Table:
    """Returns a row for each case and network, the networks of a case next to each other.

    Args:
        networks: Measured on the same cases, at least one.
    """
    heads = ['case', 'network', 'images', *COLUMNS.values(), 'ms']
    rows = []
    for result in networks[0].results:
        for network in networks:
            own = network.result(result.name)
            cells = [figure_cell(own, name) for name in COLUMNS]
            speed = network.milliseconds
            ms = UNKNOWN if speed is None else f'{speed:.1f}'
            rows.append([own.name, network.name, str(own.figures['images']), *cells, ms])
    return Table('Figures, with 95 % intervals', heads, rows)


def figure_cell(result: Result, name: str) -> str:
    """Returns a figure and its interval: '0.790 [0.711, 0.854]', '–' where it is not known."""
    if name in NEED_ROCK and not result.counts.pixels[:, 1].any():
        return UNKNOWN
    return _cell(name, _at(result.figures, name), _at(result.figures['intervals'], name))


def differences_table(
    against: str, differences: Mapping[str, Mapping[str, Any]], order: Sequence[str]
) -> Table:
    """Returns by how much networks differ from another one, a row for each case and network.

    Args:
        against: Name of the other weights.
        differences: Name of a network → name of a case → what `compare` returns.
        order: Names of the cases.
    """
    rows = []
    for case in order:
        for network, own in differences.items():
            told = [_difference_cell(name, _at(own[case], name)) for name in COLUMNS]
            rows.append([case, network, *told])
    title = f'Difference from {against}, paired; * = the 95 % interval excludes 0'
    return Table(title, ['case', 'network', *COLUMNS.values()], rows)


def _difference_cell(name: str, difference: Mapping[str, Any]) -> str:
    told = _cell(name, difference['difference'], difference['interval'], '+')
    return told + CLEAR if difference['excludes_zero'] else told


def _cell(name: str, value: float | None, bounds: Sequence[float] | None, sign: str = '') -> str:
    if value is None:
        return UNKNOWN
    scale, places = (100, 2) if name in PERCENT else (1, 3)
    told = [f'{scale * each:{sign}.{places}f}' for each in (value, *(bounds or ()))]
    return f'{told[0]} [{told[1]}, {told[2]}]' if bounds else told[0]


def _at(figures: Mapping[str, Any], path: str) -> Any:
    place: Any = figures
    for name in path.split('.'):
        place = place[name]
    return place


def as_text(table: Table) -> str:
    """Returns a table with its columns aligned, below its title."""
    lines = [table.heads, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = [
        '  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return '\n'.join([table.title, '', *aligned])


def as_markdown(table: Table) -> str:
    """Returns a table in Markdown."""
    lines = [table.heads, ['---'] * len(table.heads), *table.rows]
    cells = ([cell.replace('|', r'\|') for cell in line] for line in lines)
    return '\n'.join(f'| {" | ".join(line)} |' for line in cells)
