# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.presets import PRESETS, resolve_preset

CPU, CUDA = torch.device('cpu'), torch.device('cuda:1')
CALIBRATED = ModelMetadata(activation_ranges={'backbone.conv1': (-2.0, 2.5)})


@pytest.mark.parametrize(
    ('preset', 'device', 'meant'),
    [
        ('auto', CPU, ('fp32', 8)),
        ('auto', CUDA, ('fp16', 8)),
        ('exact', CPU, ('fp32', 8)),
        ('exact', CUDA, ('fp32', 8)),
        ('balanced', CPU, ('fp32', 16)),
        ('balanced', CUDA, ('fp16', 16)),
        ('fast', CPU, ('int8', 16)),
        ('fast', CUDA, ('fp16', 16)),
    ],
)
def test_a_preset_sets_precision_and_output_stride(
    preset: str, device: torch.device, meant: tuple[str, int]
) -> None:
    assert resolve_preset(preset, device, CALIBRATED) == meant


def test_auto_is_int8_on_the_cpu_if_weights_and_backend_support_it() -> None:
    assert resolve_preset('auto', CPU, CALIBRATED, int8_backend=True) == ('int8', 8)
    assert resolve_preset('auto', CPU, ModelMetadata(), int8_backend=True) == ('fp32', 8)
    assert resolve_preset('auto', CUDA, CALIBRATED, int8_backend=True) == ('fp16', 8)
    assert resolve_preset('balanced', CPU, CALIBRATED, int8_backend=True) == ('fp32', 16)


@pytest.mark.parametrize('preset', PRESETS)
def test_a_network_with_one_output_stride_keeps_it_with_each_preset(preset: str) -> None:
    metadata = replace(CALIBRATED, architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    assert resolve_preset(preset, CPU, metadata)[1] == 32


@pytest.mark.parametrize('preset', PRESETS)
def test_given_values_override_the_preset(preset: str) -> None:
    assert resolve_preset(preset, CPU, ModelMetadata(), 'bf16', 8) == ('bf16', 8)
    assert resolve_preset(preset, CUDA, ModelMetadata(), 'fp32', 16) == ('fp32', 16)
    assert resolve_preset(preset, CPU, CALIBRATED, 'int8') == (
        'int8',
        resolve_preset(preset, CPU, CALIBRATED)[1],
    )


def test_an_unknown_preset_is_rejected_by_name() -> None:
    with pytest.raises(ValueError, match="exact, balanced, fast, not 'quick'"):
        resolve_preset('quick', CPU, CALIBRATED)


@pytest.mark.parametrize(
    ('preset', 'precision', 'asked'),
    [('fast', 'auto', "preset 'fast'"), ('balanced', 'int8', "precision 'int8'")],
)
def test_int8_without_calibrated_weights_is_an_error_with_the_remedy(
    preset: str, precision: str, asked: str
) -> None:
    with pytest.raises(ValueError, match=f"{asked}.* 'balanced', or training.export --calibrate"):
        resolve_preset(preset, CPU, ModelMetadata(), precision)


def test_int8_on_cuda_is_an_error() -> None:
    with pytest.raises(ValueError, match="'int8' needs the CPU, not 'cuda:1'"):
        resolve_preset('fast', CUDA, CALIBRATED, 'int8')
