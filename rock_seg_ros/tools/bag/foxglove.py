# SPDX-License-Identifier: Apache-2.0
"""Messages of foxglove_msgs, which Foxglove draws over the images and in its 3D panel.

The package foxglove_msgs is not needed: rosbags writes the messages from their definitions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys import get_types_from_msg

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.location import Location, outlines
from rock_seg_ros.perception.instances.rocks import Rock
from rock_seg_ros.tools.bag.files import TYPES

ANNOTATIONS = 'foxglove_msgs/msg/ImageAnnotations'
SCENE = 'foxglove_msgs/msg/SceneUpdate'
# Name of a topic below that of the node → its type.
TOPICS = {'annotations': ANNOTATIONS, 'scene': SCENE}
OUTLINE = (1.0, 0.85, 0.1, 1.0)  # RGBA, 0 to 1
FILL = (1.0, 0.85, 0.1, 0.15)
TEXT = (1.0, 1.0, 1.0, 1.0)
TEXT_BACKGROUND = (0.0, 0.0, 0.0, 0.6)
FONT_SIZE = 12.0  # px
LINE_WIDTH = 2.0  # px

TYPES.register(get_types_from_msg(Path(__file__).with_name('foxglove_msgs.msg').read_text(), SCENE))


def serialize(analysis: Analysis) -> list[tuple[str, bytes]]:
    """Returns the messages of an image, with the names of their topics, in CDR.

    The scene is left out if no camera_info is known for the image.
    """
    messages = [('annotations', image_annotations(analysis))]
    if analysis.view is not None:
        messages.append(('scene', scene_update(analysis)))
    return [(name, bytes(TYPES.serialize_cdr(made, TOPICS[name]))) for name, made in messages]


def image_annotations(analysis: Analysis) -> Any:
    """Returns the polygon of each rock in pixels, and a label with its id and size."""
    make, stamp = _classes(), _stamp(analysis)
    points, texts = [], []
    for rock, location in zip(analysis.rocks, analysis.locations, strict=True):
        polygon = [make.Point2(x, y) for x, y in rock.polygon.tolist()]
        points.append(
            make.PointsAnnotation(
                stamp,
                make.PointsAnnotation.LINE_LOOP,
                polygon,
                make.Color(*OUTLINE),
                [],
                make.Color(*FILL),
                LINE_WIDTH,
            )
        )
        position = make.Point2(float(rock.box[0]), float(rock.box[1]))
        text, background = make.Color(*TEXT), make.Color(*TEXT_BACKGROUND)
        texts.append(
            make.TextAnnotation(stamp, position, label(rock, location), FONT_SIZE, text, background)
        )
    return make.ImageAnnotations([], points, texts)


def scene_update(analysis: Analysis) -> Any:
    """Returns an entity for each rock whose position is known, which replace those before."""
    assert analysis.view is not None
    make, stamp = _classes(), _stamp(analysis)
    shapes = outlines(analysis.rocks, analysis.locations, analysis.view.intrinsics)
    entities = [
        _entity(analysis, rock, location, shape)
        for rock, location, shape in zip(analysis.rocks, analysis.locations, shapes, strict=True)
        if np.isfinite(location.position).all()
    ]
    deletion = make.SceneEntityDeletion(stamp, make.SceneEntityDeletion.ALL, '')
    return make.SceneUpdate([deletion], entities)


def label(rock: Rock, location: Location) -> str:
    """Returns the id and the diameter of a rock, in pixels where metres are unknown."""
    if np.isfinite(location.diameter):
        return f'{rock.id}: {location.diameter:.2f} m'
    return f'{rock.id}: {2 * np.sqrt(rock.area / np.pi):.0f} px'


def _entity(analysis: Analysis, rock: Rock, location: Location, shape: NDArray[np.float32]) -> Any:
    """Returns the outline and the label of a rock in the optical frame of the camera, m."""
    make = _classes()
    colour, none = make.Color(*OUTLINE), np.array([], np.uint32)
    corners = [make.Point(x, y, z) for x, y, z in shape.tolist()]
    origin = _pose(0.0, 0.0, 0.0)
    loop = make.LinePrimitive.LINE_LOOP
    line = make.LinePrimitive(loop, origin, LINE_WIDTH, True, corners, colour, [], none)
    text = make.TextPrimitive(
        _pose(*location.position), True, FONT_SIZE, True, make.Color(*TEXT), label(rock, location)
    )
    facts = {
        'class': analysis.classes[rock.class_id],
        'score': f'{rock.score:.2f}',
        'diameter_m': f'{location.diameter:.3f}',
        'distance_m': f'{location.distance:.3f}',
    }
    return make.SceneEntity(
        timestamp=_stamp(analysis),
        frame_id=analysis.header.frame_id,
        id=f'rock {rock.id}',
        lifetime=make.Duration(0, 0),
        frame_locked=False,
        metadata=[make.KeyValuePair(key, value) for key, value in facts.items()],
        arrows=[],
        cubes=[],
        spheres=[],
        cylinders=[],
        lines=[line],
        triangles=[],
        texts=[text],
        models=[],
    )


def _pose(x: float, y: float, z: float) -> Any:
    make = _classes()
    return make.Pose(make.Point(x, y, z), make.Quaternion(0.0, 0.0, 0.0, 1.0))


def _stamp(analysis: Analysis) -> Any:
    stamp = analysis.header.stamp
    return _classes().Time(stamp.sec, stamp.nanosec)


@cache
def _classes() -> SimpleNamespace:
    """Returns the classes of rosbags by the names of their messages."""
    packages = ('foxglove_msgs', 'geometry_msgs', 'builtin_interfaces')
    return SimpleNamespace(
        **{
            name.rpartition('/')[2]: made
            for name, made in TYPES.types.items()
            if name.startswith(packages)
        }
    )
