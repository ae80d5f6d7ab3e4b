# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from rock_seg_ros.perception.inference.networks import DeepLabV3, network_of
from rock_seg_ros.perception.inference.quantization import quantize, quantized_inputs


@pytest.fixture
def model() -> DeepLabV3:
    torch.manual_seed(3)
    return network_of('resnet50').make(2, 'skip', 16, False).eval()


@pytest.mark.parametrize(
    ('backbone', 'decoder', 'exact'),
    [
        ('resnet50', 'skip', {'classifier.score', 'classifier.aspp.convs.4.1'}),
        ('resnet50', 'none', {'classifier.4', 'classifier.0.convs.4.1'}),
        (
            'efficientnet_lite0',
            'skip',
            {
                'classifier.score',
                'classifier.aspp.convs.4.1',
                'backbone.conv_stem',
                'backbone.blocks.0.0.conv_dw',
                'backbone.blocks.0.0.conv_pw',
                *(f'backbone.blocks.1.{block}.conv_pwl' for block in range(2)),
                *(f'backbone.blocks.2.{block}.conv_pwl' for block in range(2)),
            },
        ),
    ],
)
def test_every_convolution_except_the_sensitive_ones_is_quantized_once(
    backbone: str, decoder: str, exact: set[str]
) -> None:
    with torch.device('meta'):
        network = network_of(backbone)
        model = network.make(2, decoder, network.output_strides[0], False)
    rounded = [conv for convs in quantized_inputs(model).values() for conv in convs]
    assert len(rounded) == len(set(rounded))
    every = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert {name for name, conv in every.items() if conv not in set(rounded)} == exact


def test_weights_are_quantized_per_channel_to_at_most_255_values(
    model: DeepLabV3,
) -> None:
    convolution = model.backbone.layer4[0].conv2
    before = convolution.weight.detach().clone()
    quantize(model, dict.fromkeys(quantized_inputs(model), (0.0, 1.0)))
    for old, new in zip(before[:4], convolution.weight[:4], strict=True):
        assert 100 < new.unique().numel() <= 255
        step = max(old.abs().max(), (old[0::2] + old[1::2]).abs().max()) / 127
        assert (old - new).abs().max() <= 0.5001 * step


def test_the_products_of_two_neighbouring_channels_fit_in_16_bits(model: DeepLabV3) -> None:
    convolution = model.backbone.layer4[0].conv2
    with torch.no_grad():
        convolution.weight[0] = 1.0  # all are the largest weight of the output channel
    quantize(model, dict.fromkeys(quantized_inputs(model), (0.0, 1.0)))
    scale = convolution.parametrizations.weight[0].scale
    steps = (convolution.weight / scale.view(-1, 1, 1, 1)).round()
    assert 255 * (steps[:, 0::2] + steps[:, 1::2]).abs().max() < 2**15


@pytest.mark.parametrize(('low', 'high'), [(0.0, 2.0), (-1.0, 2.0), (0.5, 2.0), (-2.0, -0.5)])
def test_inputs_are_clipped_and_quantized_to_256_values_with_an_exact_zero(
    model: DeepLabV3, low: float, high: float
) -> None:
    ranges = dict.fromkeys(quantized_inputs(model), (0.0, 1.0)) | {'backbone.conv1': (low, high)}
    quantize(model, ranges)
    seen = []
    model.backbone.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    image = torch.linspace(-4, 4, 3 * 32 * 64).view(1, 3, 32, 64)
    image[..., 0, 0] = 0
    with torch.inference_mode():
        model(image)
    low, high = min(low, 0.0), max(high, 0.0)
    step = (high - low) / 255
    (values,) = seen
    assert 250 < values.unique().numel() <= 256
    assert low - step < values.min() < values.max() < high + step
    inside = (image > low) & (image < high)
    assert (values - image)[inside].abs().max() <= 1.001 * step
    assert (values[..., 0, 0] == 0).all()


@pytest.mark.parametrize('change', [{'backbone.conv1': None}, {'backbone.conv9': (0.0, 1.0)}])
def test_activation_ranges_of_another_network_are_rejected_by_layer_name(
    model: DeepLabV3, change: dict[str, tuple[float, float] | None]
) -> None:
    ranges = dict.fromkeys(quantized_inputs(model), (0.0, 1.0)) | change
    kept = {name: pair for name, pair in ranges.items() if pair}
    with pytest.raises(ValueError, match=f'do not fit the network at {next(iter(change))}'):
        quantize(model, kept)
