# SPDX-License-Identifier: Apache-2.0
"""Shows what is in labelled images, and names every broken file, before a training starts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.errors import all_lines, printable, visible
from rock_seg_ros.perception.image_io.image_files import image_files
from training.arguments import read_config
from training.datasets import (
    DataError,
    DatasetConfig,
    Problem,
    Sample,
    find_samples,
    read_all,
)
from training.datasets.contact_sheet import pages, thumbnail
from training.datasets.formats import FORMATS
from training.datasets.labels import BACKGROUND, IGNORED
from training.datasets.options import add_dataset_options, dataset_from_options
from training.datasets.selection import evenly_spaced
from training.datasets.statistics import Statistics
from training.writing import write_atomically, write_image

Summary = dict[str, Any]


def inspect(
    sources: Mapping[str, DatasetConfig], classes: Sequence[str], out: Path | None, most: int
) -> Summary:
    """Reads all images of some sources.

    Args:
        sources: Name → source.
        classes: Class names; the place is the class id.
        out: Folder for `NAME_SPLIT_PAGE.jpg` and `summary.json`; None: nothing is written.
        most: Most images that are drawn of a split, evenly spread; 0 = all.

    Returns:
        classes: As given.
        sources: A dict each: name, path, format, left_out (images without labels), splits, which
            maps their names to what `Statistics.figures` returns, and problems, a dict each: name
            (of the image, or empty) and reason.

    Raises:
        OSError: The folder cannot be written.
    """
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    told = []
    for name, source in sources.items():
        head = {'name': name, 'path': source.path, 'format': source.format}
        told.append({**head, **_inspect_source(name, source, classes, out, most)})
    summary = {'classes': list(classes), 'sources': told}
    if out is not None:
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        write_atomically(out / 'summary.json', text.encode(errors='backslashreplace'))
    return summary


def _inspect_source(
    name: str, source: DatasetConfig, classes: Sequence[str], out: Path | None, most: int
) -> Summary:
    try:
        samples = find_samples(source, 'all', classes)
    except DataError as error:
        problem = {'name': '', 'reason': str(error)}
        return {'left_out': 0, 'splits': {}, 'problems': [problem]}
    splits, problems = {}, []
    for split in sorted({sample.split for sample in samples}):
        own = [sample for sample in samples if sample.split == split]
        drawn = set() if out is None else set(evenly_spaced(range(len(own)), most or len(own)))
        splits[split], found, cells = _inspect_split(own, classes, drawn)
        problems += found
        for number, page in enumerate(pages(cells), start=1):
            if out is not None:
                write_image(out / f'{name}_{split or "none"}_{number}.jpg', page)
    return {'left_out': _left_out(samples), 'splits': splits, 'problems': problems}


def _inspect_split(
    samples: Sequence[Sample], classes: Sequence[str], drawn: set[int]
) -> tuple[Summary, list[Summary], list[NDArray[np.uint8]]]:
    statistics, problems, cells = Statistics(classes), [], []
    for place, (sample, found) in enumerate(read_all(samples)):
        if isinstance(found, Problem):
            problems.append({'name': found.name, 'reason': found.reason})
            continue
        statistics.add(sample, found)
        if place in drawn:
            cells.append(thumbnail(found, sample.name))
    return statistics.figures(), problems, cells


def _left_out(samples: Sequence[Sample]) -> int:
    taken = {sample.image for sample in samples}
    folders = {image.parent for image in taken}
    return len({file for folder in folders for file in image_files(folder)} - taken)


def describe(summary: Summary) -> str:
    """Writes what `inspect` found for people."""
    lines = []
    for source in summary['sources']:
        lines.append(f'{source["name"]}: {source["path"]} ({source["format"]})')
        for split, figures in source['splits'].items():
            lines += _describe_split(split or 'in no split', figures)
        if source['left_out']:
            lines.append(f'  left out: {source["left_out"]} images without labels')
        lines.append(f'  problems: {len(source["problems"])}')
        lines += [f'    {printable(problem["reason"])}' for problem in source['problems']]
    return '\n'.join(map(visible, lines))


def _describe_split(split: str, figures: Mapping[str, Any]) -> list[str]:
    lines = [f'  {split}: {figures["images"]} images, {figures["groups"]} groups']
    if not figures['images']:
        return lines
    sides = ((figures['width'][name], figures['height'][name]) for name in ('min', 'median', 'max'))
    smallest, middle, largest = (f'{width:.0f}×{height:.0f}' for width, height in sides)
    lines.append(f'    size {smallest} to {largest}, median {middle} px')
    share = ', '.join(f'{name} {100 * part:.1f} %' for name, part in figures['share'].items())
    lines.append(f'    pixels {share}')
    if not figures['with_instances']:
        lines.append('    rocks are not told apart')
    for name, own in figures['instances'].items():
        area = ', '.join(f'{key} {value:.0f}' for key, value in own['area'].items())
        lines.append(f'    {own["count"]} {name}; area in px: {area}')
    return lines


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be 0 or more, not {text!r}')
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.inspect', description=__doc__)
    parser.add_argument('data', nargs='*', type=Path, metavar='DATA', help='folder or COCO file')
    parser.add_argument('--config', help="a training's YAML file: its sources, instead of DATA")
    add_dataset_options(parser)
    parser.add_argument(
        '--classes', help='a,b,... in the order of their ids (default: what the labels say)'
    )
    parser.add_argument('-o', '--out', type=Path, help='folder for contact sheets and summary.json')
    parser.add_argument(
        '--max-images',
        '--pictures',  # its name until 0.1
        type=_count,
        default=40,
        help='maximum number of images drawn of each split; 0 = all (default: 40)',
    )
    return parser


def _sources(given: argparse.Namespace) -> tuple[dict[str, DatasetConfig], list[str]]:
    """Returns what is to be read, by name, and the classes."""
    if given.config:
        config = read_config(given.config)
        return config.sources, config.all_classes
    sources: dict[str, DatasetConfig] = {}
    for path in given.data:
        name = path.resolve().stem
        sources[f'{name}_{len(sources) + 1}' if name in sources else name] = dataset_from_options(
            path, given
        )
    return sources, _classes(sources.values(), given.classes)


def _classes(sources: Iterable[DatasetConfig], given: str | None) -> list[str]:
    """Returns the classes that are given, else background, rock and what the sources name."""
    if given is not None:
        return [name.strip() for name in given.split(',')]
    names = [BACKGROUND, 'rock']
    for source in sources:
        mapped = list(source.class_map.values())
        names += mapped or FORMATS[source.format].labels_in(Path(source.path))
    return [name for name in dict.fromkeys(names) if name != IGNORED]


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if bool(given.data) == bool(given.config):
        parser.error('give either DATA or --config')
    try:
        summary = inspect(*_sources(given), given.out, given.max_images)
    except (DataError, OSError) as error:
        print(f'training.inspect: {all_lines(error)}', file=sys.stderr)
        return 1
    except ValueError as error:
        parser.error(all_lines(error))
    except KeyboardInterrupt:
        return 130
    print(describe(summary))
    return 1 if any(source['problems'] for source in summary['sources']) else 0


if __name__ == '__main__':
    sys.exit(main())
