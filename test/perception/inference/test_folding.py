# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
import torch
from torch import nn

from rock_seg_ros.perception.inference.folding import fold_batch_norm
from rock_seg_ros.perception.inference.networks import network_of


def with_statistics(model: nn.Module) -> nn.Module:
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.2, 0.2)
            nn.init.uniform_(norm.running_var, 0.6, 1.4)
            nn.init.uniform_(norm.weight, 0.8, 1.2)
            nn.init.uniform_(norm.bias, -0.2, 0.2)
    return model.eval()


@pytest.mark.parametrize(
    ('backbone', 'decoder', 'output_stride'),
    [('resnet50', 'skip', 16), ('resnet50', 'none', 16), ('efficientnet_lite0', 'skip', 32)],
)
def test_folding_removes_batch_norms_and_keeps_the_logits(
    backbone: str, decoder: str, output_stride: int
) -> None:
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        model = with_statistics(network_of(backbone).make(3, decoder, output_stride, False))
        image = torch.randn(1, 3, 64, 80)
        expected = model(image)['out']
        fold_batch_norm(model)
        found = model(image)['out']
    assert not any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_batch_norm_without_a_preceding_convolution_is_kept() -> None:
    model = with_statistics(nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.ReLU()))
    fold_batch_norm(model)
    assert isinstance(model[0], nn.BatchNorm2d)
