# SPDX-License-Identifier: Apache-2.0
"""The learning rate of each step."""

from __future__ import annotations

import math

from training.config import TrainingConfig

POLY_POWER = 0.9


def learning_rate(config: TrainingConfig, step: int) -> float:
    """Returns the learning rate of a step, counted from 0.

    A cycle of linear warm-up and decay to 0 begins with the first stage, and with each stage that
    has a learning rate of its own.
    """
    start, peak, length = _cycle(config, step)
    done = step - start
    warm = min(1.0, (done + 1) / max(1, config.optimizer.warmup_steps))
    left = max(0.0, 1 - done / length)
    if config.optimizer.schedule == 'cosine':
        return peak * warm * (1 - math.cos(math.pi * left)) / 2
    return peak * warm * left**POLY_POWER


def _cycle(config: TrainingConfig, step: int) -> tuple[int, float, int]:
    """Returns first step, peak and steps of the cycle that a step lies in."""
    starts = [(0, config.stages[0].learning_rate or config.optimizer.learning_rate)]
    begin = 0
    for before, stage in zip(config.stages, config.stages[1:], strict=False):
        begin += before.steps
        if stage.learning_rate:
            starts.append((begin, stage.learning_rate))
    ends = [start for start, _ in starts[1:]] + [config.steps]
    number = max(n for n, (start, _) in enumerate(starts) if start <= step)
    start, peak = starts[number]
    return start, peak, ends[number] - start
