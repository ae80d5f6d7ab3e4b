# SPDX-License-Identifier: Apache-2.0
"""Chooses the threshold of weights on one half of each validation set.

The best threshold has the highest mean IoU over the cases with rock, among the thresholds that keep
the share of false positive pixels within the limits of the cases. `training.benchmark` reports on
the other half.
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
from training.evaluation import Perturbation, segment_perturbed
from training.metrics import Counts, figures, stack, weighted_sum
from training.sources import DataError
from training.tables import Table, as_text

LOWEST, HIGHEST = 1e-6, 1 - 1e-6  # nearly all pixels are rock, and nearly none
HALF = 'tune'


class Probabilities:
    """Caches the result of a network for the latest image, from which all thresholds follow."""

    def __init__(self, segmenter: Segmenter) -> None:
        """Stores the network."""
        self._segmenter = segmenter
        self._latest: tuple[Pixels, Perturbation, Segmentation, Segmentation] | None = None

    @property
    def card(self) -> Card:
        """The card of its weights."""
        return self._segmenter.card

    def at(self, image: Pixels, conditions: Perturbation, threshold: float) -> Segmentation:
        """Segments H×W×3 uint8 RGB with this threshold, which is rounded to 1/255.

        The result is exact for one rock class. With several, the most probable one must reach the
        threshold by itself.
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
    """A network with a threshold that differs from that of its card.

    Attributes:
        probabilities: Cached result of the network, shared by all thresholds.
        threshold: Probability from which a pixel is rock.
    """

    probabilities: Probabilities
    threshold: float

    @property
    def card(self) -> Card:
        """The card of its weights."""
        return self.probabilities.card

    def segment(self, image: Pixels, conditions: Perturbation) -> Segmentation:
        """Segments a perturbed image, H×W×3 uint8 RGB; the result has the size of the image."""
        return self.probabilities.at(image, conditions, self.threshold)


@dataclass(frozen=True)
class Point:
    """Results with one threshold.

    Attributes:
        threshold: Probability from which a pixel is rock.
        mean_iou: IoU of rock pixels, weighted mean over the cases.
        precision: Precision of rocks, matched at IoU 0.5, weighted mean over the cases.
        recall: Recall of rocks, weighted mean over the cases.
        ious: Name of a case with rock → its IoU.
        false_rock: Name of a case with a limit → share of its non-rock pixels that are false
            positives.
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
        """Returns the object that `--json` prints."""
        return vars(self)


def curve(
    segmenter: Segmenter, cases: Mapping[str, Case], thresholds: Iterable[float]
) -> list[Point]:
    """Evaluates each threshold on the half for tuning.

    Args:
        segmenter: The network.
        cases: Name → case; all of them have images.
        thresholds: Thresholds above 0 and below 1.

    Returns:
        One point per threshold, in ascending order.

    Raises:
        DataError: A file cannot be decoded, or no case with a weight has rock.
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
    case_figures = {
        name: figures(weighted_sum(own, np.ones(len(own.pixels)))) for name, own in counts.items()
    }
    chosen_by = [
        name for name, own in counts.items() if cases[name].weight and own.pixels[:, 1].any()
    ]
    if not chosen_by:
        raise DataError('no case has both labelled rock and a weight above 0')
    limits = {
        name: limit
        for name in counts
        if (limit := cases[name].most_false_rock) is not None
        and not np.isnan(case_figures[name]['false_rock'])
    }
    weights = [cases[name].weight for name in chosen_by]
    iou, precision, recall = (
        _mean([float(case_figures[name][figure]) for name in chosen_by], weights)
        for figure in ('iou', 'rocks.precision', 'rocks.recall')
    )
    false_rock = {name: float(case_figures[name]['false_rock']) for name in limits}
    return Point(
        threshold,
        iou,
        precision,
        recall,
        {name: float(case_figures[name]['iou']) for name in chosen_by},
        false_rock,
        [name for name, limit in limits.items() if false_rock[name] > limit],
    )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Returns the weighted mean; NaN, where nothing was found, counts as 0."""
    return float(np.average(np.nan_to_num(values), weights=weights))


def best(points: Sequence[Point]) -> Point | None:
    """Returns the point with the highest mean IoU that exceeds no limit; None if all exceed one."""
    allowed = [point for point in points if not point.exceeded]
    return max(allowed, key=lambda point: point.mean_iou, default=None)


def write_threshold(file: Path, threshold: float) -> None:
    """Stores a threshold in the metadata of a `.safetensors` file without changing its tensors.

    Raises:
        WeightsError: The file has another format.
        OSError: The file cannot be written.
    """
    if file.suffix != '.safetensors':
        raise WeightsError(f'{file}: --write works only with .safetensors')
    card = replace(load_weights(file).card, threshold=threshold)
    with safe_open(file, framework='pt') as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = {**opened.metadata(), 'card': card.to_json()}
    write_beside(file, lambda temporary: save_file(tensors, temporary, metadata))


def table(points: Sequence[Point], chosen: Point | None, card_threshold: float) -> Table:
    """Returns the curve as a table, with the best threshold and that of the card marked."""
    heads = ['threshold', '', 'mean IoU', 'rocks, precision', 'rocks, recall']
    heads += [f'IoU {name}' for name in points[0].ious]
    heads += [f'false positives {name}, %' for name in points[0].false_rock]
    rows = []
    for point in points:
        mark = (
            '<- best' if point is chosen else 'current' if point.threshold == card_threshold else ''
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
        'Thresholds on the tuning half; ! = above the limit of false positive pixels of the case',
        heads,
        rows,
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, prog='python -m training.tune')
    parser.add_argument(
        '--weights',
        type=str,
        default='',
        help='weights file (default: resnet50 on CUDA, light on a CPU)',
    )
    parser.add_argument('--config', action='config', help='YAML file with `cases`')
    parser.add_argument(
        '--cases',
        type=dict[str, Case],
        required=True,
        help='name: data set and settings of each case; usually in the file of --config',
    )
    parser.add_argument(
        '--only', nargs='+', type=str, default=[], help='names of the cases to use (default: all)'
    )
    parser.add_argument(
        '--device', default='auto', help='device of the network: auto, cpu, cuda or cuda:N'
    )
    parser.add_argument(
        '--preset', choices=PRESETS, default='auto', help='trade-off between accuracy and speed'
    )
    parser.add_argument(
        '--thresholds',
        nargs='+',
        type=float,
        default=[round(0.02 * step, 2) for step in range(10, 46)],
        help='thresholds to compare, besides the current one (default: 0.2 to 0.9 in steps of'
        ' 0.02)',
    )
    parser.add_argument(
        '--write',
        action='store_true',
        help='store the best threshold in the metadata of the .safetensors file',
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def _tune(given: Namespace) -> tuple[list[Point], Point | None, float, dict[str, str]]:
    """Returns the curve, its best point, the current threshold, and the skipped cases."""
    if not all(0 < threshold < 1 for threshold in given.thresholds):
        raise ValueError(f'thresholds must be between 0 and 1, not {given.thresholds}')
    weights = load_weights(given.weights, given.device)
    if given.write and weights.path.suffix != '.safetensors':
        raise WeightsError(f'{weights.path}: --write works only with .safetensors')
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
        result = {
            'threshold': chosen.threshold if chosen else None,
            'card_threshold': own,
            'missing': missing,
            'curve': [point.to_json() for point in points],
        }
        print(json.dumps(result))
    else:
        print(as_text(table(points, chosen, own)))
        for name, reason in missing.items():
            print(f'missing: {name}: {reason}')
        if given.write and chosen:
            print(
                f'threshold {chosen.threshold:g} written; the metrics in the metadata are still'
                ' those of the old threshold'
            )
    if chosen is None:
        exceeded = ', '.join(points[-1].exceeded)
        print(
            f'training.tune: no threshold up to {points[-1].threshold:g} keeps the false positive'
            f' pixels within the limits of: {exceeded}',
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
