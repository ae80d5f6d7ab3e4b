# SPDX-License-Identifier: Apache-2.0
"""The number of bits that 16-bit images use."""

from __future__ import annotations

import numpy as np
import pytest

from rock_seg_ros.perception.image_io.bit_depth import BitDepth


def image(*values):
    return np.array([[[value] * 3 for value in values]], np.uint16)


@pytest.fixture
def warnings():
    return []


def scaled(bit_depth, *values):
    return bit_depth.to_eight_bits(image(*values))[0, :, 0].tolist()


def test_images_of_eight_bits_are_returned_unchanged(warnings):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert BitDepth(warn=warnings.append).to_eight_bits(pixels) is pixels
    assert warnings == []


def test_values_of_sixteen_bits_are_scaled_without_a_warning(warnings):
    bit_depth = BitDepth(warn=warnings.append)
    assert scaled(bit_depth, 0, 128, 129, 257, 32768, 65535) == [0, 0, 1, 1, 128, 255]
    assert warnings == []


@pytest.mark.parametrize(
    ('largest', 'bits'), [(255, 8), (256, 10), (1023, 10), (4000, 12), (9000, 14)]
)
def test_values_of_fewer_bits_are_scaled_to_the_full_range_with_one_warning(
    warnings, largest, bits
):
    bit_depth = BitDepth(warn=warnings.append)
    for _ in range(2):
        assert scaled(bit_depth, 0, largest) == [0, round(largest * 255 / (2**bits - 1))]
    assert len(warnings) == 1
    assert f'{bits} bits' in warnings[0]
    assert str(largest) in warnings[0]


def test_a_darker_image_does_not_change_the_scale_of_the_stream(warnings):
    bit_depth = BitDepth(warn=warnings.append)
    scaled(bit_depth, 4095)
    assert scaled(bit_depth, 200) == [12]
    assert scaled(bit_depth, 0) == [0]
    assert len(warnings) == 1


def test_a_value_above_the_scale_changes_it_with_a_warning(warnings):
    bit_depth = BitDepth(warn=warnings.append)
    assert scaled(bit_depth, 1000) == [249]
    assert scaled(bit_depth, 4095) == [255]
    assert scaled(bit_depth, 1000) == [62]
    assert scaled(bit_depth, 65535) == [255]
    assert scaled(bit_depth, 4095) == [16]
    assert [line.removesuffix(' bits').rpartition(' ')[2] for line in warnings] == [
        '10',
        '12',
        '16',
    ]


def test_a_black_image_does_not_set_the_scale(warnings):
    bit_depth = BitDepth(warn=warnings.append)
    assert scaled(bit_depth, 0, 0) == [0, 0]
    assert warnings == []
    assert scaled(bit_depth, 65535) == [255]
    assert warnings == []


def test_significant_bits_override_the_values_of_the_stream(warnings):
    bit_depth = BitDepth(12, warnings.append)
    assert scaled(bit_depth, 100, 4095, 65535) == [6, 255, 255]
    assert warnings == []
    bit_depth.significant_bits = 10
    assert scaled(bit_depth, 1023) == [255]
    bit_depth.significant_bits = 0
    assert scaled(bit_depth, 65535) == [255]
