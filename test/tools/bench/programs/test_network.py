# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from functools import partial
from multiprocessing import Pipe

import torch

from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.tools.bench.contenders import BenchError, Contender
from rock_seg_ros.tools.bench.programs.network import Preset, Torchvision, serve


def test_the_preprocessing_and_the_mask_of_torchvision_are_those_of_its_documentation(small_image):
    network = Torchvision('cpu')
    image = small_image.copy()
    run = network.prepare(image)
    (batch,) = run.args
    red = (image[0, 0, 0] / 255 - 0.485) / 0.229
    torch.testing.assert_close(batch[0, 0, 0, 0], torch.tensor(red, dtype=torch.float32))
    logits = run()
    assert logits.shape == (1, 2, 64, 80)
    assert not logits.requires_grad
    mask = network.image(image)
    assert torch.equal(torch.from_numpy(mask), logits[0, 1] > logits[0, 0])


def test_a_preset_runs_its_network_and_segments_an_image(small_image, monkeypatch):
    by_torch = partial(Segmenter, backend='torch')  # it needs no compilation
    monkeypatch.setattr('rock_seg_ros.perception.inference.segmenter.Segmenter', by_torch)
    network = Preset(Contender('light', 'cpu', 'light', 'balanced'))
    assert network.precision == 'fp32'
    assert network.prepare(small_image)().shape[-2:] == (64, 80)
    assert network.image(small_image).shape == (64, 80)


def test_the_answer_to_weights_that_cannot_be_loaded_is_the_reason():
    connection, other = Pipe()
    connection.send(Contender('exact', 'cpu', 'none.safetensors', 'exact'))
    serve(other)
    answer = connection.recv()
    assert isinstance(answer, BenchError)
    assert str(answer).endswith('none.safetensors: no such file')


def test_the_process_ends_quietly_if_the_other_one_has_ended():
    connection, other = Pipe()
    other.close()
    serve(connection)
