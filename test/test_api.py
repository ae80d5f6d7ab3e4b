# SPDX-License-Identifier: Apache-2.0
"""The Python API: results, metres, exports and errors."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from rock_seg_ros import RockSegmenter, SegmentationResult, api
from rock_seg_ros.perception.geometry.intrinsics import Intrinsics
from rock_seg_ros.perception.geometry.view import level_ground

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / 'demo/samples/images/332.webp'
K = [[300.0, 0, 160], [0, 300, 120], [0, 0, 1]]


@pytest.fixture(scope='module')
def segmenter() -> RockSegmenter:
    return RockSegmenter('light', device='cpu')


@pytest.fixture(scope='module')
def result(segmenter: RockSegmenter) -> SegmentationResult:
    return segmenter.segment(SAMPLE)


def test_the_package_imports_neither_torch_nor_ros_until_the_api_is_used() -> None:
    code = 'import sys, rock_seg_ros; print({"torch", "rclpy", "cv2"} & set(sys.modules))'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == 'set()'


def test_the_api_does_not_import_ros() -> None:
    code = 'import sys; from rock_seg_ros import RockSegmenter; print("rclpy" in sys.modules)'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == 'False'


def test_all_maps_have_the_size_of_the_image(result: SegmentationResult) -> None:
    size = result.image.shape[:2]
    for pixels, dtype in (
        (result.mask, np.uint8),
        (result.class_ids, np.uint8),
        (result.confidence, np.uint8),
        (result.instances, np.uint16),
    ):
        assert pixels.shape == size
        assert pixels.dtype == dtype
    assert set(np.unique(result.mask)) == {0, 255}
    rock_and_rim = [result.classes.index(name) for name in ('rock', 'rim')]
    np.testing.assert_array_equal(result.mask > 0, np.isin(result.class_ids, rock_and_rim))


def test_the_rocks_match_the_instances(result: SegmentationResult) -> None:
    assert len(result.rocks) > 3
    areas = [rock.area for rock in result.rocks]
    assert areas == sorted(areas, reverse=True)
    for rock in result.rocks:
        ys, xs = np.nonzero(result.instances == rock.id)
        assert rock.area == len(xs)
        assert rock.bbox == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        assert rock.class_name == 'rock'
        assert 0 < rock.score <= 1
        assert np.isnan([*rock.position, rock.diameter, rock.distance]).all()


def test_a_file_and_its_pixels_give_the_same_rocks(
    segmenter: RockSegmenter, result: SegmentationResult
) -> None:
    pixels = cv2.cvtColor(cv2.imread(str(SAMPLE)), cv2.COLOR_BGR2RGB)
    again = segmenter.segment(pixels)
    np.testing.assert_array_equal(again.mask, result.mask)
    assert [rock.area for rock in again.rocks] == [rock.area for rock in result.rocks]


def test_the_overlay_is_a_copy_that_differs_where_there_is_rock(result: SegmentationResult) -> None:
    before = result.image.copy()
    overlay = result.draw(0.5)
    np.testing.assert_array_equal(result.image, before)
    differs = (overlay != before).any(axis=2)
    assert differs[result.mask > 0].mean() > 0.9
    with pytest.raises(ValueError, match='alpha must be 0 to 1, not 2'):
        result.draw(2)


def test_the_coco_segmentations_are_the_pixels_of_the_rocks(result: SegmentationResult) -> None:
    height, width = result.mask.shape
    records = json.loads(json.dumps(result.to_coco(image_id=7)))
    assert len(records) == len(result.rocks)
    for rock, record in zip(result.rocks, records, strict=True):
        coded = coco_mask.frPyObjects(record['segmentation'], height, width)
        np.testing.assert_array_equal(coco_mask.decode(coded) > 0, result.instances == rock.id)
        assert record['area'] == rock.area == coco_mask.area(coded)
        assert record['bbox'] == list(rock.bbox) == coco_mask.toBbox(coded).tolist()
        assert (record['image_id'], record['category_id']) == (7, result.classes.index('rock'))


def test_the_run_lengths_of_a_rock_in_the_first_pixel_start_with_0() -> None:
    rock = SimpleNamespace(box=(0, 0, 2, 1), mask=np.array([[255, 255]], np.uint8))
    assert api._run_lengths(rock, (2, 2)) == {'size': [2, 2], 'counts': [0, 1, 1, 1, 1]}  # type: ignore[arg-type]


@pytest.fixture
def supervision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces supervision by a substitute that keeps its arguments."""

    class Detections(SimpleNamespace):
        @classmethod
        def empty(cls) -> Any:
            return cls(xyxy=np.zeros((0, 4)))

    monkeypatch.setitem(sys.modules, 'supervision', SimpleNamespace(Detections=Detections))


@pytest.mark.usefixtures('supervision')
def test_detections_have_a_box_a_mask_and_a_class_per_rock(result: SegmentationResult) -> None:
    found = result.to_detections()
    count = len(result.rocks)
    assert found.xyxy.shape == (count, 4)
    x, y, width, height = result.rocks[0].bbox
    assert found.xyxy[0].tolist() == [x, y, x + width, y + height]
    assert found.mask.shape == (count, *result.mask.shape)
    assert found.mask[0].sum() == result.rocks[0].area
    assert set(found.data['class_name']) == {'rock'}


@pytest.mark.usefixtures('supervision')
def test_an_image_without_rocks_has_empty_results(segmenter: RockSegmenter) -> None:
    result = segmenter.segment(np.full((64, 80, 3), 127, np.uint8))
    assert (result.rocks, result.to_coco()) == ([], [])
    assert len(result.to_detections().xyxy) == 0


def test_without_supervision_the_error_names_the_command(
    result: SegmentationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'supervision', None)
    with pytest.raises(ImportError, match='pip install supervision'):
        result.to_detections()


def scene() -> NDArray[np.uint8]:
    image = cv2.cvtColor(cv2.imread(str(SAMPLE)), cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(image[:240, :320])


def test_depth_and_intrinsics_give_metres(segmenter: RockSegmenter) -> None:
    image = scene()
    depth = np.full(image.shape[:2], 2.0)
    result = segmenter.segment(image, K, depth)
    rock = result.rocks[0]
    assert rock.position[2] == pytest.approx(2)
    assert rock.position[0] == pytest.approx((rock.centroid[0] - 160) / 150, abs=0.1)
    assert rock.diameter == pytest.approx(2 * np.sqrt(rock.area / np.pi) / 150, rel=0.02)


def test_a_known_ground_gives_metres_without_depth(segmenter: RockSegmenter) -> None:
    result = segmenter.segment(scene(), K, ground=level_ground(1.5, 0.6))
    assert np.isfinite([rock.distance for rock in result.rocks]).any()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        ({'image': np.zeros((4, 4), np.uint8)}, r'image must be H×W×3 RGB, not 4×4'),
        ({'image': np.zeros((4, 4, 3))}, 'of uint8 or a file name, not float64'),
        ({'image': [1, 2]}, 'of uint8 or a file name, not list'),
        ({'depth': np.zeros((4, 4))}, 'depth and ground need intrinsics'),
        ({'intrinsics': K, 'depth': np.zeros((4, 4))}, 'the depth is 4×4'),
        (
            {'intrinsics': Intrinsics(np.array(K), np.zeros(0), size=(9, 9))},
            'intrinsics are of 9×9, the image is 320×240',
        ),
    ],
)
def test_an_invalid_argument_is_an_error_with_its_name(
    segmenter: RockSegmenter, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        segmenter.segment(**{'image': scene(), **given})


@pytest.mark.parametrize(
    ('setting', 'message'),
    [
        ({'threshold': 1.5}, r'threshold must be 0 to 1, not 1\.5'),
        ({'max_rocks': -1}, 'max_rocks must be a whole number of 0 to 65535, not -1'),
        ({'max_rocks': 2.5}, r'max_rocks must be .*, not 2\.5'),
        ({'min_area': -5}, 'min_area must be a whole number of 0 or more, not -5'),
    ],
)
def test_a_setting_out_of_range_is_rejected(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RockSegmenter(**setting)


def test_the_examples_in_the_docstrings_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    failed, tried = doctest.testmod(api)
    assert (failed, tried > 3) == (0, True)
