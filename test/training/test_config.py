# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from training.config import Stage, TrainingConfig

STAGES = [Stage(100, 64, (0.2, 1.0)), Stage(200, 96, (0.1, 0.5))]


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        ({'stages': []}, 'stages is empty'),
        ({'steps_per_epoch': 70}, '300 steps, which is no multiple'),
        ({'batch_size': 1}, 'batch_size must be at least 2'),
        ({'mask_values': {0: 0, 9: 2}}, 'maps 9 to class 2'),
        ({'mask_values': {300: 0}}, 'grey value 300'),
        ({'decoder': 'unet'}, "'unet'"),
        ({'output_stride': 4}, '4'),
        ({'rock_classes': ['stone']}, 'stone'),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_starts(
    changes: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        TrainingConfig(**({'data': 'd', 'run': 'r', 'stages': STAGES} | changes))  # type: ignore[arg-type]


def test_a_step_belongs_to_its_stage() -> None:
    config = TrainingConfig('d', 'r', STAGES)
    assert [config.stage_at(step).crop for step in (0, 99, 100, 299, 5000)] == [64, 64, 96, 96, 96]


def test_the_card_says_what_was_trained() -> None:
    config = TrainingConfig('d', 'r', STAGES, output_stride=8, data_description='my quarry')
    card = config.card()
    assert (card.training_size, card.output_stride, card.data) == ((96, 96), 8, 'my quarry')
