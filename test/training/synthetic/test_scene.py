# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from training.synthetic.scene import Scene, make_drive, make_scene
from training.synthetic.scene_kinds import MIX, SCENE_KINDS

SIZE = (96, 64)


def same(one: object, other: object) -> bool:
    names = ('image', 'classes', 'instances', 'depth', 'pose', 'intrinsics')
    return all(getattr(one, n).tobytes() == getattr(other, n).tobytes() for n in names)


@pytest.mark.parametrize('kind', SCENE_KINDS)
def test_a_scene_depends_only_on_the_seed(kind: str) -> None:
    first, again, other = (
        scene.render(scene.cameras[0])
        for scene in (make_scene(seed, 2, kind, SIZE, 1) for seed in (3, 3, 4))
    )
    assert same(first, again)
    assert not same(first, other)
    assert first.image.shape == (64, 96, 3)
    assert first.instances.dtype == np.uint16
    assert set(np.unique(first.classes)) <= {0, 64, 128, 255}
    assert ((first.instances > 0) == np.isin(first.classes, (64, 255))).all()


def test_the_mix_has_all_scene_kinds() -> None:
    assert set(MIX) == set(SCENE_KINDS)
    assert sum(MIX.values()) == pytest.approx(1)


def test_some_scenes_have_no_rocks() -> None:
    scenes = [make_scene(1, number, 'yard', SIZE, 1) for number in range(6)]
    bare = [not scene.world.rocks for scene in scenes]
    assert any(bare)
    rendering = scenes[bare.index(True)].render(scenes[bare.index(True)].cameras[0])
    assert not rendering.classes.any()
    assert not rendering.instances.any()


RENDER = """
import sys, numpy as np
from training.synthetic.scene import make_scene
scene = make_scene(3, 2, sys.argv[1], (96, 64), 1)
seen = scene.render(scene.cameras[0])
np.savez(sys.argv[2], image=seen.image, classes=seen.classes, depth=seen.depth)
"""


@pytest.mark.parametrize('kind', ['mars', 'rubble'])
def test_a_processor_without_simd_makes_the_same_scene_within_the_tolerance(
    kind: str,
    tmp_path: Path,
) -> None:
    features = 'AVX512F AVX512_SKX X86_V4 AVX2 FMA3 X86_V3'
    plain = dict(os.environ, NPY_DISABLE_CPU_FEATURES=_known(features))
    plain['OPENCV_CPU_DISABLE'] = 'AVX512_SKX,AVX2,FMA3,AVX'
    file = tmp_path / 'other.npz'
    root = Path(__file__).parents[3]
    command = [sys.executable, '-W', 'ignore', '-c', RENDER, kind, str(file)]
    subprocess.run(command, env=plain, cwd=root, check=True)
    other = np.load(file)
    scene = make_scene(3, 2, kind, SIZE, 1)
    here = scene.render(scene.cameras[0])
    # The tolerance that scene.py states.
    differing = np.abs(here.image.astype(int) - other['image']).max(axis=2) > 3
    assert differing.mean() < 0.001
    assert (here.classes != other['classes']).mean() < 0.001
    depths = np.isclose(here.depth, other['depth'], rtol=1e-3, equal_nan=True)
    assert (~depths).mean() < 0.001


def _known(features: str) -> str:
    """Returns the features that can be disabled in this NumPy; it rejects others."""
    found = np.show_config(mode='dicts')['SIMD Extensions'].get('found', [])
    return ' '.join(name for name in features.split() if name in found)


def test_an_airless_sky_is_black() -> None:
    scene = make_scene(0, 0, 'moon', SIZE, 1)
    assert scene.appearance.light.zenith == (0.0, 0.0, 0.0)


@pytest.fixture(scope='module')
def drive() -> Scene:
    return make_drive(1, 0, 'mars', SIZE, frames=3, step=0.3)


def test_a_rock_keeps_its_instance_id_and_position_during_a_drive(drive: Scene) -> None:
    images = [drive.render(camera, frame) for frame, camera in enumerate(drive.cameras)]
    common = set.intersection(*(set(np.unique(p.instances)) for p in images)) - {0}
    assert len(common) >= 3
    for number in common:
        rock = drive.world.rocks[number - 1]
        for image, camera in zip(images, drive.cameras, strict=True):
            seen = image.instances == number
            points = camera.position + image.depth[seen, None] * camera.directions()[seen]
            distance = np.linalg.norm(points - np.array(rock.position), axis=1)
            assert distance.max() <= rock.diameter * 1.05


def test_the_camera_moves_forward_by_the_step(drive: Scene) -> None:
    places = np.array([camera.position[:2] for camera in drive.cameras])
    assert np.linalg.norm(np.diff(places, axis=0), axis=1) == pytest.approx(0.3)
    assert (np.diff(places, axis=0) @ drive.cameras[0].pose[:2, 2] > 0).all()


def test_a_drive_on_a_belt_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"'belt'; with --drive, it must be one of mars, moon, quarry"
    ):
        make_drive(0, 0, 'belt', SIZE, 2, 0.1)
