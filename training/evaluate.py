# SPDX-License-Identifier: Apache-2.0
"""Measures weights on labelled images, with the code that the node runs."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.errors import all_lines, first_line
from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.pipeline import ScoresError
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmenter import (
    CAPTURE_AFTER,
    DeviceError,
    Segmentation,
    Segmenter,
)
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.curves import read_curves
from training.metrics import Counts, Window, count_windows, stack, summarize, windows
from training.sources import DataError, Labelled, Sample, find_samples
from training.sources.options import add_source_options, source_of


@dataclass(frozen=True)
class Perturbation:
    """What is done to an image before the network sees it.

    Attributes:
        grey: Turn it grey.
        scale: Scale width and height; what is found is scaled back and judged at the label's size.
        gain: Multiply its values, and clip them at 255.
    """

    grey: bool = False
    scale: float = 1.0
    gain: float = 1.0

    def __post_init__(self) -> None:
        """Refuses what no image could be made of, with ValueError."""
        for name in ('scale', 'gain'):
            if not 0 < getattr(self, name) <= 16:
                raise ValueError(f'{name} must be above 0, at most 16, not {getattr(self, name)}')

    def __str__(self) -> str:
        """Says what is done, '' if nothing: 'grey, scale 0.5'."""
        changed = [f'{name} {getattr(self, name):g}' for name in ('scale', 'gain')]
        told = ['grey'] * self.grey + [text for text in changed if not text.endswith(' 1')]
        return ', '.join(told)

    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the image, H×W×3 uint8 RGB, as the network is to see it."""
        if self.grey:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)  # type: ignore[assignment]
        if self.gain != 1:
            image = cv2.convertScaleAbs(image, alpha=self.gain)  # type: ignore[assignment]
        if self.scale != 1:
            height, width = (max(1, round(side * self.scale)) for side in image.shape[:2])
            how = cv2.INTER_AREA if self.scale < 1 else cv2.INTER_LINEAR
            image = cv2.resize(image, (width, height), interpolation=how)  # type: ignore[assignment]
        return image


@dataclass(frozen=True)
class ImageResult:
    """An image that was measured on, or a tile of one.

    Attributes:
        sample: The image.
        counts: Of what was found in it.
        mask: H×W bool, where rock was found.
        tile: Rows and columns of the image that were measured; None = all.
        only_recall: Whether its label is incomplete, so that nothing but recall is known.
    """

    sample: Sample
    counts: Counts
    mask: NDArray[np.bool_]
    tile: Window | None = None
    only_recall: bool = False

    @property
    def name(self) -> str:
        """The image's name, and the tile's left and top, px: 'creek 320,0'."""
        if self.tile is None:
            return self.sample.name
        return f'{self.sample.name} {self.tile[1].start},{self.tile[0].start}'

    def read(self) -> Labelled:
        """Reads the image and its labels once more, as far as they were measured.

        Raises:
            DataError: They can no longer be read.
        """
        label = self.sample.read()
        if self.tile is None:
            return label
        instances = None if label.instances is None else label.instances[self.tile]
        return Labelled(label.image[self.tile], label.classes[self.tile], instances)

    @property
    def iou(self) -> float | None:
        """IoU of rock pixels, None where rock is neither true nor found."""
        value, told = self.counts.iou
        return float(value) if told else None

    @property
    def score(self) -> float | None:
        """What the worst images are chosen by, 0 to 1, worst to best; None: nothing to judge.

        IoU of rock pixels, or where the label is incomplete, their recall. In an image without
        true rock the share of pixels that are not called rock, as a single one makes the IoU 0.
        """
        (empty, false_positives), (false_negatives, found) = self.counts.pixels
        if false_negatives + found:
            return float(found / (false_negatives + found)) if self.only_recall else self.iou
        return (
            float(empty / (empty + false_positives))
            if false_positives and not self.only_recall
            else None
        )


@dataclass(frozen=True)
class Result:
    """What a measurement of one network on one set of images gave.

    Attributes:
        name: Of the data and the conditions, for people.
        conditions: Under which it was made.
        images: What was measured on.
        shown: Whether a report may show them.
    """

    name: str
    conditions: Perturbation
    images: list[ImageResult]
    shown: bool = True

    @cached_property
    def counts(self) -> Counts:
        """The counts of all images, P×…."""
        return stack([image_result.counts for image_result in self.images])

    @property
    def only_recall(self) -> bool:
        """Whether the labels are incomplete, so that nothing but recall is known."""
        return any(image_result.only_recall for image_result in self.images)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What `summarize` tells, and the conditions."""
        told = summarize(self.counts, self.only_recall)
        return told | {'conditions': asdict(self.conditions)}


@dataclass(frozen=True)
class NetworkResult:
    """What a network came to.

    Attributes:
        name: Of the network, for people: its weights and preset; may be empty where it is alone.
        card: Of its weights.
        results: On each set of images, at least one.
        milliseconds: From an image of 640×480 to its mask, median; None = not measured.
    """

    name: str
    card: Card
    results: list[Result]
    milliseconds: float | None = None

    def result(self, name: str) -> Result:
        """Returns the result of a name."""
        return next(result for result in self.results if result.name == name)


def evaluate(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    conditions: Perturbation | None = None,
    threshold: float | None = None,
    name: str = '',
    shown: bool = True,
    settings: RockSettings | None = None,
    rims: bool = True,
) -> Result:
    """Measures a network on whole images.

    Args:
        segmenter: The network.
        samples: The labelled images, at least one.
        conditions: What is done to the images; None = nothing.
        threshold: Probability from which a pixel is rock, 0 to 1; None = the card's.
        name: Of the result.
        shown: Whether a report may show the images.
        settings: Which rocks are told; None = as the node does by default.
        rims: Whether rocks may come apart along rims; false: by their shape, as for weights that
            know no rims.

    Raises:
        DataError: There is no image, or a file does not decode or does not fit its image.
        ValueError: The threshold is not legal.
    """
    if not samples:
        raise DataError(f'{name or "data"}: no images to measure on')
    if threshold is not None and not 0 < threshold < 1:
        raise ValueError(f'threshold must be between 0 and 1, not {threshold:g}')
    conditions = conditions or Perturbation()
    image_result = []
    for sample in tqdm(samples, unit='image', desc='evaluating'):
        label = sample.read()
        try:
            found = segment_perturbed(segmenter, label.image, conditions, threshold)
        except ScoresError as error:
            raise DataError(f'{sample.name}: {error}') from None
        if not rims:
            found.rim_id = None
        image_result += count_image(sample, label, found, settings)
    return Result(name, conditions, image_result, shown)


def count_image(
    sample: Sample,
    label: Labelled,
    found: Segmentation,
    settings: RockSettings | None = None,
    tiles: Sequence[Window] | None = None,
    only_recall: bool = False,
) -> list[ImageResult]:
    """Counts what was found in an image, as a whole or tile by tile.

    Args:
        sample: The image.
        label: What is true of it.
        found: What the network says of it.
        settings: Which rocks are told; None = as the node does by default.
        tiles: Of `windows`, all or some; None = the whole image.
        only_recall: Whether the label is incomplete.
    """
    where = windows(*label.classes.shape) if tiles is None else tiles
    counts = count_windows(label.classes, label.instances, found, where, settings)
    mask = found.mask() > 0
    return [
        ImageResult(sample, own, mask[tile], None if tiles is None else tile, only_recall)
        for tile, own in zip(where, counts, strict=True)
    ]


def segment_perturbed(
    segmenter: Segmenter,
    image: NDArray[np.uint8],
    conditions: Perturbation,
    threshold: float | None = None,
) -> Segmentation:
    """Segments an image, H×W×3 uint8 RGB, under conditions; the result has the image's size."""
    found = segmenter.segment(conditions.apply(image), threshold)
    height, width = image.shape[:2]
    if found.class_ids.shape == (height, width):
        return found
    ids, confidence = (
        cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        for plane in (found.class_ids, found.confidence)
    )
    return Segmentation(
        ids.astype(np.uint8, copy=False),
        confidence.astype(np.uint8, copy=False),
        found.rock_ids,
        found.rim_id,
    )


def lines(figures: dict[str, Any], intervals: dict[str, Any], path: str = '') -> Iterator[str]:
    """Yields figures for people, one a line, with their intervals.

    Args:
        figures: Of `summarize`, without `intervals`.
        intervals: Of the same names.
        path: Goes before each name.
    """
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from lines(value, intervals.get(name, {}), f'{path}{name}.')
            continue
        bounds = intervals.get(name)
        told = '-' if value is None else f'{value:.4g}'
        between = f'  {bounds[0]:.4g} to {bounds[1]:.4g}' if bounds else ''
        yield f'{path + name:22} {told:>8}{between}'


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='python -m training.evaluate', description=__doc__)
    parser.add_argument('--weights', required=True, help='weights file')
    parser.add_argument('--data', required=True, type=Path, help='folder or annotation file')
    parser.add_argument(
        '--split', choices=('val', 'train', 'all'), help='images to measure on (default: val)'
    )
    add_source_options(parser)
    parser.add_argument('--grey', action='store_true', help='turn the images grey')
    parser.add_argument('--scale', type=float, help='scale the images; judged at label size')
    parser.add_argument('--gain', type=float, help="multiply the images' values")
    parser.add_argument('--device', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--preset', choices=PRESETS, help='accuracy against speed')
    parser.add_argument('--output-stride', type=int, help="8 or 16; 0 = the preset's")
    parser.add_argument(
        '--threshold', type=float, help="probability from which a pixel is rock (default: card's)"
    )
    parser.add_argument(
        '--no-split-touching', action='store_true', help='judge connected components, not cut apart'
    )
    parser.add_argument(
        '--no-rims', action='store_true', help='cut as for weights that know no rims, by shape'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    parser.add_argument('--report', type=Path, metavar='OUT.html', help='write a report, too')
    parser.add_argument('--run', type=Path, help="training's run folder: its curves, in the report")
    parser.add_argument(
        '--worst', type=int, default=12, help='images shown in the report (default: %(default)s)'
    )
    parser.set_defaults(split='val', scale=1.0, gain=1.0)
    return parser


def _measure(given: argparse.Namespace) -> NetworkResult:
    asked = {name: getattr(given, name) for name in ('device', 'preset', 'output_stride')}
    how: Any = {name: value for name, value in asked.items() if value is not None}
    conditions = Perturbation(given.grey, given.scale, given.gain)
    weights = load_weights(given.weights, given.device or 'auto')
    segmenter = Segmenter(weights, capture_after=CAPTURE_AFTER, **how)
    samples = find_samples(source_of(given.data, given), given.split, segmenter.card.classes)
    parts = (given.data.resolve().name, given.split, str(conditions))
    name = ', '.join(part for part in parts if part)
    result = evaluate(
        segmenter,
        samples,
        conditions,
        given.threshold,
        name,
        settings=RockSettings(split_touching=not given.no_split_touching),
        rims=not given.no_rims,
    )
    return NetworkResult('', segmenter.card, [result])


def _measure_and_report(given: argparse.Namespace, command: str) -> tuple[NetworkResult, int]:
    """Returns what was measured, even where no report can be made of it, and the exit status."""
    from training.report import write_report  # which imports this module

    curves = read_curves(given.run) if given.run else None
    measured = _measure(given)
    try:
        write_report(given.report, [measured], command, curves, given.worst)
    except Exception as error:  # noqa: BLE001  (whatever it is, the figures are not lost)
        told = f'{given.report}: no report: {first_line(error)}'
        print(f'training.evaluate: {told}', file=sys.stderr)
        return measured, 1
    return measured, 0


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    given = _parser().parse_args(words)
    command = shlex.join(['python', '-m', 'training.evaluate', *words])
    try:
        if given.report:
            measured, status = _measure_and_report(given, command)
        else:
            measured, status = _measure(given), 0
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.evaluate: {all_lines(error)}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    figures = measured.results[0].figures
    if given.json:
        print(json.dumps(figures))
    else:
        shown = {name: v for name, v in figures.items() if name not in ('intervals', 'conditions')}
        print('\n'.join(lines(shown, figures['intervals'])))
    return status


if __name__ == '__main__':
    sys.exit(main())
