# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from rock_seg_ros.perception.instances.size_distribution import (
    characteristic_sizes,
    percent_passing,
)


@pytest.mark.parametrize(
    ('weighting', 'expected'),
    [('number', [50, 75, 100]), ('area', [25, 50, 100]), ('volume', [200 / 11, 500 / 11, 100])],
)
def test_rocks_are_weighted_by_number_area_or_volume(weighting, expected):
    powers = {'number': 0, 'area': 2, 'volume': 3}
    sizes = np.array([2.0, 1.0, 3.0])
    weights = np.sort(sizes) ** powers[weighting]
    ordered, passing = percent_passing(sizes, weighting)
    assert ordered.tolist() == [1, 2, 3]
    np.testing.assert_allclose(passing, 100 * np.cumsum(weights) / weights.sum())


def test_percentiles_by_number_are_those_of_the_sizes():
    assert characteristic_sizes(range(1, 101), 'number') == [10, 50, 90]


def test_one_boulder_outweighs_gravel_by_volume():
    sizes = [1.0] * 99 + [10.0]
    assert characteristic_sizes(sizes, 'number') == [1, 1, 1]
    assert characteristic_sizes(sizes, 'volume', [50, 90]) == [10, 10]
