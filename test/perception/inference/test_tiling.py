# SPDX-License-Identifier: Apache-2.0
"""The mask of an image that is processed in tiles equals that of the whole image."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise, product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rock_seg_ros.perception.image_io.decoding import read_rgb
from rock_seg_ros.perception.inference.backends.onnx_backend import OnnxBackend
from rock_seg_ros.perception.inference.backends.openvino_backend import OpenVinoBackend
from rock_seg_ros.perception.inference.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.pipeline import PlainPipeline
from rock_seg_ros.perception.inference.predictor import Predictor
from rock_seg_ros.perception.inference.tiling import Span, Tiling, sample, stitch, tiles_along
from rock_seg_ros.perception.inference.weights_file import (
    Weights,
    WeightsError,
    load_weights,
)

CPU = torch.device('cpu')
PHOTOGRAPH = read_rgb(Path(__file__).parents[3] / 'demo/samples/images/332.webp')


def cells(maps: Tensor, side: int) -> Tensor:
    """Returns the mean of each cell of side×side px; the last cells may be smaller."""
    return functional.avg_pool2d(maps, side, ceil_mode=True, count_include_pad=False)


class Brightness:
    """A network whose context is the mean brightness of the image; the other parts are local."""

    device, precision = CPU, 'fp32'

    def __init__(self) -> None:
        self.tiles: list[tuple[int, ...]] = []

    def deep(self, images: Tensor) -> Tensor:
        self.tiles.append(tuple(images.shape))
        return cells(images.mean(1, keepdim=True), 16)

    def context(self, deep: Tensor) -> Tensor:
        return deep - deep.mean()

    def decode(self, images: Tensor, context: Tensor) -> Tensor:
        bright = cells(images.mean(1, keepdim=True), 4) + context
        return torch.cat([-bright, bright], dim=1)

    def logits(self, images: Tensor) -> Tensor:
        context = self.context(self.deep(images))
        size = [-(-side // 4) for side in images.shape[-2:]]
        coarse = self.decode(images, functional.interpolate(context, size, mode='bilinear'))
        return functional.interpolate(coarse, images.shape[-2:], mode='bilinear')


def noise(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.mark.parametrize('tile', [128, 129, 142, 143, 144, 200])
@pytest.mark.parametrize('overlap', [0, 1, 17, 64])
def test_tiles_cover_a_side_once_and_overlap_enough(tile: int, overlap: int) -> None:
    for length, grid in product((1, 127, 128, 129, 200, 213, 391, 392, 1000), (16, 32)):
        spans = tiles_along(length, tile, overlap, grid)
        assert (spans[0].start, spans[-1].end) == (0, length)
        assert [span.used_start for span in spans] == [0, *(span.used_end for span in spans[:-1])]
        assert spans[-1].used_end == length
        for span in spans:
            assert 0 <= span.start <= span.used_start < span.used_end <= span.end <= length
            assert span.end - span.start <= tile
            assert span.start % grid == span.used_start % grid == 0
        for one, following in pairwise(spans):
            assert one.end - following.start >= overlap
            assert abs((one.end - one.used_end) - (following.used_start - following.start)) <= grid


@pytest.mark.parametrize('size', [(150, 333), (64, 500), (301, 64), (1, 190), (197, 330)])
def test_tiling_gives_the_result_of_the_whole_image(size: tuple[int, int]) -> None:
    image, predictor = noise(*size), Predictor(Brightness(), ModelMetadata())
    (whole,) = PlainPipeline(predictor).run([image], 0.5)
    tiled = Tiling(predictor, 130, 62).run(image, 0.5)
    assert tiled.class_ids.shape == tiled.confidence.shape == size
    assert (tiled.class_ids != whole.class_ids).mean() < 1e-3
    assert np.abs(tiled.confidence.astype(int) - whole.confidence).max() <= 1


def test_the_context_of_a_tile_is_its_part_of_the_context_of_the_image() -> None:
    context = torch.randn(1, 5, 8, 21)  # an image of 125×330 px
    size = (32, 83)
    whole = functional.interpolate(context, size, mode='bilinear', align_corners=False)
    part = sample(context, Span(48, 125, 64, 125), Span(16, 96, 32, 80), (125, 330))
    torch.testing.assert_close(part, whole[..., 12:32, 4:24])


def test_no_tile_is_larger_than_the_given_size() -> None:
    network = Brightness()
    Tiling(Predictor(network, ModelMetadata()), 128, 16).run(noise(500, 900), 0.5)
    assert max(max(shape) for shape in network.tiles) <= 128
    assert len(network.tiles) > 20


def test_a_small_image_is_enlarged_before_it_is_tiled() -> None:
    image, predictor = noise(80, 300), Predictor(Brightness(), ModelMetadata(smallest_side=128))
    (whole,) = PlainPipeline(predictor).run([image], 0.5)
    tiled = Tiling(predictor, 128, 0).run(image, 0.5)
    assert (tiled.class_ids != whole.class_ids).mean() < 1e-3


@pytest.mark.parametrize(
    ('tile', 'overlap', 'message'),
    [
        (127, 0, 'tile must be 0 or at least 128 px, not 127'),
        (-1, 0, 'not -1'),
        (128, 65, r'tile_overlap must be 0 to 64 px \(half of tile 128\), not 65'),
        (129, -1, 'tile_overlap must be 0 to 64 px .* not -1'),
    ],
)
def test_an_invalid_tile_size_or_overlap_is_rejected(tile: int, overlap: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(Predictor(Brightness(), ModelMetadata()), tile, overlap)


def test_tiles_with_an_onnx_file_are_rejected() -> None:
    weights = Weights(Path('w.onnx'), ModelMetadata(), {})
    with pytest.raises(WeightsError, match=r'w\.onnx: tile must be 0 with an ONNX file'):
        OnnxBackend(weights, CPU, 'auto', 0, parts=True)


EXAMPLES = {
    **{
        f'{d}, {s}': ModelMetadata(decoder=d, output_stride=s)
        for d in ('skip', 'none')
        for s in (8, 16)
    },
    'light': ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32),
}
Runner = TorchBackend | OpenVinoBackend


@pytest.fixture(scope='module')
def embedded() -> Callable[[type[Runner], str], Predictor]:
    """Loads embedded weights on a backend; each only once, since OpenVINO compiles for seconds."""

    @cache
    def load(backend: type[Runner], name: str) -> Predictor:
        weights = load_weights(name)
        return Predictor(backend(weights, CPU, 'fp32', 0, parts=True), weights.metadata)

    return load


def check_parts(runner: Runner, metadata: ModelMetadata) -> None:
    """Checks that the parts in sequence give the logits of the whole network."""
    image = torch.randn(1, 3, 75, 130, generator=torch.Generator().manual_seed(1))
    one = [Span(0, side, 0, side) for side in (75, 130)]
    result = runner.context(stitch(lambda *_: runner.deep(image), [one[0]], [one[1]]))
    if metadata.decoder == 'skip':
        result = runner.decode(image, sample(result, *one, (75, 130)))
    result = functional.interpolate(result, (75, 130), mode='bilinear', align_corners=False)
    torch.testing.assert_close(result, runner.logits(image), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', EXAMPLES)
def test_the_parts_of_a_network_in_sequence_equal_the_whole_network(name: str) -> None:
    torch.manual_seed(1)
    metadata = EXAMPLES[name]
    weights = Weights(Path('w.safetensors'), metadata, build(metadata).state_dict())
    check_parts(TorchBackend(weights, CPU, 'fp32', 0, parts=True), metadata)


@pytest.mark.parametrize('name', ['resnet50', 'light'])
def test_the_parts_of_a_network_on_openvino_equal_the_whole_network(
    embedded: Callable[[type[Runner], str], Predictor], name: str
) -> None:
    predictor = embedded(OpenVinoBackend, name)
    check_parts(predictor.backend, predictor.metadata)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ('backend', 'name', 'tile', 'overlap', 'most'),
    [
        (TorchBackend, 'light', 512, 256, 0.001),
        (OpenVinoBackend, 'light', 512, 256, 0.001),
        (OpenVinoBackend, 'light', 384, 192, 0.005),
        (OpenVinoBackend, 'resnet50', 384, 192, 0.005),
    ],
)
def test_photographs_in_tiles_have_the_masks_of_whole_photographs(
    embedded: Callable[[type[Runner], str], Predictor],
    backend: type[Runner],
    name: str,
    tile: int,
    overlap: int,
    most: float,
) -> None:
    predictor = embedded(backend, name)
    threshold = predictor.metadata.threshold
    with torch.inference_mode():
        (whole,) = PlainPipeline(predictor).run([PHOTOGRAPH], threshold)
        tiled = Tiling(predictor, tile, overlap).run(PHOTOGRAPH, threshold)
    assert (whole.class_ids == 1).mean() > 0.01
    assert (tiled.class_ids != whole.class_ids).mean() <= most
    assert np.abs(tiled.confidence.astype(int) - whole.confidence).mean() < 0.5
