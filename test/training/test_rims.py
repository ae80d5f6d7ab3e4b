# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from training.rims import mark_rims

ROCK, SAND, RIM = 1, 2, 3


def scene(*rows: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns class ids and instance ids from rows of characters: digits are rocks, . is ground."""
    numbers = np.array([[int(c) if c.isdigit() else 0 for c in row] for row in rows], np.int32)
    classes = np.where(numbers > 0, ROCK, 0).astype(np.uint8)
    return classes, numbers


def shown(classes: np.ndarray) -> list[str]:
    names = {0: '.', ROCK: 'o', SAND: 's', RIM: '#', 255: ' '}
    return [''.join(names[int(value)] for value in row) for row in classes]


def test_pixels_between_two_touching_rocks_are_rim() -> None:
    classes, numbers = scene('111222', '111222', '......')
    assert shown(mark_rims(classes, numbers, [ROCK], RIM, 1.0)) == ['oo##oo', 'oo##oo', '......']
    assert shown(mark_rims(classes, numbers, [ROCK], RIM, 1.5)) == ['oo##oo', 'oo##oo', '..##..']


def test_the_width_is_a_distance_in_pixels() -> None:
    classes, numbers = scene('11112222')
    assert shown(mark_rims(classes, numbers, [ROCK], RIM, 2.0)) == ['oo####oo']
    assert shown(mark_rims(classes, numbers, [ROCK], RIM, 0.5)) == ['oooooooo']


def test_ground_between_two_close_rocks_is_rim() -> None:
    classes, numbers = scene('11.22', '11..2')
    assert shown(mark_rims(classes, numbers, [ROCK], RIM, 1.0)) == ['oo#oo', 'oo..o']


def test_distant_rocks_have_no_rim() -> None:
    classes, numbers = scene('1111...22', '1111...22')
    assert np.array_equal(mark_rims(classes, numbers, [ROCK], RIM, 1.5), classes)


def test_rocks_without_instance_ids_have_no_rim() -> None:
    classes, numbers = scene('1112220')
    assert np.array_equal(mark_rims(classes, numbers * 0, [ROCK], RIM), classes)
    numbers[numbers == 2] = 0
    assert np.array_equal(mark_rims(classes, numbers, [ROCK], RIM), classes)


def test_only_rocks_have_rims_and_ignored_pixels_stay_ignored() -> None:
    classes, numbers = scene('111222', '111222', '111222', '111222')
    classes[:2, 3:] = SAND
    classes[3, 2] = 255
    marked = mark_rims(classes, numbers, [ROCK], RIM, 1.0)
    assert shown(marked) == ['ooosss', 'ooo#ss', 'oo##oo', 'oo ooo']


@pytest.mark.parametrize('numbers', [(1, 65535), (65534, 65535), (1_000_000, 1_000_001)])
def test_large_and_consecutive_instance_ids_are_distinguished(numbers: tuple[int, int]) -> None:
    instances = np.repeat(np.array(numbers, np.int32), 3)[None].repeat(2, axis=0)
    classes = np.full(instances.shape, ROCK, np.int64)
    marked = mark_rims(classes, instances, [ROCK], RIM, 1.0)
    assert shown(marked) == ['oo##oo', 'oo##oo']
    assert marked.dtype == np.int64
    assert (classes == ROCK).all()
