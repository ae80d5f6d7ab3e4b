# SPDX-License-Identifier: Apache-2.0
"""Tests of `Result`; test_drive.py tests the recorder with a real node."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

from rock_seg_ros.tools.demo.recorder import OUTPUTS, Result


def test_the_mask_does_not_have_the_padding_of_the_rows():
    message = Image(height=2, width=3, step=4)
    message.data.frombytes(bytes([1, 2, 3, 99, 4, 5, 6, 99]))
    np.testing.assert_array_equal(Result({'mask': message}).mask, [[1, 2, 3], [4, 5, 6]])


def test_a_result_is_complete_with_all_outputs():
    messages = {}
    for output in OUTPUTS:
        assert not Result(messages).complete
        messages[output] = PointCloud2(width=7)
    assert Result(messages).complete
    assert Result(messages).rocks == 7
