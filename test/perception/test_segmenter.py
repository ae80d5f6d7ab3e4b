# SPDX-License-Identifier: Apache-2.0
"""What goes in at any size and with any strides comes out at that size, with legal values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rock_seg_ros.perception import segmenter as segmenter_module
from rock_seg_ros.perception.card import Card
from rock_seg_ros.perception.model import build
from rock_seg_ros.perception.segmenter import (
    DeviceError,
    Segmentation,
    Segmenter,
    SizeError,
    choose_device,
    classify,
    enlargement,
    suppress,
)
from rock_seg_ros.perception.weights_file import Weights, WeightsError, load_weights, save_weights

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')


@pytest.fixture(scope='module')
def segmenter(weights_file: Path) -> Segmenter:
    return Segmenter(load_weights(weights_file), 'cpu')


@without_cuda
@pytest.mark.parametrize('name', ['cuda', 'cuda:0', 'cuda:7'])
def test_cuda_without_cuda_is_an_error(name: str, weights_file: Path) -> None:
    with pytest.raises(DeviceError, match='0 CUDA devices'):
        Segmenter(load_weights(weights_file), name)


@without_cuda
def test_auto_chooses_the_cpu_where_there_is_no_cuda() -> None:
    assert choose_device('auto') == torch.device('cpu')


@pytest.mark.parametrize('name', ['gpu', 'cuda:', 'cuda:x', 'cuda:-1', 'cpu:0', 'mps', ''])
def test_an_illegal_device_is_named(name: str) -> None:
    with pytest.raises(DeviceError, match=repr(name)):
        choose_device(name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_cuda_gives_what_the_cpu_gives(
    segmenter: Segmenter, weights_file: Path, small_picture: NDArray[np.uint8]
) -> None:
    on_cuda = Segmenter(load_weights(weights_file), 'cuda').segment(small_picture)
    same = on_cuda.mask() == segmenter.segment(small_picture).mask()
    assert same.mean() >= 0.99


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ({'precision': 'fp8'}, 'fp8'),
        ({'backend': 'tensorrt'}, 'tensorrt'),
        ({'output_stride': 32}, '32'),
        ({'input_size': (16, 0)}, '16'),
    ],
)
def test_an_illegal_argument_is_named(
    weights_file: Path, arguments: dict[str, object], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        Segmenter(load_weights(weights_file), 'cpu', **arguments)  # type: ignore[arg-type]


def test_safetensors_on_the_onnx_backend_are_refused(weights_file: Path) -> None:
    with pytest.raises(WeightsError, match=r'needs an \.onnx file'):
        Segmenter(load_weights(weights_file), 'cpu', backend='onnx')


def test_weights_that_do_not_fit_their_card_are_refused_by_file_name(tmp_path: Path) -> None:
    file = tmp_path / 'w.safetensors'
    save_weights(file, build(Card(decoder='none')).state_dict(), Card(decoder='skip'))
    with pytest.raises(WeightsError, match=r'w\.safetensors: .* is missing'):
        Segmenter(load_weights(file), 'cpu')


@pytest.mark.parametrize('size', [(33, 70), (64, 64), (1, 1)])
def test_the_result_has_the_pictures_size(segmenter: Segmenter, size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    found = segmenter.segment(picture)
    for part in (found.class_ids, found.confidence, found.mask()):
        assert part.shape == size
        assert part.dtype == np.uint8
    assert set(np.unique(found.class_ids)) <= {0, 1}
    assert set(np.unique(found.mask())) <= {0, 255}
    assert found.confidence.min() >= 127


def test_input_size_changes_what_the_network_sees_and_not_the_results_size(
    weights_file: Path, small_picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Segmenter(load_weights(weights_file), 'cpu', input_size=(48, 0))
    seen: list[tuple[int, ...]] = []
    runner = segmenter._runner
    scores = runner.scores
    monkeypatch.setattr(
        runner, 'scores', lambda pictures: seen.append(tuple(pictures.shape)) or scores(pictures)
    )
    assert segmenter.segment(small_picture).class_ids.shape == (64, 80)
    assert seen == [(1, 3, 64, 48)]


def test_a_picture_of_any_strides_equals_its_contiguous_copy(
    segmenter: Segmenter, small_picture: NDArray[np.uint8]
) -> None:
    mono = np.broadcast_to(small_picture[:, :, :1], small_picture.shape)
    for view in (small_picture[:, ::-1], small_picture[::-1, :, ::-1], mono):
        assert not view.flags.c_contiguous
        found = segmenter.segment(view)
        copied = segmenter.segment(np.array(view, order='C'))
        assert np.array_equal(found.class_ids, copied.class_ids)
        assert np.array_equal(found.confidence, copied.confidence)


def test_a_read_only_picture_is_worked_on_without_a_warning(
    segmenter: Segmenter, small_picture: NDArray[np.uint8], recwarn: pytest.WarningsRecorder
) -> None:
    assert not small_picture.flags.writeable
    segmenter.segment(small_picture)
    assert not recwarn.list


def test_a_picture_without_pixels_is_refused(segmenter: Segmenter) -> None:
    with pytest.raises(SizeError, match='5×0'):
        segmenter.segment(np.zeros((0, 5, 3), np.uint8))


def test_the_threshold_holds_from_picture_to_picture(
    segmenter: Segmenter, small_picture: NDArray[np.uint8]
) -> None:
    assert segmenter.segment(small_picture, 0.0).mask().all()
    assert not segmenter.segment(small_picture, 1.0).mask().any()
    card_says = segmenter.segment(small_picture, segmenter.card.threshold)
    assert np.array_equal(segmenter.segment(small_picture).class_ids, card_says.class_ids)


def test_both_output_strides_run(weights_file: Path, small_picture: NDArray[np.uint8]) -> None:
    fine = Segmenter(load_weights(weights_file), 'cpu', output_stride=8)
    assert fine.segment(small_picture).class_ids.shape == (64, 80)


def test_bfloat16_is_close_to_float32(
    segmenter: Segmenter, weights_file: Path, small_picture: NDArray[np.uint8]
) -> None:
    coarse = Segmenter(load_weights(weights_file), 'cpu', precision='bf16')
    assert coarse.precision == 'bf16'
    one, two = (s.segment(small_picture, 0.0).confidence / 255 for s in (segmenter, coarse))
    assert np.abs(one - two).mean() < 0.02


def scores_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities).log().view(-1, 1, 1)


FOUR = Card(classes=('sky', 'sand', 'rock', 'boulder'), rock_classes=('rock', 'boulder'))


@pytest.mark.parametrize(
    ('probabilities', 'threshold', 'class_id', 'confidence'),
    [
        ((0.0, 0.4, 0.35, 0.25), 0.5, 2, 0.35),  # sand is likeliest, but rock in all is 0.6
        ((0.0, 0.4, 0.35, 0.25), 0.7, 1, 0.4),
        ((0.45, 0.1, 0.0, 0.45), 0.5, 0, 0.45),
        ((0.1, 0.1, 0.1, 0.7), 0.5, 3, 0.7),
        ((0.1, 0.1, 0.1, 0.7), 0.9, 0, 0.1),
    ],
)
def test_rock_classes_are_weighed_together_and_told_apart_after(
    probabilities: tuple[float, ...], threshold: float, class_id: int, confidence: float
) -> None:
    ids, sure = classify(scores_of(*probabilities), FOUR, threshold)
    assert ids.item() == class_id
    assert sure.item() == pytest.approx(confidence * 255, abs=0.51)


@pytest.mark.parametrize('rock_first', [False, True])
def test_one_channel_is_the_rocks_probability(rock_first: bool) -> None:
    card = Card(activation='sigmoid', rock_classes=('background' if rock_first else 'rock',))
    rock, other = (0, 1) if rock_first else (1, 0)
    ids, sure = classify(torch.tensor([[[-9.0, 0.0, 2.0]]]), card, 0.5)
    assert ids.tolist() == [[other, rock, rock]]
    assert sure.tolist() == [[255, 128, 225]]


def test_suppressed_pixels_become_background_and_others_stay() -> None:
    found = Segmentation(
        np.array([[1, 1, 0]], np.uint8), np.array([[200, 201, 202]], np.uint8), (1,)
    )
    result = suppress(found, np.array([[0, 1, 0]], np.uint8))
    assert result.class_ids.tolist() == [[0, 1, 0]]
    assert result.confidence.tolist() == [[255, 201, 202]]
    assert found.class_ids.tolist() == [[1, 1, 0]]


def test_suppressed_rims_become_background_too() -> None:
    found = Segmentation(np.array([[2, 2]], np.uint8), np.array([[9, 9]], np.uint8), (1,), 2)
    assert suppress(found, np.array([[0, 1]], np.uint8)).class_ids.tolist() == [[0, 2]]


def test_a_suppressed_pixel_never_becomes_another_rock_class() -> None:
    found = Segmentation(np.array([[1]], np.uint8), np.array([[9]], np.uint8), (0, 1))
    assert suppress(found, np.zeros((1, 1), np.uint8)).class_ids.item() == 2


def test_an_ignore_mask_of_another_size_is_refused() -> None:
    found = Segmentation(np.zeros((4, 6), np.uint8), np.zeros((4, 6), np.uint8), (1,))
    with pytest.raises(SizeError, match=r'7×4.*6×4'):
        suppress(found, np.zeros((4, 7), np.uint8))


def test_a_sigmoid_network_runs_from_its_file(
    tmp_path: Path, small_picture: NDArray[np.uint8]
) -> None:
    card = replace(Card(output_stride=16), activation='sigmoid')
    save_weights(tmp_path / 'w.safetensors', build(card).state_dict(), card)
    found = Segmenter(load_weights(tmp_path / 'w.safetensors'), 'cpu').segment(small_picture)
    assert found.class_ids.shape == (64, 80)
    assert found.confidence.min() >= 127


@pytest.mark.parametrize(
    ('size', 'seen'),
    [((60, 80), (96, 128)), ((30, 80), (60, 160)), ((96, 100), (96, 100)), ((200, 90), (213, 96))],
)
def test_a_picture_smaller_than_the_card_says_is_enlarged_at_most_twofold(
    size: tuple[int, int], seen: tuple[int, int]
) -> None:
    card = Card(smallest_side=96)
    height, width = size
    scale = enlargement(height, width, card)
    assert (round(height * scale), round(width * scale)) == seen
    assert enlargement(height, width, Card()) == 1


def test_the_network_sees_the_enlarged_picture_unless_a_size_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[tuple[int, ...]] = []

    class Runner:
        device, precision = torch.device('cpu'), 'fp32'

        def __init__(self, *_: object) -> None:
            pass

        def scores(self, pictures: torch.Tensor) -> torch.Tensor:
            sizes.append(tuple(pictures.shape[-2:]))
            return torch.zeros(1, 2, *pictures.shape[-2:])

    monkeypatch.setitem(segmenter_module.BACKENDS, 'torch', Runner)
    weights = Weights(Path('w.safetensors'), Card(smallest_side=96), {})
    picture = np.zeros((60, 80, 3), np.uint8)
    assert Segmenter(weights).segment(picture).class_ids.shape == (60, 80)
    Segmenter(weights, input_size=(64, 0)).segment(picture)
    assert sizes == [(96, 128), (60, 64)]
