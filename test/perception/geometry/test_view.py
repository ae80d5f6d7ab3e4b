# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import PosedView, View, level_ground, motion_between


def test_level_ground_matches_the_height_tilt_and_roll_of_the_camera() -> None:
    ground = level_ground(2.0, 0.0, np.radians(5))
    left, right = np.array([(-1.0, 0.0, 1.0), (1.0, 0.0, 1.0)])
    assert ground.normal @ ground.normal == pytest.approx(1)
    assert ground.closeness(np.array([left, right])) == pytest.approx(
        np.array([-1, 1]) * np.sin(np.radians(5)) / 2
    )
    below = level_ground(2.0, np.pi / 2)
    assert below.closeness(np.array([[0, 0, 1.0]])) == pytest.approx([0.5])
    assert below.heights(np.array([[0, 0, 1.5]])) == pytest.approx([0.5])


@pytest.mark.parametrize('height', [0.0, -1.0, np.nan, np.inf])
def test_a_camera_that_is_not_above_the_ground_is_rejected(height: float) -> None:
    with pytest.raises(ValueError, match='ground'):
        level_ground(height, 0.3)


LENS = Intrinsics(np.array([[50.0, 0, 31.5], [0, 50, 23.5], [0, 0, 1]]), np.zeros(0), size=(64, 48))


def test_near_points_move_more_in_the_image_than_far_points() -> None:
    depth = np.full((48, 64), 4.0, np.float32)
    depth[:, 32:] = 2.0
    right = np.eye(4)
    right[0, 3] = 0.4  # the camera moves to the right, so the image moves to the left
    motion = motion_between(
        PosedView(View(LENS, depth), np.eye(4)), PosedView(View(LENS, depth), right)
    )
    assert motion is not None
    assert motion.shape == (6, 8, 2)
    assert np.allclose(motion[:, :4, 0], -0.4 * 50 / 4)
    assert np.allclose(motion[:, 4:, 0], -0.4 * 50 / 2)
    assert np.allclose(motion[..., 1], 0, atol=1e-5)


def test_a_rotation_moves_the_image_at_any_known_depth() -> None:
    depth = np.full((48, 64), np.nan, np.float32)
    turned = np.eye(4)
    turned[:3, :3] = cv2.Rodrigues(np.array([0, 0.1, 0]))[0]  # rotated to the right
    dark = PosedView(View(LENS, depth), np.eye(4))
    assert motion_between(dark, PosedView(View(LENS, depth), turned)) is None
    seen = depth.copy()
    seen[20] = 3.0
    motion = motion_between(
        PosedView(View(LENS, seen), np.eye(4)), PosedView(View(LENS, depth), turned)
    )
    assert motion is not None
    assert motion[3, 4, 0] == pytest.approx(-50 * np.tan(0.1), rel=0.05)
