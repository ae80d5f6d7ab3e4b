# SPDX-License-Identifier: Apache-2.0
"""torchvision's weights start a training where they can be had, and are never a must."""

from __future__ import annotations

import logging
import socket
import urllib.error
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights, deeplabv3_resnet50

from rock_seg_ros.perception.model import DeepLabV3
from training.pretrained import DOWNLOAD_TIMEOUT, load_pretrained


@pytest.fixture(scope='module')
def theirs() -> dict[str, Tensor]:
    torch.manual_seed(5)
    model = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=True)
    return model.state_dict()


def answer_with(monkeypatch: pytest.MonkeyPatch, result: Any) -> list[float | None]:
    """Lets torchvision answer so; returns the socket time-outs that it was asked under."""
    timeouts: list[float | None] = []

    def get_state_dict(self: object, *_: object, **__: object) -> Any:
        timeouts.append(socket.getdefaulttimeout())
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(DeepLabV3_ResNet50_Weights, 'get_state_dict', get_state_dict)
    return timeouts


@pytest.mark.parametrize('decoder', ['skip', 'none'])
def test_every_tensor_that_fits_is_taken_over(
    decoder: str, theirs: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_with(monkeypatch, theirs)
    model = DeepLabV3(channels=2, decoder=decoder, aux=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert load_pretrained(model)
    after = model.state_dict()
    aspp = 'classifier.aspp' if decoder == 'skip' else 'classifier.0'
    scores = 'classifier.score' if decoder == 'skip' else 'classifier.4'
    for name in ('backbone.conv1.weight', 'backbone.layer4.2.bn3.running_var',
                 'aux_classifier.0.weight'):  # fmt: skip
        assert torch.equal(after[name], theirs[name]), name
    for tail in ('convs.2.0.weight', 'convs.4.1.weight', 'project.1.bias'):
        assert torch.equal(after[f'{aspp}.{tail}'], theirs[f'classifier.0.{tail}'])
    assert torch.equal(after[f'{scores}.weight'], before[f'{scores}.weight'])


@pytest.mark.parametrize(
    'failure',
    [
        urllib.error.URLError('Name or service not known'),
        TimeoutError('timed out'),
        RuntimeError('invalid hash value'),
    ],
)
def test_a_download_that_fails_is_one_line_and_the_training_starts_from_random(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timeouts = answer_with(monkeypatch, failure)
    before = socket.getdefaulttimeout()
    with torch.device('meta'):
        model = DeepLabV3()
    with caplog.at_level(logging.INFO, 'training'):
        assert not load_pretrained(model)
    (record,) = [r for r in caplog.records if r.name.startswith('training')]
    assert 'random weights' in record.getMessage()
    assert '\n' not in record.getMessage()
    assert timeouts == [DOWNLOAD_TIMEOUT], 'a dead network must not hold the training up'
    assert socket.getdefaulttimeout() == before
