# SPDX-License-Identifier: Apache-2.0
"""Compares settings of the separation of touching rocks on one half of each validation set.

Each given value replaces that of one setting, and the others keep their defaults. Use cases whose
labels have instances. `training.benchmark` reports on the other half.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
from jsonargparse import ArgumentParser, Namespace

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmentation import Pixels, Segmentation
from rock_seg_ros.perception.inference.segmenter import DeviceError, Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights
from rock_seg_ros.perception.instances.rocks import RockSettings
from rock_seg_ros.perception.instances.splitting import RimSeparation
from training.arguments import add_case_arguments, add_network_arguments
from training.cases import ALL_ROCKS, Case, available_cases, measure
from training.datasets import DataError
from training.evaluation import LatestResult, Perturbation, segment_perturbed
from training.metrics import Counts, figures, stack, weighted_sum
from training.tables import Table, as_text
from training.tune import HALF

DEFAULTS = 'defaults'
SETTINGS = tuple(field.name for field in fields(RimSeparation))


@dataclass(frozen=True)
class _Separated:
    """A network whose rocks are separated with other settings than the defaults."""

    results: LatestResult[Segmentation]
    metadata: ModelMetadata
    rocks: RockSettings

    def segment(self, image: Pixels, perturbation: Perturbation) -> Segmentation:
        return self.results.of(image, perturbation)


def compare_separations(
    segmenter: Segmenter, cases: Mapping[str, Case], separations: Mapping[str, RimSeparation]
) -> Table:
    """Measures the rocks that each setting separates, at the threshold of the weights.

    Args:
        segmenter: The network.
        cases: The cases by name, all with images.
        separations: The settings by name, with the defaults.

    Returns:
        Per setting the mean F1 score of rocks over the cases, and precision and recall per case,
        matched at an IoU of 0.5; the highest score first. Cases without labelled rocks are left
        out.

    Raises:
        DataError: A file cannot be decoded, or no case has labelled rocks.
    """
    results = LatestResult(partial(segment_perturbed, segmenter))
    networks = {
        name: _Separated(results, segmenter.metadata, replace(ALL_ROCKS, separation=separation))
        for name, separation in separations.items()
    }
    counts: dict[str, dict[str, list[Counts]]] = {name: {} for name in networks}
    for network, case, image_result in measure(networks, cases, HALF):
        counts[network].setdefault(case, []).append(image_result.counts)
    with_rocks = [case for case, of_case in counts[DEFAULTS].items() if _has_rocks(of_case)]
    if not with_rocks:
        raise DataError('no case has labelled rocks, so no setting can be chosen')
    scored = [
        (_scores([stack(by_case[case]) for case in with_rocks]), name)
        for name, by_case in counts.items()
    ]
    scored.sort(key=lambda one: -one[0][0])
    heads = ['settings', 'rocks, mean F1']
    heads += [f'{case}: {metric}' for case in with_rocks for metric in ('precision', 'recall')]
    rows = [[name, *(f'{value:.4f}' for value in scores)] for scores, name in scored]
    return Table('Separation of touching rocks on the tuning half', heads, rows)


def _has_rocks(of_case: Sequence[Counts]) -> bool:
    """Whether any image has a labelled rock; without one, recall is undefined."""
    counts = stack(of_case)
    return not np.isnan(figures(weighted_sum(counts, np.ones(len(counts.pixels))))['rocks.recall'])


def _scores(cases: Sequence[Counts]) -> list[float]:
    """Returns the mean F1 score, and precision and recall per case; undefined values are 0."""
    rates = [
        float(np.nan_to_num(of_case[f'rocks.{metric}']))
        for counts in cases
        for of_case in [figures(weighted_sum(counts, np.ones(len(counts.pixels))))]
        for metric in ('precision', 'recall')
    ]
    pairs = zip(rates[::2], rates[1::2], strict=True)
    return [float(np.mean([2 * p * r / max(p + r, 1e-9) for p, r in pairs])), *rates]


def alternatives(values: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, RimSeparation]]:
    """Yields the defaults, and each value of each setting alone, with names.

    Raises:
        ValueError: A value is invalid.
    """
    yield DEFAULTS, RimSeparation()
    for setting, options in values.items():
        for value in options:
            yield f'{setting} {value:g}', replace(RimSeparation(), **{setting: value})


def _parser() -> ArgumentParser:
    parser = ArgumentParser(description=__doc__, prog='python -m training.tune_separation')
    add_network_arguments(parser)
    add_case_arguments(parser)
    for setting in SETTINGS:
        parser.add_argument(
            f'--{setting}',
            nargs='+',
            type=float,
            default=[],
            help=f'values to compare with the default, {getattr(RimSeparation, setting):g}',
        )
    return parser


def _compare(given: Namespace) -> tuple[Table, dict[str, str]]:
    """Returns the table and the missing cases."""
    separations = dict(alternatives({setting: given[setting] for setting in SETTINGS}))
    weights = load_weights(given.weights, given.device)
    if weights.metadata.rim_id is None:
        raise ValueError(f'{weights.path}: has no class rim, so these settings have no effect')
    usable = {
        name: case
        for name, case in given.cases.items()
        if case.weight and not (case.held_out or case.only_recall)
    }
    cases, missing = available_cases(usable, given.only, weights.metadata.classes, HALF)
    segmenter = Segmenter(weights, given.device, preset=given.preset)
    return compare_separations(segmenter, cases, separations), missing


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    parsed: Namespace = parser.parse_args(arguments)
    try:
        table, missing = _compare(parser.instantiate(parsed))
    except (DataError, DeviceError, WeightsError, ValueError, OSError) as error:
        print(f'training.tune_separation: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(as_text(table))
    for name, reason in missing.items():
        print(f'missing: {name}: {reason}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
