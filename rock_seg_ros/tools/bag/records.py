# SPDX-License-Identifier: Apache-2.0
"""The results of output bags for exports: records, overlays, and what became of the inputs."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.node.images import ImageReader
from rock_seg_ros.tools.bag.files import Bag
from rock_seg_ros.tools.bag.topics import read_message
from rock_seg_ros.tools.results.exports import chosen_exports
from rock_seg_ros.tools.results.record_file import RecordFiles, summary_of
from rock_seg_ros.tools.results.results import Results, frame_file, frame_name

FILE_NAME = 'rocks.jsonl'  # in the folder of the output bag
OVERLAYS = ('/rock_seg/overlay/compressed', '/rock_seg/overlay')
MAX_NAMES = 3  # of bags in the title of a report


def results_of(bags: Iterable[Path], arguments: argparse.Namespace) -> tuple[Results, list[str]]:
    """Returns the results of output bags, and a line for each bag that has no records."""
    problems: list[str] = []
    summaries: dict[Path, dict[str, Any]] = {}
    for bag in filter(Path.exists, bags):
        file = bag / FILE_NAME
        summary = summary_of(file) if file.is_file() else {}
        missing = ''
        if 'records' not in summary:
            missing = ' or '.join(f'--{name}' for name in chosen_exports(arguments))
        elif not _has_labelme_images(summary, arguments.labelme):
            missing = f'--labelme {arguments.labelme}'
        if not missing:
            summaries[bag] = summary
        else:
            problems.append(
                f'{bag}: was made without {missing}, so its rocks are left out; process it again'
            )
    results = Results(
        _title([summary['bag'] for summary in summaries.values()]),
        RecordFiles([bag / FILE_NAME for bag in summaries]),
        lambda _, record: frame_file(arguments.labelme, record),
        partial(_overlays, {bag: summary['records'] for bag, summary in summaries.items()}),
        _tables(list(summaries.values())),
    )
    return results, problems


def _has_labelme_images(summary: Mapping[str, Any], folder: Path | None) -> bool:
    """Whether the images, which are written while a bag is processed, are in the folder."""
    if folder is None or not summary['records']:
        return True
    return (folder / frame_name(summary['bag'], summary['records'] - 1)).is_file()


def _title(names: Sequence[str]) -> str:
    more = f' and {len(names) - MAX_NAMES} more' if len(names) > MAX_NAMES else ''
    return ', '.join(names[:MAX_NAMES]) + more


def _tables(summaries: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """Returns the tables of a report: the bags, and why images or other inputs were not used."""
    bags = [
        {
            'bag': summary['bag'],
            'images with results': str(summary['records']),
            'rejected images': str(sum(summary['rejected'].values())),
            **{f'{name} topic': topic or '–' for name, topic in summary['topics'].items()},
            'damage': '; '.join(summary['damage']) or '–',
        }
        for summary in summaries
    ]
    rows = {
        title: [
            {'bag': summary['bag'], 'reason': reason, 'images': str(count)}
            for summary in summaries
            for reason, count in summary[key].items()
        ]
        for title, key in (('Rejected images', 'rejected'), ('Ignored inputs', 'ignored'))
    }
    return {'Bags': bags, **rows}


def _overlays(
    counts: Mapping[Path, int], indices: Sequence[int]
) -> Iterator[NDArray[np.uint8] | None]:
    """Yields the overlays of records in output bags; None where a bag has none.

    Args:
        counts: Bag → number of its records.
        indices: The records over all bags, in increasing order.
    """
    start = 0
    for bag, count in counts.items():
        wanted = [index - start for index in indices if start <= index < start + count]
        start += count
        if wanted:
            found = dict(_overlays_of(bag, wanted))
            yield from map(found.get, wanted)


def _overlays_of(path: Path, wanted: Sequence[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yields number and overlay of some images of a bag."""
    reader = ImageReader(lambda _: None)
    with Bag(path) as bag:
        topics = {topic.name: topic for topic in bag.topics}
        chosen = [topics[name] for name in OVERLAYS if name in topics][:1]
        for number, message in enumerate(bag.messages(chosen)):
            if number in wanted:
                yield number, reader.read(read_message(message.data, chosen[0].type))
