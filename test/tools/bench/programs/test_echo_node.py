# SPDX-License-Identifier: Apache-2.0
"""The echo node sends messages of the same size as the node."""

from __future__ import annotations

import pytest

from rock_seg_ros.node.outputs.clouds import POLYGON_POINT, ROCK_POINT


def test_its_clouds_have_points_of_the_packages_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from rock_seg_ros.tools.bench.programs import echo_node

    assert POLYGON_POINT.itemsize == echo_node.VERTEX
    assert ROCK_POINT.itemsize == echo_node.ROCK
