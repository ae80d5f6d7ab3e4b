# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.geometry.scale import (
    ScaleError,
    scale_from_points,
    scale_from_tag,
    tag_families,
)

SIZE = (640, 480)


def photo(*tags, family='apriltag_36h11', side=120.0, matrix=None):
    """Draws tags (id, x and y of the centre) with sides of `side` px, warped by `matrix`."""
    image = np.full((SIZE[1], SIZE[0]), 190, np.uint8)
    dictionary = cv2.aruco.getPredefinedDictionary(tag_families()[family])
    for number, x, y in tags:
        tag = cv2.aruco.generateImageMarker(dictionary, number, 200)
        tag = cv2.copyMakeBorder(tag, 50, 50, 50, 50, cv2.BORDER_CONSTANT, value=255)
        scale = side / 200
        move = np.array([[scale, 0, x - 150 * scale], [0, scale, y - 150 * scale]])
        drawn = cv2.warpAffine(tag, move, SIZE, flags=cv2.INTER_AREA)
        inside = cv2.warpAffine(np.full_like(tag, 255), move, SIZE)
        image = np.where(inside > 127, drawn, image).astype(np.uint8)
    if matrix is not None:
        image = cv2.warpPerspective(image, np.asarray(matrix, np.float64), SIZE, borderValue=190)
    return np.dstack([image] * 3)


@pytest.mark.parametrize('family', ['apriltag_36h11', 'apriltag_16h5', '4x4_50', '6x6_250'])
def test_the_scale_is_measured_on_the_sides_of_a_tag(family):
    scale = scale_from_tag(photo((3, 300, 200), family=family), family, 60.0)
    assert scale.mm_per_px == pytest.approx(0.5, rel=0.01)
    assert scale.source == f'tag 3 of {family}, 60 mm'


def test_a_rotated_tag_gives_the_same_scale():
    turn = np.vstack([cv2.getRotationMatrix2D((320, 240), 33, 1), [0, 0, 1]])
    scale = scale_from_tag(photo((5, 320, 240), matrix=turn), 'apriltag_36h11', 60.0)
    assert scale.mm_per_px == pytest.approx(0.5, rel=0.01)


def test_without_a_tag_of_the_family_there_is_no_scale():
    with pytest.raises(ScaleError, match='no tag of the family 4x4_50 found'):
        scale_from_tag(photo((3, 300, 200)), '4x4_50', 60.0)


def test_several_tags_are_rejected_with_their_ids():
    with pytest.raises(ScaleError, match=r'2 tags found \(ids 3, 9\); exactly one must be in view'):
        scale_from_tag(photo((9, 150, 200), (3, 450, 200)), 'apriltag_36h11', 60.0)


def test_a_tag_viewed_obliquely_is_rejected():
    squeezed = np.diag([0.6, 1.0, 1.0])
    with pytest.raises(ScaleError, match=r'tag 3 is seen from the side \(longest side 1\.6\d'):
        scale_from_tag(photo((3, 300, 200), matrix=squeezed), 'apriltag_36h11', 60.0)


def test_two_different_points_give_a_scale():
    assert scale_from_points((10, 10), (40, 50), 100).mm_per_px == pytest.approx(2)
    with pytest.raises(ScaleError, match='the two points are the same: 4, 5'):
        scale_from_points((4, 5), (4, 5), 100)
