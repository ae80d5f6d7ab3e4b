# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from training.config import OptimizerConfig, Stage, TrainingConfig
from training.datasets import DatasetConfig
from training.schedule import learning_rate

PEAK = 0.1


def rates(schedule: str, second: float = 0.0, warmup: int = 10) -> list[float]:
    """Returns the learning rates of two stages of 100 and 200 steps; `second` is its peak."""
    config = TrainingConfig(
        {'mine': DatasetConfig('d')},
        'r',
        [Stage(100, 64, (0.2, 1.0)), Stage(200, 64, (0.2, 1.0), learning_rate=second)],
        optimizer=OptimizerConfig(learning_rate=PEAK, schedule=schedule, warmup_steps=warmup),
    )
    return [learning_rate(config, step) for step in range(300)]


@pytest.mark.parametrize('schedule', ['poly', 'cosine'])
def test_a_cycle_warms_up_and_decays_to_almost_zero(schedule: str) -> None:
    rate = rates(schedule)
    assert rate[0] == pytest.approx(PEAK / 10)
    assert rate[:10] == sorted(rate[:10])
    assert rate[9:] == sorted(rate[9:], reverse=True)
    assert max(rate) == pytest.approx(PEAK, rel=0.05)
    assert 0 < rate[-1] < PEAK / 100


def test_poly_and_cosine_have_their_published_values() -> None:
    assert rates('poly', warmup=0)[150] == pytest.approx(PEAK * 0.5**0.9)
    cosine = rates('cosine', warmup=0)
    assert [cosine[0], cosine[150]] == pytest.approx([PEAK, PEAK / 2])


@pytest.mark.parametrize('schedule', ['poly', 'cosine'])
def test_a_stage_with_a_learning_rate_begins_a_new_cycle(schedule: str) -> None:
    rate = rates(schedule, second=0.02)
    assert 0 < rate[99] < PEAK / 50
    assert rate[100] == pytest.approx(0.02 / 10)
    assert max(rate[100:]) == pytest.approx(0.02, rel=0.05)
    assert 0 < rate[-1] < 0.02 / 100


def test_the_learning_rate_after_the_end_is_0() -> None:
    config = TrainingConfig({'mine': DatasetConfig('d')}, 'r', [Stage(100, 64, (0.2, 1.0))])
    for schedule in ('poly', 'cosine'):
        config.optimizer.schedule = schedule
        assert learning_rate(config, 100) == learning_rate(config, 101) == 0


def test_the_first_stage_may_set_a_learning_rate() -> None:
    stage = Stage(100, 64, (0.2, 1.0), learning_rate=0.5)
    optimizer = OptimizerConfig(learning_rate=PEAK, warmup_steps=0)
    config = TrainingConfig({'mine': DatasetConfig('d')}, 'r', [stage], optimizer=optimizer)
    assert learning_rate(config, 0) == 0.5
