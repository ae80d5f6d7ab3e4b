# SPDX-License-Identifier: Apache-2.0
"""Chooses the threshold of weights on one half of each validation set.

The best threshold has the highest mean IoU over the cases with rock, among those that keep the
false positive rates within the limits of the cases. `training.benchmark` reports on the other half.
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

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Pixels, Segmentation
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, atomic_write, load_weights
from rock_seg_ros.perception.instances.rocks import RockSettings
from training.arguments import add_case_arguments, add_network_arguments
from training.cases import ALL_ROCKS, Case, available_cases, measure
from training.datasets import DataError
from training.evaluation import LatestResult, Perturbation, segment_perturbed
from training.metrics import Counts, figures, stack, weighted_sum
from training.tables import Table, as_text

LOWEST, HIGHEST = 1e-6, 1 - 1e-6  # with these, almost every pixel is rock, and almost none
HALF = 'tune'


class ProbabilityCache:
    """Caches the results of the latest image, from which those at any threshold follow."""

    def __init__(self, segmenter: Segmenter) -> None:
        """Stores the network."""
        self._segmenter = segmenter
        self._extremes = LatestResult(self._segment_extremes)

    @property
    def metadata(self) -> ModelMetadata:
        """Metadata of its weights."""
        return self._segmenter.metadata

    def at(self, image: Pixels, perturbation: Perturbation, threshold: float) -> Segmentation:
        """Segments H×W×3 uint8 RGB with a threshold, whose resolution is 1/255.

        The result is exact for one class of rock and one other class, with or without rim. With
        several, the most probable class alone has to reach the threshold.
        """
        rock, other = self._extremes.of(image, perturbation)
        is_rock = rock.rock_confidence >= threshold * 255
        ids = np.where(is_rock, rock.class_ids, other.class_ids)
        confidence = np.where(is_rock, rock.confidence, other.confidence)
        if rock.rim_id is not None:  # rock and rim together may reach the threshold
            whole = 255 - other.confidence
            is_rim = ~is_rock & (whole >= threshold * 255)
            ids[is_rim], confidence[is_rim] = rock.rim_id, whole[is_rim]
        return Segmentation(ids, confidence, rock.rock_ids, rock.rim_id)

    def _segment_extremes(
        self, image: Pixels, perturbation: Perturbation
    ) -> tuple[Segmentation, Segmentation]:
        """Segments an image with the lowest and with the highest threshold."""
        return (
            segment_perturbed(self._segmenter, image, perturbation, LOWEST),
            segment_perturbed(self._segmenter, image, perturbation, HIGHEST),
        )


@dataclass(frozen=True)
class NetworkAtThreshold:
    """A network with a threshold that replaces that of its metadata.

    Attributes:
        probabilities: The cached results of the network, shared by all thresholds.
        threshold: Probability from which a pixel is rock.
        rocks: How its rocks are found.
    """

    probabilities: ProbabilityCache
    threshold: float
    rocks: RockSettings = ALL_ROCKS

    @property
    def metadata(self) -> ModelMetadata:
        """Metadata of its weights."""
        return self.probabilities.metadata

    def segment(self, image: Pixels, perturbation: Perturbation) -> Segmentation:
        """Segments a changed image, H×W×3 uint8 RGB; the result has the size of the original."""
        return self.probabilities.at(image, perturbation, self.threshold)


@dataclass(frozen=True)
class CurvePoint:
    """The result of one threshold.

    Attributes:
        threshold: Probability from which a pixel is rock.
        mean_iou: Weighted mean over the cases of the IoU of rock pixels.
        precision: Weighted mean over the cases of the precision of rocks, matched at IoU 0.5.
        recall: Weighted mean over the cases of the recall of rocks.
        ious: Name of a case with rock → IoU.
        false_rock: Name of a case with a limit → false positive rate of pixels.
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
        """Returns the point as a JSON object."""
        return vars(self)


def curve(
    segmenter: Segmenter, cases: Mapping[str, Case], thresholds: Iterable[float]
) -> list[CurvePoint]:
    """Evaluates each threshold on the tuning half.

    Args:
        segmenter: The network.
        cases: The cases by name, all with images.
        thresholds: The thresholds, above 0 and below 1.

    Returns:
        A point per threshold, in ascending order.

    Raises:
        DataError: A file cannot be decoded, or no case has rock and a weight.
    """
    cache = ProbabilityCache(segmenter)
    networks = {f'{t:.9f}': NetworkAtThreshold(cache, t) for t in sorted(set(thresholds))}
    counts: dict[str, dict[str, list[Counts]]] = {name: {} for name in networks}
    for network, case, image_result in measure(networks, cases, HALF):
        counts[network].setdefault(case, []).append(image_result.counts)
    return [
        _point(network.threshold, cases, {case: stack(c) for case, c in counts[name].items()})
        for name, network in networks.items()
    ]


def _point(threshold: float, cases: Mapping[str, Case], counts: Mapping[str, Counts]) -> CurvePoint:
    metrics = {name: figures(weighted_sum(c, np.ones(len(c.pixels)))) for name, c in counts.items()}
    with_rock = [name for name, c in counts.items() if cases[name].weight and c.pixels[:, 1].any()]
    if not with_rock:
        raise DataError(
            'no case has both labelled rock and a weight, so no threshold can be chosen'
        )
    limits = {
        name: limit
        for name in counts
        if (limit := cases[name].most_false_rock) is not None
        and not np.isnan(metrics[name]['false_rock'])
    }
    weights = [cases[name].weight for name in with_rock]
    iou, precision, recall = (
        _mean([float(metrics[name][metric]) for name in with_rock], weights)
        for metric in ('iou', 'rocks.precision', 'rocks.recall')
    )
    false_rock = {name: float(metrics[name]['false_rock']) for name in limits}
    return CurvePoint(
        threshold,
        iou,
        precision,
        recall,
        {name: float(metrics[name]['iou']) for name in with_rock},
        false_rock,
        [name for name, limit in limits.items() if false_rock[name] > limit],
    )


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Returns the weighted mean; NaN, which means that no rock was found, counts as 0."""
    return float(np.average(np.nan_to_num(values), weights=weights))


def best_point(points: Sequence[CurvePoint]) -> CurvePoint | None:
    """Returns the point with the highest mean IoU that exceeds no limit; None if there is none."""
    allowed = [point for point in points if not point.exceeded]
    return max(allowed, key=lambda point: point.mean_iou, default=None)


def write_threshold(file: Path, threshold: float) -> None:
    """Writes a threshold to the metadata of a `.safetensors` file, without changing its tensors.

    Raises:
        WeightsError: The file is not such a file.
        OSError: The file cannot be written.
    """
    if file.suffix != '.safetensors':
        raise WeightsError(f'{file}: --write needs a .safetensors file')
    metadata = replace(load_weights(file).metadata, threshold=threshold)
    with safe_open(file, framework='pt') as opened:
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        stored = {**opened.metadata(), 'card': metadata.to_json()}
    atomic_write(file, lambda temporary: save_file(tensors, temporary, stored))


def table(
    points: Sequence[CurvePoint], chosen: CurvePoint | None, current_threshold: float
) -> Table:
    """Returns the curve as a table in which the best and the current threshold are marked."""
    heads = ['threshold', '', 'mean IoU', 'rocks, precision', 'rocks, recall']
    heads += [f'IoU {name}' for name in points[0].ious]
    heads += [f'false rock {name}, %' for name in points[0].false_rock]
    rows = []
    for point in points:
        mark = (
            '<- best'
            if point is chosen
            else 'current'
            if point.threshold == current_threshold
            else ''
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
        'Threshold curve on the tuning half; ! = above the limit of false rock', heads, rows
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, prog='python -m training.tune')
    add_network_arguments(parser)
    add_case_arguments(parser)
    parser.add_argument(
        '--thresholds',
        nargs='+',
        type=float,
        default=[round(0.02 * step, 2) for step in range(10, 46)],
        help='thresholds to evaluate, in addition to that of the metadata (default: 0.2 to 0.9)',
    )
    parser.add_argument(
        '--write', action='store_true', help='write the best to the metadata of the weights file'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object')
    return parser


def _tune(given: Namespace) -> tuple[list[CurvePoint], Path, float, dict[str, str]]:
    """Returns the curve, the weights file, its threshold, and the missing cases."""
    if not all(0 < threshold < 1 for threshold in given.thresholds):
        raise ValueError(f'thresholds must be between 0 and 1, not {given.thresholds}')
    weights = load_weights(given.weights, given.device)
    if given.write and weights.path.suffix != '.safetensors':
        raise WeightsError(f'{weights.path}: --write needs a .safetensors file')
    segmenter = Segmenter(weights, given.device, preset=given.preset)
    usable = {
        name: case
        for name, case in given.cases.items()
        if (case.weight or case.most_false_rock is not None)
        and not (case.held_out or case.only_recall)
    }
    cases, missing = available_cases(usable, given.only, weights.metadata.classes, HALF)
    current = weights.metadata.threshold
    points = curve(segmenter, cases, [*given.thresholds, current])
    return points, weights.path, current, missing


def _print(
    points: Sequence[CurvePoint],
    chosen: CurvePoint | None,
    current: float,
    missing: Mapping[str, str],
    as_json: bool,
) -> None:
    if as_json:
        result = {
            'threshold': chosen.threshold if chosen else None,
            'card_threshold': current,
            'missing': missing,
            'curve': [point.to_json() for point in points],
        }
        print(json.dumps(result))
        return
    print(as_text(table(points, chosen, current)))
    for name, reason in missing.items():
        print(f'missing: {name}: {reason}')


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    parsed: Namespace = parser.parse_args(arguments)
    try:
        given = parser.instantiate(parsed)
        points, file, current, missing = _tune(given)
        chosen = best_point(points)
        _print(points, chosen, current, missing, given.json)
        if given.write and chosen:
            write_threshold(file, chosen.threshold)
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.tune: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if given.write and chosen and not given.json:
        print(f'threshold {chosen.threshold:g} written; the metrics are those of the old one')
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
