# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rock_seg_ros.perception.inference.backends.torch_backend import TorchBackend
from rock_seg_ros.perception.inference.networks import DeepLabV3
from rock_seg_ros.perception.inference.weights_file import load_weights


@pytest.fixture
def tf32_allowed() -> Iterator[None]:
    """Allows TF32 on CUDA, and restores the settings."""
    flags = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = True
    yield
    for flag, allowed in zip(flags, before, strict=True):
        flag.allow_tf32 = allowed


@pytest.mark.usefixtures('tf32_allowed')
@pytest.mark.parametrize(
    ('device', 'precision', 'allowed'),
    [('cuda', 'fp32', False), ('cuda', 'fp16', True), ('cpu', 'fp32', True)],
)
def test_fp32_on_cuda_does_not_use_tf32(
    light_weights_file: Path,
    device: str,
    precision: str,
    allowed: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DeepLabV3, 'to', lambda model, *_, **__: model)  # there may be no CUDA
    TorchBackend(load_weights(light_weights_file), torch.device(device), precision, 0)
    assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
