# SPDX-License-Identifier: Apache-2.0
"""All variants of the network; the one of torchvision gives the same logits as torchvision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.segmentation import deeplabv3_resnet50

from rock_seg_ros.perception.inference.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build, load_state
from rock_seg_ros.perception.inference.networks import NETWORKS, DeepLabV3, network_of
from rock_seg_ros.perception.inference.weights_file import load_weights

EXAMPLES = [
    ModelMetadata(
        ('ground', 'rock', 'rim'), architecture=name, decoder=decoder, output_stride=stride
    )
    for name, network in NETWORKS.items()
    for decoder in network.decoders
    for stride in network.output_strides
]


def meta(
    channels: int = 2, decoder: str = 'skip', output_stride: int = 8, aux: bool = False
) -> DeepLabV3:
    """Returns a ResNet-50 on the meta device, which needs no memory."""
    with torch.device('meta'):
        return network_of('resnet50').make(channels, decoder, output_stride, aux)


def with_random_statistics(model: nn.Module) -> nn.Module:
    """Sets random statistics; new batch norms are almost identities, which would hide an error."""
    torch.manual_seed(1)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.2)
            nn.init.normal_(part.bias, std=0.1)
            part.running_mean.normal_(std=0.1)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model.eval()


@pytest.mark.parametrize('metadata', EXAMPLES, ids=lambda c: f'{c.architecture}-{c.decoder}')
@pytest.mark.parametrize(('height', 'width'), [(33, 70), (64, 64), (1, 1), (479, 641)])
def test_logits_have_the_size_of_the_image(
    metadata: ModelMetadata, height: int, width: int
) -> None:
    with torch.device('meta'):
        model = build(metadata).eval()
    logits = model(torch.empty(2, 3, height, width, device='meta'))
    assert list(logits) == ['out']
    assert logits['out'].shape == (2, 3, height, width)


def test_the_auxiliary_head_runs_in_training_only() -> None:
    model = meta(aux=True)
    image = torch.empty(2, 3, 64, 80, device='meta')
    assert model.train()(image)['aux'].shape == (2, 2, 64, 80)
    assert list(model.eval()(image)) == ['out']


@pytest.mark.parametrize('aux', [False, True])
def test_torchvision_weights_give_the_logits_of_torchvision(tmp_path: Path, aux: bool) -> None:
    torch.manual_seed(0)
    theirs = with_random_statistics(
        deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=aux)
    )
    torch.save(theirs.state_dict(), tmp_path / 'theirs.pth')
    metadata = {'classes': [f'class {i}' for i in range(21)], 'rock_classes': ['class 3']}
    (tmp_path / 'theirs.json').write_text(json.dumps(metadata))
    weights = load_weights(tmp_path / 'theirs.pth')
    assert weights.metadata.output_stride == 8
    image = torch.randn(1, 3, 65, 98)
    with torch.inference_mode():
        expected = theirs(image)['out']
    ours = TorchBackend(weights, torch.device('cpu'), 'fp32', 8).logits(image)
    assert expected.std() > 0.05
    assert (ours - expected).abs().max() <= 1e-4


@pytest.mark.parametrize('aux', [False, True])
def test_decoder_none_has_the_state_dict_keys_of_torchvision(aux: bool) -> None:
    with torch.device('meta'):
        theirs = deeplabv3_resnet50(weights=None, weights_backbone=None, aux_loss=aux)
    ours = meta(channels=21, decoder='none', aux=aux)
    shapes = [
        [(name, tensor.shape) for name, tensor in model.state_dict().items()]
        for model in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize('decoder', ['skip', 'none'])
def test_the_same_weights_fit_both_output_strides_with_scaled_dilation(decoder: str) -> None:
    fine = meta(decoder=decoder, output_stride=8)
    coarse = meta(decoder=decoder, output_stride=16)
    assert {n: t.shape for n, t in fine.state_dict().items()} == {
        n: t.shape for n, t in coarse.state_dict().items()
    }
    rates = [
        [c.dilation[0] for c in m.classifier.modules() if isinstance(c, nn.Conv2d)][1:4]
        for m in (fine, coarse)
    ]
    assert rates == [[12, 24, 36], [6, 12, 18]]
    deep = [m.backbone(torch.empty(1, 3, 64, 64, device='meta'))['deep'] for m in (fine, coarse)]
    assert [d.shape[-1] for d in deep] == [8, 4]


@pytest.mark.parametrize('output_stride', [8, 16])
def test_the_skip_decoder_costs_at_most_20_gflop_more_at_640x480(output_stride: int) -> None:
    def flops(decoder: str) -> int:
        model = meta(decoder=decoder, output_stride=output_stride).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 480, 640, device='meta'))
        return counter.get_total_flops()

    assert 0 < flops('skip') - flops('none') <= 20e9


def test_an_unsupported_output_stride_is_rejected_with_the_supported_ones() -> None:
    with pytest.raises(ValueError, match='ResNet50 must be 0 or 8 or 16, not 32'):
        build(ModelMetadata(), 32)
    light = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    with pytest.raises(ValueError, match='Lite0 must be 0 or 32, not 8'):
        build(light, 8)


def test_an_unknown_backbone_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match=r"must be 'resnet50' or 'efficientnet_lite0' or .*, not 'vgg'"
    ):
        network_of('vgg')


def test_a_state_dict_that_does_not_fit_is_rejected_by_tensor_name() -> None:
    model = build(ModelMetadata(decoder='none'))
    state = dict(model.state_dict())
    with pytest.raises(ValueError, match=r'classifier\.4\.bias is missing'):
        load_state(model, {n: t for n, t in state.items() if n != 'classifier.4.bias'}, 'it')
    with pytest.raises(ValueError, match='other is unknown'):
        load_state(model, state | {'other': torch.zeros(1)}, 'it')
    with pytest.raises(ValueError, match=r'classifier\.4\.bias has shape \(3,\)'):
        load_state(model, state | {'classifier.4.bias': torch.zeros(3)}, 'it')


def test_an_auxiliary_head_that_only_the_state_dict_has_is_ignored() -> None:
    trained = build(ModelMetadata(), aux=True)
    model = build(ModelMetadata())
    load_state(model, trained.state_dict(), 'it')
    assert torch.equal(model.state_dict()['classifier.score.weight'],
                       trained.state_dict()['classifier.score.weight'])  # fmt: skip
