# SPDX-License-Identifier: Apache-2.0
"""Finds rocks in camera images: a ROS 2 node, command-line tools, and a Python API.

from rock_seg_ros import RockSegmenter

result = RockSegmenter().segment('photo.jpg')
print(len(result.rocks), 'rocks')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rock_seg_ros.api import (
        DetectedRock,
        Intrinsics,
        RockSegmenter,
        SegmentationResult,
        level_ground,
    )

__all__ = ['DetectedRock', 'Intrinsics', 'RockSegmenter', 'SegmentationResult', 'level_ground']


def __getattr__(name: str) -> Any:
    """Imports the API when it is first used: PyTorch takes seconds to import (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from rock_seg_ros import api

    return getattr(api, name)
