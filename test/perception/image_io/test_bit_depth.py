# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from rock_seg_ros.perception.image_io.bit_depth import BitDepth


def image(*values):
    return np.array([[[value] * 3 for value in values]], np.uint16)


@pytest.fixture
def told():
    return []


def greys(depth, *values):
    return depth.to_eight_bits(image(*values))[0, :, 0].tolist()


def test_images_of_eight_bits_go_through_untouched(told):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert BitDepth(warn=told.append).to_eight_bits(pixels) is pixels
    assert told == []


def test_all_sixteen_bits_are_scaled_without_a_word(told):
    depth = BitDepth(warn=told.append)
    assert greys(depth, 0, 128, 129, 257, 32768, 65535) == [0, 0, 1, 1, 128, 255]
    assert told == []


@pytest.mark.parametrize(
    ('largest', 'bits'), [(255, 8), (256, 10), (1023, 10), (4000, 12), (9000, 14)]
)
def test_values_of_fewer_bits_are_scaled_by_them_and_it_is_said_once(told, largest, bits):
    depth = BitDepth(warn=told.append)
    for _ in range(2):
        assert greys(depth, 0, largest) == [0, round(largest * 255 / (2**bits - 1))]
    assert len(told) == 1
    assert f'{bits} bits' in told[0]
    assert str(largest) in told[0]


def test_a_darker_image_of_a_stream_does_not_change_the_scale(told):
    depth = BitDepth(warn=told.append)
    greys(depth, 4095)
    assert greys(depth, 200) == [12]
    assert greys(depth, 0) == [0]
    assert len(told) == 1


def test_the_scale_changes_only_when_a_value_does_not_fit_and_that_is_said(told):
    depth = BitDepth(warn=told.append)
    assert greys(depth, 1000) == [249]
    assert greys(depth, 4095) == [255]
    assert greys(depth, 1000) == [62]
    assert greys(depth, 65535) == [255]
    assert greys(depth, 4095) == [16]
    assert [line.removesuffix(' bits').rpartition(' ')[2] for line in told] == ['10', '12', '16']


def test_a_black_image_decides_nothing(told):
    depth = BitDepth(warn=told.append)
    assert greys(depth, 0, 0) == [0, 0]
    assert told == []
    assert greys(depth, 65535) == [255]
    assert told == []


def test_bits_that_are_given_hold_whatever_comes(told):
    depth = BitDepth(12, told.append)
    assert greys(depth, 100, 4095, 65535) == [6, 255, 255]
    assert told == []
    depth.given = 10
    assert greys(depth, 1023) == [255]
    depth.given = 0
    assert greys(depth, 65535) == [255]
