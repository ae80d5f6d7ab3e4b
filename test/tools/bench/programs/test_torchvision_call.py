# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import torch


def test_the_mask_has_the_size_of_the_image(monkeypatch, small_image):
    from rock_seg_ros.tools.bench.programs.torchvision_call import TorchvisionCall

    call = TorchvisionCall()
    image = small_image.copy()
    batch = call.prepare(image)
    assert batch.shape == (1, 3, 64, 80)
    red = (image[0, 0, 0] / 255 - 0.485) / 0.229
    torch.testing.assert_close(batch[0, 0, 0, 0], torch.tensor(red, dtype=torch.float32))
    scores = call.network(batch)
    assert scores.shape == (1, 2, 64, 80)
    assert not scores.requires_grad
    mask = call.image(image)
    assert mask.shape == (64, 80)
    assert torch.equal(torch.from_numpy(mask), scores[0, 1] > scores[0, 0])
