# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64

import numpy as np
import pytest

from rock_seg_ros.perception.geometry.abundance import Observation, compute_abundance
from rock_seg_ros.tools.results import plots


def text_of(plot):
    return base64.b64decode(plot.partition('base64,')[2]).decode()


@pytest.mark.parametrize('values', [[3.0], [5.0, 5.0]])
def test_rocks_of_one_size_have_a_distribution(values):
    sizes = plots.Sizes('mm', values, 0)
    assert 'equivalent diameter (mm)' in text_of(plots.plot_passing(sizes))
    assert plots.plot_classes(sizes)


def test_long_recordings_are_plotted_with_means_of_successive_images():
    values = np.array([0, 2, 4, np.nan, np.nan])
    assert plots.means(values, 2)[:2] == [1, 4]
    assert np.isnan(plots.means(values, 2)[2])
    long = np.arange(10_000, dtype=float)
    assert len(plots.plot_over_time('t', 'u', long, {'a': long})) < 100_000


def test_the_rock_abundance_is_plotted_with_the_model():
    seen = compute_abundance(Observation(1, 100, 10, 4.0, np.array([0.1, 0.2, 0.3]), 0.05, 3))
    assert 'Golombek &amp; Rapp, k = ' in text_of(plots.plot_covered(seen))
    assert 'rocks of at least D per square metre' in text_of(plots.plot_numbers(seen))
