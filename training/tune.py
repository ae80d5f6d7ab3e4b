# SPDX-License-Identifier: Apache-2.0
"""Chooses the threshold of weights on the one half of each validation set.

The best is that of the highest mean IoU over the cases that have rock, among those that keep false
rock within the limits that cases name. `training.benchmark` reports on the other half.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from safetensors import safe_open
from safetensors.torch import save_file

from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.pipeline import Pixels
from rock_seg_ros.perception.inference.presets import PRESETS
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmentation, Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights, write_beside
from training.cases import Case, choose_cases, measure
from training.datasets import DataError
from training.evaluation import Perturbation, segment_perturbed
from training.metrics import Counts, figures, stack, weighted_sum
from training.tables import Table, as_text

LOWEST, HIGHEST = 1e-6, 1 - 1e-6  # where nearly every pixel is rock, and nearly none
HALF = 'tune'


class Probabilities:
    """What a network makes of the latest image: enough to say what it finds at any threshold."""

    def __init__(self, segmenter: Segmenter) -> None:
        """Takes the network."""
        self._segmenter = segmenter
        self._latest: tuple[Pixels, Perturbation, Segmentation, Segmentation] | None = None

    @property
    def card(self) -> Card:
        """The card of its weights."""
        return self._segmenter.card

    def at(self, image: Pixels, conditions: Perturbation, threshold: float) -> Segmentation:
        """Segments H×W×3 uint8 RGB as if the threshold were this one, to 1/255.

        Exact for one class of rock; of several, the most probable one alone has to reach it.
        """
        if self._latest is None or self._latest[0] is not image or self._latest[1] != conditions:
            rock, other = (
                segment_perturbed(self._segmenter, image, conditions, limit)
                for limit in (LOWEST, HIGHEST)
            )
            self._latest = (image, conditions, rock, other)
        _, _, rock, other = self._latest
        is_rock = rock.rock_confidence >= threshold * 255
        return Segmentation(
            np.where(is_rock, rock.class_ids, other.class_ids),
            np.where(is_rock, rock.confidence, other.confidence),
            rock.rock_ids,
            rock.rim_id,
        )


@dataclass(frozen=True)
class AtThreshold:
    """A network with another threshold than its card's.

    Attributes:
        probabilities: The network's, shared by all thresholds.
        threshold: Probability from which a pixel is rock.
    """

    probabilities: Probabilities
    threshold: float

    @property
    def card(self) -> Card:
        """The card of its weights."""
        return self.probabilities.card

    def segment(self, image: Pixels, conditions: Perturbation) -> Segmentation:
        """Segments H×W×3 uint8 RGB under conditions; the result has the image's size."""
        return self.probabilities.at(image, conditions, self.threshold)


@dataclass(frozen=True)
class Point:
    """What a threshold comes to.

    Attributes:
        threshold: Probability from which a pixel is rock.
        mean_iou: Weighted mean of the cases' IoU of rock pixels.
        precision: Weighted mean of the cases' precision of rocks, matched at IoU 0.5.
        recall: Of their recall.
        ious: Name of a case that has rock → its IoU.
        false_rock: Name of a case with a limit → share of what is no rock that is called rock.
        exceeded: Names of the cases whose limit is exceeded.
    """

    threshold: float
    mean_iou: float
    precision: float
    recall: float
    ious: dict[str, float]
    false_rock: dict[str, float]
    exceeded: list[str]

    def to_json(self) -> dict[str, Any]:
        """Returns what `--json` prints of it."""
        return vars(self)


def curve(
    segmenter: Segmenter, cases: Mapping[str, Case], thresholds: Iterable[float]
) -> list[Point]:
    """Measures what each threshold comes to on the half that may be chosen by.

    Args:
        segmenter: The network.
        cases: By name, those that are there.
        thresholds: Above 0, below 1.

    Returns:
        A point for each, in ascending order.

    Raises:
        DataError: A file does not decode, or no case has rock to choose by.
    """
    probabilities = Probabilities(segmenter)
    networks = {f'{t:.9f}': AtThreshold(probabilities, t) for t in sorted(set(thresholds))}
    counts: dict[str, dict[str, list[Counts]]] = {name: {} for name in networks}
    for network, case, image_result in measure(networks, cases, HALF):
        counts[network].setdefault(case, []).append(image_result.counts)
    return [
        _point(network.threshold, cases, {case: stack(own) for case, own in counts[name].items()})
        for name, network in networks.items()
    ]


def _point(threshold: float, cases: Mapping[str, Case], counts: Mapping[str, Counts]) -> Point:
    told = {
        name: figures(weighted_sum(own, np.ones(len(own.pixels)))) for name, own in counts.items()
    }
    chosen_by = [
        name for name, own in counts.items() if cases[name].weight and own.pixels[:, 1].any()
    ]
    if not chosen_by:
        raise DataError('no case has both labelled rock and a weight: nothing to choose by')
    limits = {
        name: limit
        for name in counts
        if (limit := cases[name].most_false_rock) is not None
        and not np.isnan(told[name]['false_rock'])
    }
    weights = [cases[name].weight for name in chosen_by]
    iou, precision, recall = (
        _mean([float(told[name][figure]) for name in chosen_by], weights)
        for figure in ('iou', 'rocks.precision', 'rocks.recall')
    )
    false_rock = {name: float(told[name]['false_rock']) for name in limits}
    return Point(
        threshold,
        iou,
        precision,
        recall,
        {name: float(told[name]['iou']) for name in chosen_by},
        false_rock,
        [name for name, limit in limits.items() if false_rock[name] > limit],
    )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Returns the weighted mean; what is NaN, nothing being found, counts as 0."""
    return float(np.average(np.nan_to_num(values), weights=weights))


def best(points: Sequence[Point]) -> Point | None:
    """Returns the point of the highest mean IoU that exceeds no limit; None if each exceeds one."""
    allowed = [point for point in points if not point.exceeded]
    return max(allowed, key=lambda point: point.mean_iou, default=None)


def write_threshold(file: Path, threshold: float) -> None:
    """Puts a threshold into the card of a `.safetensors` file; its tensors stay bit for bit.

    Raises:
        WeightsError: It is no such file.
        OSError: It cannot be written.
    """
    if file.suffix != '.safetensors':
        raise WeightsError(f'{file}: --write is for .safetensors')
    card = replace(load_weights(file).card, threshold=threshold)
    with safe_open(file, framework='pt') as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = {**opened.metadata(), 'card': card.to_json()}
    write_beside(file, lambda temporary: save_file(tensors, temporary, metadata))


def table(points: Sequence[Point], chosen: Point | None, card_threshold: float) -> Table:
    """Returns the curve for people; the chosen threshold has an arrow, the card's a name."""
    heads = ['threshold', '', 'mean IoU', 'rocks, precision', 'rocks, recall']
    heads += [f'IoU {name}' for name in points[0].ious]
    heads += [f'false rock {name}, %' for name in points[0].false_rock]
    rows = []
    for point in points:
        mark = (
            '<- best' if point is chosen else "card's" if point.threshold == card_threshold else ''
        )
        row = [f'{point.threshold:.3f}', mark]
        row += [f'{v:.4f}' for v in (point.mean_iou, point.precision, point.recall)]
        row += [f'{iou:.4f}' for iou in point.ious.values()]
        row += [
            f'{100 * share:.3f}' + (' !' if name in point.exceeded else '')
            for name, share in point.false_rock.items()
        ]
        rows.append(row)
    return Table(
        "Threshold curve on the tuning half; ! = above the case's limit of false rock", heads, rows
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, prog='python -m training.tune')
    parser.add_argument('--weights', type=str, default='', help='weights file')
    parser.add_argument('--config', action='config', help='YAML file with `cases`')
    parser.add_argument(
        '--cases', type=dict[str, Case], required=True, help='name: what to choose by'
    )
    parser.add_argument('--only', nargs='+', type=str, default=[], help='names of cases')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    parser.add_argument('--preset', choices=PRESETS, default='auto', help='accuracy against speed')
    parser.add_argument(
        '--thresholds',
        nargs='+',
        type=float,
        default=[round(0.02 * step, 2) for step in range(10, 46)],
        help="what to choose among, beside the card's own (default: 0.2 to 0.9)",
    )
    parser.add_argument(
        '--write', action='store_true', help='put the best into the card of the .safetensors file'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def _tune(given: Namespace) -> tuple[list[Point], Point | None, float, dict[str, str]]:
    """Returns the curve, the best of it, the card's threshold, and what is missing."""
    if not all(0 < threshold < 1 for threshold in given.thresholds):
        raise ValueError(f'thresholds must be between 0 and 1, not {given.thresholds}')
    weights = load_weights(given.weights, given.device)
    if given.write and weights.path.suffix != '.safetensors':
        raise WeightsError(f'{weights.path}: --write is for .safetensors')
    segmenter = Segmenter(weights, given.device, preset=given.preset)
    wanted = {
        name: case
        for name, case in given.cases.items()
        if (case.weight or case.most_false_rock is not None)
        and not (case.held_out or case.only_recall)
    }
    cases, missing = choose_cases(wanted, given.only, weights.card.classes, HALF)
    own = weights.card.threshold
    points = curve(segmenter, cases, [*given.thresholds, own])
    chosen = best(points)
    if given.write and chosen:
        write_threshold(weights.path, chosen.threshold)
    return points, chosen, own, missing


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    parsed: Namespace = parser.parse_args(arguments)
    try:
        given = parser.instantiate(parsed)
        points, chosen, own, missing = _tune(given)
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.tune: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.json:
        told = {
            'threshold': chosen.threshold if chosen else None,
            'card_threshold': own,
            'missing': missing,
            'curve': [point.to_json() for point in points],
        }
        print(json.dumps(told))
    else:
        print(as_text(table(points, chosen, own)))
        for name, reason in missing.items():
            print(f'missing: {name}: {reason}')
        if given.write and chosen:
            print(f'threshold {chosen.threshold:g} written; the other figures of the card are old')
    if chosen is None:
        exceeded = ', '.join(points[-1].exceeded)
        print(
            f'training.tune: no threshold up to {points[-1].threshold:g} keeps false rock within'
            f' the limits of: {exceeded}',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
