# SPDX-License-Identifier: Apache-2.0
"""The learning rate schedule."""

from __future__ import annotations

import math
from itertools import pairwise

from training.config import TrainingConfig

POLY_POWER = 0.9


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Returns the learning rate of a step, counted from 0.

    A cycle of linear warm-up and decay to 0 begins with the first stage, and with each stage that
    sets a learning rate.
    """
    start, peak, length = _cycle(config, step)
    steps_done = step - start
    warmup = min(1.0, (steps_done + 1) / max(1, config.optimizer.warmup_steps))
    remaining = max(0.0, 1 - steps_done / length)
    if config.optimizer.schedule == 'cosine':
        return peak * warmup * (1 - math.cos(math.pi * remaining)) / 2
    return peak * warmup * remaining**POLY_POWER


def restarts(config: TrainingConfig) -> list[int]:
    """Returns the number of steps before each cycle but the first."""
    return [start for start, _ in _starts(config)[1:]]


def _cycle(config: TrainingConfig, step: int) -> tuple[int, float, int]:
    """Returns first step, peak learning rate and length of the cycle that contains a step."""
    starts = _starts(config)
    ends = [start for start, _ in starts[1:]] + [config.steps]
    number = max(n for n, (start, _) in enumerate(starts) if start <= step)
    start, peak = starts[number]
    return start, peak, ends[number] - start


def _starts(config: TrainingConfig) -> list[tuple[int, float]]:
    """Returns first step and peak learning rate of each cycle."""
    starts = [(0, config.stages[0].learning_rate or config.optimizer.learning_rate)]
    first = 0
    for previous, stage in pairwise(config.stages):
        first += previous.steps
        if stage.learning_rate:
            starts.append((first, stage.learning_rate))
    return starts
