# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.predictor import Predictor, enlargement

LITE = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)


class Identity:
    """A network that returns its input as logits."""

    device, precision = torch.device('cpu'), 'fp32'

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def logits(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape[-2:]))
        return images


@pytest.mark.parametrize(
    ('size', 'seen'),
    [((60, 80), (96, 128)), ((30, 80), (64, 160)), ((96, 100), (96, 112)), ((200, 90), (224, 96))],
)
def test_an_image_below_the_smallest_side_is_enlarged_at_most_twofold(
    size: tuple[int, int], seen: tuple[int, int]
) -> None:
    network = Identity()
    prepared = torch.rand(2, 3, *size)
    assert (
        Predictor(network, ModelMetadata(smallest_side=96)).logits(prepared).shape == prepared.shape
    )
    assert network.sizes == [seen]
    assert enlargement(*size, ModelMetadata()) == 1


@pytest.mark.parametrize(
    ('input_size', 'seen'), [((64, 0), (64, 64)), ((0, 50), (64, 80)), ((70, 50), (64, 80))]
)
def test_a_given_input_size_overrides_the_smallest_side(
    input_size: tuple[int, int], seen: tuple[int, int]
) -> None:
    network = Identity()
    Predictor(network, ModelMetadata(smallest_side=96), input_size).logits(torch.rand(1, 3, 60, 80))
    assert network.sizes == [seen]


def test_an_image_of_the_right_size_is_not_resized() -> None:
    prepared = torch.rand(1, 3, 64, 80)
    logits = Predictor(Identity(), ModelMetadata()).logits(prepared)
    assert logits.shape == prepared.shape
    assert logits.data_ptr() == prepared.data_ptr()


class Coarse(Identity):
    """A network that scales features of stride 32 to the size of its input, as a decoder does."""

    def logits(self, images: Tensor) -> Tensor:
        super().logits(images)
        cells = functional.avg_pool2d(images, 32, ceil_mode=True, count_include_pad=False)
        return functional.interpolate(cells, images.shape[-2:], mode='bilinear')


@pytest.mark.parametrize('size', [(96, 128), (97, 129), (100, 150), (127, 131)])
@pytest.mark.parametrize('given', [False, True])
def test_coarse_features_stay_in_their_place_in_an_image_of_any_size(
    size: tuple[int, int], given: bool
) -> None:
    places = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing='ij')).float()
    input_size = size[::-1] if given else (0, 0)
    logits = Predictor(Coarse(), LITE, input_size).logits(places[None])[0]
    inside = (slice(None), slice(16, -48), slice(16, -48))
    torch.testing.assert_close(logits[inside], places[inside])


@pytest.mark.parametrize(
    ('metadata', 'seen'),
    [(LITE, (64, 96)), (ModelMetadata(), (48, 80)), (ModelMetadata(decoder='none'), (41, 66))],
)
def test_the_input_has_whole_cells_if_there_is_a_skip_decoder(
    metadata: ModelMetadata, seen: tuple[int, int]
) -> None:
    network, prepared = Identity(), torch.rand(1, 3, 41, 66)
    assert torch.equal(Predictor(network, metadata).logits(prepared), prepared)
    assert network.sizes == [seen]


@pytest.mark.parametrize('size', [(1, 1), (1, 40), (33, 5)])
def test_the_border_of_a_tiny_image_is_repeated(size: tuple[int, int]) -> None:
    prepared = torch.rand(1, 3, *size)
    assert torch.equal(Predictor(Identity(), LITE).logits(prepared), prepared)


def test_images_are_reduced_with_antialiasing() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 3, 64, 64)
    network = Predictor(Identity(), ModelMetadata(), (16, 0))
    smooth = network.logits(stripes)
    assert (smooth - 0.5).abs().max() < 0.2


@pytest.mark.parametrize(
    ('size', 'most'), [((1, 16384), 2.0), ((500, 16384), 1.006), ((600, 16384), 1.0)]
)
def test_the_enlargement_of_a_long_image_is_limited_by_its_number_of_pixels(
    size: tuple[int, int], most: float
) -> None:
    assert enlargement(*size, ModelMetadata(smallest_side=2000)) == pytest.approx(most, abs=0.001)
