# SPDX-License-Identifier: Apache-2.0
"""Reports statistics of labelled images and all invalid files, and draws contact sheets."""

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
from rock_seg_ros.perception.writing import make_folder
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
    sources: Mapping[str, DatasetConfig], classes: Sequence[str], out: Path | None, max_images: int
) -> Summary:
    """Reads all images of the sources.

    Args:
        sources: Name → source.
        classes: Class names; the index is the class id.
        out: Folder for `NAME_SPLIT_PAGE.jpg` and `summary.json`; None = no files are written.
        max_images: Maximum number of images drawn per split, evenly spaced; 0 = all.

    Returns:
        classes: The class names.
        sources: One dict per source, with name, path, format, left_out (number of images without
            labels), splits (name → result of `Statistics.figures`), and problems (dicts with the
            name of the image, or '', and the reason).

    Raises:
        OSError: The folder cannot be written.
    """
    if out is not None:
        make_folder(out)
    results = []
    for name, source in sources.items():
        head = {'name': name, 'path': source.path, 'format': source.format}
        results.append({**head, **_inspect_source(name, source, classes, out, max_images)})
    summary = {'classes': list(classes), 'sources': results}
    if out is not None:
        text = json.dumps(summary, indent=2, ensure_ascii=False)
        write_atomically(out / 'summary.json', text.encode(errors='backslashreplace'))
    return summary


def _inspect_source(
    name: str, source: DatasetConfig, classes: Sequence[str], out: Path | None, max_images: int
) -> Summary:
    try:
        samples = find_samples(source, 'all', classes)
    except DataError as error:
        problem = {'name': '', 'reason': str(error)}
        return {'left_out': 0, 'splits': {}, 'problems': [problem]}
    splits, problems = {}, []
    for split in sorted({sample.split for sample in samples}):
        members = [sample for sample in samples if sample.split == split]
        count = max_images or len(members)
        drawn = set() if out is None else set(evenly_spaced(range(len(members)), count))
        splits[split], split_problems, cells = _inspect_split(members, classes, drawn)
        problems += split_problems
        for number, page in enumerate(pages(cells), start=1):
            if out is not None:
                write_image(out / f'{name}_{split or "none"}_{number}.jpg', page)
    return {'left_out': _count_unlabelled(samples), 'splits': splits, 'problems': problems}


def _inspect_split(
    samples: Sequence[Sample], classes: Sequence[str], drawn: set[int]
) -> tuple[Summary, list[Summary], list[NDArray[np.uint8]]]:
    statistics, problems, cells = Statistics(classes), [], []
    for index, (sample, result) in enumerate(read_all(samples)):
        if isinstance(result, Problem):
            problems.append({'name': result.name, 'reason': result.reason})
            continue
        statistics.add(sample, result)
        if index in drawn:
            cells.append(thumbnail(result, sample.name))
    return statistics.figures(), problems, cells


def _count_unlabelled(samples: Sequence[Sample]) -> int:
    labelled = {sample.image for sample in samples}
    folders = {image.parent for image in labelled}
    return len({file for folder in folders for file in image_files(folder)} - labelled)


def describe(summary: Summary) -> str:
    """Returns the result of `inspect` as readable text."""
    lines = []
    for source in summary['sources']:
        lines.append(f'{source["name"]}: {source["path"]} ({source["format"]})')
        for split, figures in source['splits'].items():
            lines += _describe_split(split or 'in no split', figures)
        if source['left_out']:
            lines.append(f'  not used: {source["left_out"]} images without labels')
        lines.append(f'  problems: {len(source["problems"])}')
        lines += [f'    {printable(problem["reason"])}' for problem in source['problems']]
    return '\n'.join(map(visible, lines))


def _describe_split(split: str, figures: Mapping[str, Any]) -> list[str]:
    images, groups = (_counted(figures[f'{name}s'], name) for name in ('image', 'group'))
    lines = [f'  {split}: {images}, {groups}']
    if not figures['images']:
        return lines
    sides = ((figures['width'][name], figures['height'][name]) for name in ('min', 'median', 'max'))
    smallest, median, largest = (f'{width:.0f}×{height:.0f}' for width, height in sides)
    lines.append(f'    size {smallest} to {largest}, median {median} px')
    share = ', '.join(f'{name} {100 * part:.1f} %' for name, part in figures['share'].items())
    lines.append(f'    pixels {share}')
    if not figures['with_instances']:
        lines.append('    no instances')
    for name, instances in figures['instances'].items():
        area = ', '.join(f'{key} {value:.0f}' for key, value in instances['area'].items())
        lines.append(f'    {instances["count"]} {name}; area in px: {area}')
    return lines


def _counted(number: int, name: str) -> str:
    return f'{number} {name}' if number == 1 else f'{number} {name}s'


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be 0 or more, not {text!r}')
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.inspect', description=__doc__)
    parser.add_argument('data', nargs='*', type=Path, metavar='DATA', help='folder or COCO file')
    parser.add_argument(
        '--config', help='configuration of a training, whose sources are inspected instead of DATA'
    )
    add_dataset_options(parser)
    parser.add_argument(
        '--classes',
        help='class names in the order of their ids, separated by commas (default: the labels in'
        ' the files)',
    )
    parser.add_argument(
        '-o', '--out', type=Path, help='output folder for contact sheets and summary.json'
    )
    parser.add_argument(
        '--max-images',
        '--pictures',  # its name until 0.1
        type=_count,
        default=40,
        help='maximum number of images drawn per split; 0 = all (default: 40)',
    )
    return parser


def _sources(given: argparse.Namespace) -> tuple[dict[str, DatasetConfig], list[str]]:
    """Returns the sources by name, and the classes."""
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
    """Returns the given classes, else background, rock and the labels of the sources."""
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
        parser.error('give either DATA or --config, not both')
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
