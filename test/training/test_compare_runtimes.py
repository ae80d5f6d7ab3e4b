# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from training import compare_runtimes


def test_the_output_stride_is_that_of_the_weights_by_default(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ('export', 'onnx_runtime', 'openvino', 'frozen_compile'):
        monkeypatch.setattr(compare_runtimes, name, lambda *_, **__: lambda _: None)
    assert compare_runtimes.main(['--weights', 'light', '--size', '64x48', '--seconds', '0']) == 0
    assert 'output stride 32' in capsys.readouterr().out


def test_an_invalid_size_is_an_error() -> None:
    with pytest.raises(SystemExit):
        compare_runtimes.main(['--size', 'foo'])
