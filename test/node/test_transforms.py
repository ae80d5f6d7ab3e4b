# SPDX-License-Identifier: Apache-2.0
"""The ground plane and the pose of a camera."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_msgs.msg import Transform
from rclpy.clock import ROSClock
from rclpy.time import Time
from std_msgs.msg import Header

from rock_seg_ros.node import transforms as transforms_module
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.node.transforms import CameraTransforms, plane_of
from rock_seg_ros.perception.geometry.view import level_ground

HEIGHT, TILT = 1.2, 0.35
CLOCK = ROSClock()
NODE: Any = SimpleNamespace(get_clock=lambda: CLOCK)


def base_in_camera() -> Transform:
    """Returns the transform from base_link, x forward and z up, to the optical frame."""
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
    """The exception of the fake tf2_ros for a missing transform."""


@pytest.fixture
def transforms(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], Transform]:
    """The transforms of a fake tf2_ros: (target, source) → transform."""
    known: dict[tuple[str, str], Transform] = {}

    class Buffer:
        def lookup_transform(self, target: str, source: str, _: object) -> SimpleNamespace:
            if (target, source) not in known:
                raise AbsentError
            return SimpleNamespace(transform=known[target, source])

        def clear(self) -> None:
            known.clear()

    class TransformListener:
        def __init__(self, *_: object) -> None:
            pass

        def unregister(self) -> None:
            known.clear()

    fake = SimpleNamespace(
        Buffer=Buffer, TransformListener=TransformListener, TransformException=AbsentError
    )
    monkeypatch.setattr(transforms_module, 'tf2_ros', fake)
    return known


def test_with_tf_the_ground_plane_is_in_the_frame_of_the_image(
    transforms: dict[tuple[str, str], Transform],
) -> None:
    transforms['camera', 'base_link'] = base_in_camera()
    found = CameraTransforms(NODE, Parameters(ground_plane='tf'))
    reasons: list[str] = []
    plane = found.ground_plane(Header(frame_id='camera'), reasons.append)
    assert plane is not None
    assert plane.offset == pytest.approx(HEIGHT)
    assert not reasons
    assert found.ground_plane(Header(frame_id='elsewhere'), reasons.append) is None
    assert reasons == ['ground: no transform from base_link (AbsentError)']
    found.close()
    assert not transforms


@pytest.mark.parametrize('lift', [HEIGHT, HEIGHT + 0.1])
def test_a_base_frame_that_is_not_below_the_camera_gives_no_ground_plane_and_a_reason(
    transforms: dict[tuple[str, str], Transform], lift: float
) -> None:
    base = base_in_camera()
    base.translation.y -= lift * np.cos(TILT)
    base.translation.z -= lift * np.sin(TILT)
    transforms['camera', 'base_link'] = base
    reasons: list[str] = []
    found = CameraTransforms(NODE, Parameters(ground_plane='tf'))
    assert found.ground_plane(Header(frame_id='camera'), reasons.append) is None
    assert reasons == ['ground: the camera is not above base_link']


@pytest.mark.skipif('tf2_ros' in sys.modules, reason='tf2_ros is installed')
def test_ground_plane_tf_without_tf2_ros_is_an_error_that_names_the_alternative() -> None:
    with pytest.raises(ValueError, match="tf2_ros is not installed; use 'level'"):
        CameraTransforms(NODE, Parameters(ground_plane='tf'))


def test_the_pose_in_the_fixed_frame_is_that_at_the_stamp_of_the_image(
    transforms: dict[tuple[str, str], Transform],
) -> None:
    camera = Transform()
    camera.translation.x, camera.translation.z = 2.0, 1.0
    camera.rotation.z = camera.rotation.w = np.sqrt(0.5)
    transforms['odom', 'camera'] = camera
    found = CameraTransforms(NODE, Parameters(fixed_frame='odom'))
    reasons: list[str] = []
    header = Header(frame_id='camera')
    header.stamp.sec = 7
    pose = found.pose(header, reasons.append)
    assert pose is not None
    assert pose @ [1, 0, 0, 1] == pytest.approx([2, 1, 1, 1]), 'its x axis is the y axis of odom'
    assert found.ground_plane(header, pytest.fail) is None
    assert found.pose(Header(frame_id='elsewhere'), reasons.append) is None
    assert reasons == ['pose: no transform to odom (AbsentError)']


def test_the_transforms_are_forgotten_when_time_goes_back(
    transforms: dict[tuple[str, str], Transform],
) -> None:
    found = CameraTransforms(NODE, Parameters(fixed_frame='odom'))
    CLOCK._set_ros_time_is_active(True)
    for seconds, kept in ((100, True), (131, True), (100, False)):
        transforms['odom', 'camera'] = Transform()
        CLOCK.set_ros_time_override(Time(seconds=seconds, clock_type=CLOCK.clock_type))
        assert bool(transforms) == kept, seconds
    found.close()
    transforms['odom', 'camera'] = Transform()
    CLOCK._set_ros_time_is_active(False)
    assert transforms, 'the callback is removed'


def test_a_negative_stamp_has_no_pose(transforms: dict[tuple[str, str], Transform]) -> None:
    transforms['odom', 'camera'] = Transform()
    header, reasons = Header(frame_id='camera'), list[str]()
    header.stamp.sec = -5
    found = CameraTransforms(NODE, Parameters(fixed_frame='odom'))
    assert found.pose(header, reasons.append) is None
    assert reasons == ['pose: no transform to odom (the stamp is negative)']


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A fake tf2_ros that has the pose at 7 s at the third lookup; the newest pose is at 6.9 s."""
    tf = SimpleNamespace(
        TransformException=AbsentError,
        TransformListener=lambda *_: SimpleNamespace(unregister=lambda: None),
        lookups=0,
        available_at=3,
        newest=6.9,
    )

    def lookup(target: str, source: str, time: Any) -> SimpleNamespace:
        header = Header()
        header.stamp.sec, header.stamp.nanosec = divmod(int(tf.newest * 1e9), 10**9)
        if time.nanoseconds:
            tf.lookups += 1
            if tf.lookups < tf.available_at:
                raise AbsentError
        return SimpleNamespace(transform=Transform(), header=header)

    tf.Buffer = lambda: SimpleNamespace(lookup_transform=lookup)
    monkeypatch.setattr(transforms_module, 'tf2_ros', tf)
    return tf


def at_seven() -> Header:
    header = Header(frame_id='camera')
    header.stamp.sec = 7
    return header


def test_a_pose_that_is_expected_is_waited_for(late: SimpleNamespace) -> None:
    found = CameraTransforms(NODE, Parameters(fixed_frame='odom'))
    assert found.pose(at_seven(), pytest.fail, time.monotonic() + 20) is not None
    assert late.lookups == 3


@pytest.mark.parametrize(
    ('newest', 'seconds', 'keep_waiting'),
    [(5.9, 20.0, True), (7.1, 20.0, True), (6.9, -1.0, True), (6.9, 20.0, False)],
    ids=[
        'TF is silent',
        'the image is too old',
        'the deadline has passed',
        'the node is deactivated',
    ],
)
def test_a_pose_that_is_not_expected_in_time_is_not_waited_for(
    late: SimpleNamespace, newest: float, seconds: float, keep_waiting: bool
) -> None:
    late.newest = newest
    found = CameraTransforms(NODE, Parameters(fixed_frame='odom'))
    reasons: list[str] = []
    deadline = time.monotonic() + seconds
    assert found.pose(at_seven(), reasons.append, deadline, lambda: keep_waiting) is None
    assert late.lookups == 1
    assert reasons == ['pose: no transform to odom (AbsentError)']


def test_the_wait_for_a_pose_ends_at_its_deadline(late: SimpleNamespace) -> None:
    late.available_at = 10**9
    found = CameraTransforms(NODE, Parameters(fixed_frame='odom'))
    reasons: list[str] = []
    begun = time.monotonic()
    assert found.pose(at_seven(), reasons.append, begun + 0.1) is None
    assert time.monotonic() - begun >= 0.1
    assert late.lookups > 1
    assert reasons == ['pose: no transform to odom (AbsentError)']


@pytest.mark.skipif('tf2_ros' in sys.modules, reason='tf2_ros is installed')
def test_a_fixed_frame_without_tf2_ros_is_an_error() -> None:
    with pytest.raises(ValueError, match="fixed_frame is 'odom', but tf2_ros is not installed"):
        CameraTransforms(NODE, Parameters(fixed_frame='odom'))


def test_level_ground_needs_a_height() -> None:
    with pytest.raises(ValueError, match=r'camera_height is 0\.0'):
        Parameters(ground_plane='level').check_combination()


def test_there_is_no_ground_plane_by_default() -> None:
    assert CameraTransforms(NODE, Parameters()).ground_plane(Header(), pytest.fail) is None
