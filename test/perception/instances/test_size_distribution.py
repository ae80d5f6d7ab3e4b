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
def test_each_rock_counts_with_its_weight(weighting, expected):
    powers = {'number': 0, 'area': 2, 'volume': 3}
    sizes = np.array([2.0, 1.0, 3.0])
    weights = np.sort(sizes) ** powers[weighting]
    ordered, passing = percent_passing(sizes, weighting)
    assert ordered.tolist() == [1, 2, 3]
    np.testing.assert_allclose(passing, 100 * np.cumsum(weights) / weights.sum())


def test_the_median_by_number_is_that_of_the_rocks():
    assert characteristic_sizes(range(1, 101), 'number') == [10, 50, 90]


def test_by_volume_a_single_boulder_outweighs_the_gravel():
    sizes = [1.0] * 99 + [10.0]
    assert characteristic_sizes(sizes, 'number') == [1, 1, 1]
    assert characteristic_sizes(sizes, 'volume', [50, 90]) == [10, 10]
