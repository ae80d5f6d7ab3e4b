# SPDX-License-Identifier: Apache-2.0
"""Where a camera is."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Transform
from std_msgs.msg import Header

from rock_seg_ros.node import transforms as frames
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.node.transforms import CameraTransforms, plane_of
from rock_seg_ros.perception.geometry.view import level_ground

HEIGHT, TILT = 1.2, 0.35


def base_in_camera() -> Transform:
    """Where the robot's base, x forward and z up, is in the optical frame of its camera."""
    up = np.array([0, -np.cos(TILT), -np.sin(TILT)])
    forward = np.array([0, -np.sin(TILT), np.cos(TILT)])
    turn = np.column_stack([forward, np.cross(up, forward), up])
    w = np.sqrt(1 + np.trace(turn)) / 2
    x, y, z = np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])
    base = Transform()
    base.rotation.x, base.rotation.y, base.rotation.z = (float(v / (4 * w)) for v in (x, y, z))
    base.rotation.w = float(w)
    at = -HEIGHT * up + 0.3 * forward
    base.translation.x, base.translation.y, base.translation.z = at.tolist()
    return base


def test_a_transform_gives_the_same_ground_as_height_and_tilt() -> None:
    plane, level = plane_of(base_in_camera()), level_ground(HEIGHT, TILT)
    assert plane.offset == pytest.approx(level.offset)
    assert plane.normal == pytest.approx(level.normal, abs=1e-9)


class AbsentError(Exception):
    """What tf2_ros raises when it has no transform."""


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Transform]:
    """A tf2_ros that knows these: (target, source) → transform."""
    known: dict[tuple[str, str], Transform] = {}

    class Buffer:
        def lookup_transform(self, target: str, source: str, _: object) -> SimpleNamespace:
            if (target, source) not in known:
                raise AbsentError
            return SimpleNamespace(transform=known[target, source])

    class TransformListener:
        def __init__(self, *_: object) -> None:
            pass

        def unregister(self) -> None:
            known.clear()

    fake = SimpleNamespace(
        Buffer=Buffer, TransformListener=TransformListener, TransformException=AbsentError
    )
    monkeypatch.setattr(frames, 'tf2_ros', fake)
    return known


def test_with_tf_the_ground_is_that_of_the_image_s_frame(
    transforms: dict[tuple[str, str], Transform],
) -> None:
    transforms['camera', 'base_link'] = base_in_camera()
    found = CameraTransforms(None, Parameters(ground_plane='tf'))  # type: ignore[arg-type]
    told: list[str] = []
    plane = found.below(Header(frame_id='camera'), told.append)
    assert plane is not None
    assert plane.offset == pytest.approx(HEIGHT)
    assert not told
    assert found.below(Header(frame_id='elsewhere'), told.append) is None
    assert told == ['ground: AbsentError of base_link']
    found.close()
    assert not transforms


@pytest.mark.parametrize('lift', [HEIGHT, HEIGHT + 0.1])
def test_a_base_that_is_not_below_the_camera_is_no_ground_and_counted(
    transforms: dict[tuple[str, str], Transform], lift: float
) -> None:
    base = base_in_camera()
    base.translation.y -= lift * np.cos(TILT)
    base.translation.z -= lift * np.sin(TILT)
    transforms['camera', 'base_link'] = base
    told: list[str] = []
    found = CameraTransforms(None, Parameters(ground_plane='tf'))  # type: ignore[arg-type]
    assert found.below(Header(frame_id='camera'), told.append) is None
    assert told == ['ground: camera not above base_link']


@pytest.mark.skipif('tf2_ros' in sys.modules, reason='tf2_ros is installed')
def test_tf_without_tf2_ros_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="tf2_ros is not installed; use 'level'"):
        CameraTransforms(None, Parameters(ground_plane='tf'))  # type: ignore[arg-type]


def test_the_pose_in_the_fixed_frame_is_that_of_the_image_s_moment(
    transforms: dict[tuple[str, str], Transform],
) -> None:
    camera = Transform()
    camera.translation.x, camera.translation.z = 2.0, 1.0
    camera.rotation.z = camera.rotation.w = np.sqrt(0.5)
    transforms['odom', 'camera'] = camera
    found = CameraTransforms(None, Parameters(fixed_frame='odom'))  # type: ignore[arg-type]
    told: list[str] = []
    header = Header(frame_id='camera')
    header.stamp.sec = 7
    pose = found.pose(header, told.append)
    assert pose is not None
    assert pose @ [1, 0, 0, 1] == pytest.approx([2, 1, 1, 1]), 'its x points along y of odom'
    assert found.below(header, pytest.fail) is None
    assert found.pose(Header(frame_id='elsewhere'), told.append) is None
    assert told == ['pose: AbsentError in odom']


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A tf2_ros whose pose of an image at 7 s comes with the third look; the newest is at 6.9 s."""
    tf = SimpleNamespace(
        TransformException=AbsentError,
        TransformListener=lambda *_: SimpleNamespace(unregister=lambda: None),
        looks=0,
        comes_at=3,
        newest=6.9,
    )

    def look(target: str, source: str, time: Any) -> SimpleNamespace:
        header = Header()
        header.stamp.sec, header.stamp.nanosec = divmod(int(tf.newest * 1e9), 10**9)
        if time.nanoseconds:
            tf.looks += 1
            if tf.looks < tf.comes_at:
                raise AbsentError
        return SimpleNamespace(transform=Transform(), header=header)

    tf.Buffer = lambda: SimpleNamespace(lookup_transform=look)
    monkeypatch.setattr(frames, 'tf2_ros', tf)
    return tf


def at_seven() -> Header:
    header = Header(frame_id='camera')
    header.stamp.sec = 7
    return header


def test_a_pose_that_is_on_its_way_is_waited_for(late: SimpleNamespace) -> None:
    found = CameraTransforms(None, Parameters(fixed_frame='odom'))  # type: ignore[arg-type]
    assert found.pose(at_seven(), pytest.fail, time.monotonic() + 20) is not None
    assert late.looks == 3


@pytest.mark.parametrize(
    ('newest', 'seconds', 'goes_on'),
    [(5.9, 20.0, True), (7.1, 20.0, True), (6.9, -1.0, True), (6.9, 20.0, False)],
    ids=['TF is dead', 'the image is too old', 'the deadline is over', 'the node is deactivated'],
)
def test_a_pose_that_will_not_come_in_time_is_not_waited_for(
    late: SimpleNamespace, newest: float, seconds: float, goes_on: bool
) -> None:
    late.newest = newest
    found = CameraTransforms(None, Parameters(fixed_frame='odom'))  # type: ignore[arg-type]
    told: list[str] = []
    deadline = time.monotonic() + seconds
    assert found.pose(at_seven(), told.append, deadline, lambda: goes_on) is None
    assert late.looks == 1
    assert told == ['pose: AbsentError in odom']


def test_the_wait_for_a_pose_ends_at_its_deadline(late: SimpleNamespace) -> None:
    late.comes_at = 10**9
    found = CameraTransforms(None, Parameters(fixed_frame='odom'))  # type: ignore[arg-type]
    told: list[str] = []
    begun = time.monotonic()
    assert found.pose(at_seven(), told.append, begun + 0.1) is None
    assert time.monotonic() - begun >= 0.1
    assert late.looks > 1
    assert told == ['pose: AbsentError in odom']


@pytest.mark.skipif('tf2_ros' in sys.modules, reason='tf2_ros is installed')
def test_a_fixed_frame_without_tf2_ros_is_refused() -> None:
    with pytest.raises(ValueError, match="fixed_frame is 'odom', but tf2_ros is not installed"):
        CameraTransforms(None, Parameters(fixed_frame='odom'))  # type: ignore[arg-type]


def test_level_ground_wants_a_height() -> None:
    with pytest.raises(ValueError, match=r'camera_height is 0\.0'):
        Parameters(ground_plane='level')


def test_without_any_there_is_no_ground() -> None:
    assert CameraTransforms(None, Parameters()).below(Header(), pytest.fail) is None  # type: ignore[arg-type]
