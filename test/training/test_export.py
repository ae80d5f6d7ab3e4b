# SPDX-License-Identifier: Apache-2.0
"""An exported weights file has the results of its checkpoint, or it is not written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.model import build
from rock_seg_ros.perception.inference.segmentation import Segmentation
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import WeightsError, load_weights, save_weights
from training.datasets import DatasetConfig, Sample, find_samples
from training.evaluation import Result, evaluate
from training.export import _calibration_samples, main, trained_on
from training.weights_export import compare, compare_int8, export, figures_of

METADATA = ModelMetadata(output_stride=16, data='discs', metrics={'earlier': 0.5})


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory, discs: Path) -> Path:
    """Writes a checkpoint with random weights."""
    torch.manual_seed(2)
    state = build(METADATA, aux=True).state_dict()
    file = tmp_path_factory.mktemp('run') / 'last.ckpt'
    wrapped = {f'model.{name}': tensor for name, tensor in state.items()}
    sources = [asdict(DatasetConfig(str(discs), val_fraction=0.5))]
    torch.save(
        {'state_dict': wrapped, 'card': METADATA.to_json(), 'sources': sources, 'global_step': 7},
        file,
    )
    return file


def samples_of(folder: Path, split: str = 'all') -> list[Sample]:
    return find_samples(DatasetConfig(str(folder)), split, METADATA.classes)


def damage(monkeypatch: pytest.MonkeyPatch, name: str, factor: float) -> None:
    """Makes the writer of safetensors multiply one tensor by a factor."""

    def save(file: Path, state: Mapping[str, Tensor], *rest: Any) -> None:
        save_weights(file, {**state, name: state[name] * factor}, *rest)

    monkeypatch.setattr('training.weights_export.save_weights', save)


class FakeSegmenter:
    """Predicts the same mask for every image."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self.metadata = METADATA
        self.ids = mask.astype(np.uint8)

    def segment(self, image: NDArray[np.uint8], threshold: float | None = None) -> Segmentation:
        return Segmentation(self.ids, np.full_like(self.ids, 255), (1,))


def found(samples: list[Sample], pixels: int) -> dict[str, Result]:
    """Returns results with rock in the first `pixels` pixels of each image of 96×80 px."""
    mask = np.arange(80 * 96).reshape(80, 96) < pixels
    return {'discs': evaluate(FakeSegmenter(mask), samples)}  # type: ignore[arg-type]


def test_a_safetensors_file_has_weights_and_metadata_of_the_checkpoint(
    checkpoint: Path, discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / 'w.safetensors'
    assert main(['--checkpoint', str(checkpoint), '-o', str(target)]) == 0
    held_out = find_samples(DatasetConfig(str(discs), val_fraction=0.5), 'val', METADATA.classes)
    assert f'checked on {len(held_out)} images' in capsys.readouterr().out
    weights = load_weights(target)
    metrics = weights.metadata.metrics
    assert metrics.keys() == {'earlier', 'export_pixels_differ', 'export_iou_change'}
    assert 0 <= metrics['export_pixels_differ'] <= 0.001
    assert (
        weights.metadata.to_json()
        == ModelMetadata(**{**asdict(METADATA), 'metrics': metrics}).to_json()
    )
    assert not any(name.startswith('aux_classifier') for name in weights.state)
    name, stored = 'classifier.refine.0.weight', load_weights(checkpoint).state
    torch.testing.assert_close(weights.state[name], stored[name], rtol=1e-3, atol=1e-6)


def test_an_int8_file_is_small_and_has_measured_metrics(
    checkpoint: Path, own_discs: Path, tmp_path: Path
) -> None:
    target = tmp_path / 'w.safetensors'
    given = ['--checkpoint', str(checkpoint), '-o', str(target), '--int8', '--measure']
    assert main([*given, '--check-on', str(own_discs), '--val-fraction', '0.6']) == 0
    assert target.stat().st_size <= 41.5e6
    metrics = load_weights(target).metadata.metrics
    assert metrics['export_iou_change'] <= 0.002
    assert metrics['earlier'] == 0.5
    samples = find_samples(DatasetConfig(str(own_discs), val_fraction=0.6), 'val', METADATA.classes)
    assert 1 < len(samples) < 5
    result = evaluate(Segmenter(load_weights(target), 'cpu'), samples)
    wanted = figures_of({str(own_discs): result})
    assert {name: metrics[name] for name in wanted} == pytest.approx(wanted, abs=1e-6)
    assert 'data_val_iou' in wanted


def test_a_file_whose_masks_differ_in_a_thousandth_of_the_pixels_is_rejected(discs: Path) -> None:
    samples = samples_of(discs)
    size = 80 * 96
    near = compare(Path('w'), found(samples, size - 7), found(samples, size), int8=False)
    assert near['export_pixels_differ'] == pytest.approx(7 / size)
    with pytest.raises(
        WeightsError, match=r'w: rejected, because 0\.10% .* 6 images; the limit is 0\.1%'
    ):
        compare(Path('w'), found(samples, size - 8), found(samples, size), int8=False)


def test_int8_is_checked_by_the_loss_of_iou(discs: Path) -> None:
    samples = samples_of(discs)
    size = 80 * 96
    worst, worse, best = (found(samples, size - fewer) for fewer in (0, 70, 200))
    metrics = compare(Path('w'), worst, worse, int8=True)
    assert metrics['export_pixels_differ'] > 0.001
    assert 0 < metrics['export_iou_change'] < 0.002
    with pytest.raises(WeightsError, match=r'IoU on discs is .* below that of the checkpoint'):
        compare(Path('w'), worst, best, int8=True)
    assert compare(Path('w'), best, worst, int8=True)['export_iou_change'] > 0.002, 'a gain'


def test_the_check_of_int8_needs_labelled_rock(discs: Path) -> None:
    config = DatasetConfig(str(discs), class_map={'0': 'background', '255': 'ignore'})
    ours = found(find_samples(config, 'all', METADATA.classes), 10)
    with pytest.raises(WeightsError, match='no image has labelled rock'):
        compare(Path('w'), ours, ours, int8=True)
    assert compare(Path('w'), ours, ours, int8=False) == {'export_pixels_differ': 0}


@pytest.mark.parametrize('flags', [[], ['--int8']])
def test_a_file_with_different_results_is_not_written(
    flags: list[str],
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(monkeypatch, 'classifier.score.weight', -1)
    target = tmp_path / 'w.safetensors'
    target.write_text('old')
    assert main(['--checkpoint', str(checkpoint), '-o', str(target), *flags]) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f'training.export: {target}: rejected')
    assert target.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [target]


def test_no_check_writes_a_file_with_different_results(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(monkeypatch, 'classifier.score.weight', -1)
    target = tmp_path / 'w.safetensors'
    assert main(['--checkpoint', str(checkpoint), '-o', str(target), '--no-check']) == 0
    assert 'not checked' in capsys.readouterr().out
    assert load_weights(target).metadata == METADATA


def test_a_checkpoint_records_its_labelled_sources(
    checkpoint: Path, discs: Path, tmp_path: Path
) -> None:
    assert trained_on(checkpoint) == [DatasetConfig(str(discs), val_fraction=0.5)]
    own = tmp_path / 'own.ckpt'
    kept = [DatasetConfig('a', 'coco', {'stone': 'rock'}), DatasetConfig('b', 'unlabelled')]
    torch.save({'sources': [asdict(source) for source in kept]}, own)
    assert trained_on(own) == kept[:1]
    torch.save({'sources': [{'folder': 'a'}]}, own)
    with pytest.raises(WeightsError, match=r'own\.ckpt: its recorded sources are invalid'):
        trained_on(own)


def test_a_source_without_val_split_is_skipped_in_the_check(
    checkpoint: Path, own_discs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ''.join(f'{number},train\n' for number in range(5))
    (own_discs / 'manifest.csv').write_text('id,split\n' + rows)
    kept = torch.load(checkpoint, weights_only=True)
    kept['sources'].append(asdict(DatasetConfig(str(own_discs))))
    own, target = tmp_path / 'own.ckpt', tmp_path / 'w.safetensors'
    torch.save(kept, own)
    assert main(['--checkpoint', str(own), '-o', str(target)]) == 0
    held_out = find_samples(DatasetConfig(**kept['sources'][0]), 'val', METADATA.classes)
    assert f'checked on {len(held_out)} images' in capsys.readouterr().out


def test_a_checkpoint_without_recorded_sources_needs_check_on_or_no_check(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = torch.load(checkpoint, weights_only=True)
    del kept['sources']
    for name, legacy in (('w.pth', False), ('legacy.ckpt', True)):
        other = tmp_path / name
        torch.save(kept, other, _use_new_zipfile_serialization=not legacy)
        target = tmp_path / 'w.safetensors'
        assert main(['--checkpoint', str(other), '-o', str(target)]) == 1
        assert 'has no record of images for the check; give --check-on' in capsys.readouterr().err
        assert not target.exists()


def test_torchvision_weights_and_weights_files_can_be_exported(
    checkpoint: Path, own_discs: Path, tmp_path: Path
) -> None:
    plain, once, twice = (tmp_path / name for name in ('p.pth', 'a.safetensors', 'b.safetensors'))
    kept = torch.load(checkpoint, weights_only=True)
    torch.save({'model': kept['state_dict'], 'card': kept['card']}, plain)
    for source, target in ((plain, once), (once, twice)):
        given = ['--checkpoint', str(source), '-o', str(target), '--check-on', str(own_discs)]
        assert main(given) == 0
    assert load_weights(twice).metadata.metrics['export_pixels_differ'] == 0


def test_an_onnx_file_has_the_masks_of_pytorch_at_any_size_and_batch(
    checkpoint: Path, small_image: NDArray[np.uint8], tmp_path: Path
) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    pytest.importorskip('onnxscript', reason='onnxscript is not installed')
    target = tmp_path / 'w.onnx'
    assert main(['--checkpoint', str(checkpoint), '-o', str(target)]) == 0
    weights = load_weights(target)
    assert weights.metadata.metrics['export_pixels_differ'] <= 0.001
    assert weights.metadata.data == METADATA.data
    onnx = Segmenter(weights, 'cpu')
    plain = Segmenter(load_weights(checkpoint), 'cpu')
    assert (onnx.backend, onnx.precision, onnx.device.type) == ('onnx', 'fp32', 'cpu')
    for image in (small_image, small_image[:33, :70], small_image[:1, :1]):
        one, two = onnx.segment(image), plain.segment(image)
        assert (one.mask() == two.mask()).mean() >= 0.999
    batch = torch.randn(3, 3, 40, 56)
    logits = [s._runner.logits(batch) for s in (onnx, plain)]
    assert logits[0].shape == (3, 2, 40, 56)
    assert (logits[0].softmax(1) - logits[1].softmax(1)).abs().max() <= 1e-3
    for arguments, message in (
        ({'output_stride': 8}, 'exported with output stride 16, not 8'),
        ({'precision': 'fp16'}, "'fp16'"),
        ({'backend': 'torch'}, "needs backend 'onnx'"),
    ):
        with pytest.raises(WeightsError, match=message):
            Segmenter(weights, 'cpu', **arguments)  # type: ignore[arg-type]


def test_the_check_uses_the_output_stride_of_the_file(
    checkpoint: Path, discs: Path, tmp_path: Path
) -> None:
    target = tmp_path / 'w.safetensors'
    metadata = export(load_weights(checkpoint), target, samples_of(discs)[:1], output_stride=8)
    assert metadata.output_stride == 8
    assert metadata.metrics['export_pixels_differ'] <= 0.001
    assert load_weights(target).metadata == metadata


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (('--checkpoint', 'none.ckpt'), 'none.ckpt: no such file'),
        (('-o', 'w.pth'), 'w.pth: the name must end in .safetensors or .onnx'),
        (('--check-on', 'nowhere'), 'nowhere: must be a folder'),
        (('--output-stride', '4'), '4'),
        (('--device', 'tpu'), "'tpu'"),
    ],
)
def test_an_error_is_reported_in_one_line_and_keeps_the_previous_file(
    change: tuple[str, str],
    message: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    target = tmp_path / 'w.safetensors'
    target.write_text('old')
    given = {'--checkpoint': str(checkpoint), '-o': str(target)} | dict([change])
    assert main([word for pair in given.items() for word in pair]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith('training.export: ')
    assert message in error
    assert '\n' not in error
    assert target.read_text() == 'old'


def test_int8_onnx_is_rejected(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / 'w.onnx'
    assert main(['--checkpoint', str(checkpoint), '-o', str(target), '--int8']) == 1
    assert '--int8 is for .safetensors' in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize('wrong', [['--max-images', '0'], ['--no-check', '--check-on', 'data']])
def test_invalid_arguments_end_with_status_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(['--checkpoint', 'c.ckpt', '-o', 'w.safetensors', *wrong])
    assert left.value.code == 2


def test_calibration_uses_the_sources_with_train_images(
    own_discs: Path, discs: Path, monkeypatch: Any
) -> None:
    (own_discs / 'manifest.csv').write_text('id,split\n3,val\n')
    sources = [DatasetConfig(str(path)) for path in (own_discs, discs)]
    monkeypatch.setattr('training.export.trained_on', lambda _: sources)
    found = _calibration_samples(Mock(calibrate=[]), Mock(metadata=METADATA))
    assert found == samples_of(discs, 'train')


def test_calibration_enables_int8_without_changing_the_weights(
    checkpoint: Path, discs: Path, tmp_path: Path
) -> None:
    plain, target = tmp_path / 'plain.safetensors', tmp_path / 'w.safetensors'
    assert main(['--checkpoint', str(checkpoint), '-o', str(plain), '--int8', '--no-check']) == 0
    given = ['--checkpoint', str(plain), '-o', str(target), '--int8', '--no-check']
    assert main([*given, '--calibrate', str(discs)]) == 0
    before, after = load_file(plain), load_file(target)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    calibrated = load_weights(target)
    assert Segmenter(calibrated, 'cpu', preset='fast').precision == 'int8'
    with pytest.raises(ValueError, match='calibrated for int8'):
        Segmenter(load_weights(plain), 'cpu', preset='fast')


def test_int8_may_lose_at_most_one_point_of_iou(discs: Path) -> None:
    samples = samples_of(discs)
    size = 80 * 96
    exact, little, much = (found(samples, pixels) for pixels in (size, size - 70, 1))
    iou = [result['discs'].figures['iou'] for result in (exact, little, much)]
    metrics = compare_int8(Path('w'), little, exact)
    assert metrics == {'int8_iou_lost': pytest.approx(iou[0] - iou[1])}
    assert compare_int8(Path('w'), exact, much)['int8_iou_lost'] < -0.01
    with pytest.raises(WeightsError, match=rf'loses {100 * (iou[0] - iou[2]):.2f} points of IoU'):
        compare_int8(Path('w'), much, exact)


def test_a_given_threshold_is_written_to_the_metadata(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / 'w.safetensors'
    words = ['--checkpoint', str(checkpoint), '-o', str(target), '--no-check']
    assert main([*words, '--threshold', '0.37']) == 0
    assert load_weights(target).metadata.threshold == 0.37


def test_an_invalid_threshold_is_reported_in_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ['--checkpoint', str(checkpoint), '-o', str(tmp_path / 'w.safetensors'), '--no-check']
    assert main([*words, '--threshold', '1.5']) == 1
    assert capsys.readouterr().err == (
        'training.export: metadata threshold must be between 0 and 1, not 1.5\n'
    )


def test_a_light_network_as_onnx_has_the_logits_of_pytorch_at_any_size(tmp_path: Path) -> None:
    pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    pytest.importorskip('onnxscript', reason='onnxscript is not installed')
    torch.manual_seed(2)
    metadata = ModelMetadata(architecture='deeplabv3_efficientnet_lite0', output_stride=32)
    file, target = tmp_path / 'light.safetensors', tmp_path / 'light.onnx'
    save_weights(file, build(metadata).state_dict(), metadata)
    assert main(['--checkpoint', str(file), '-o', str(target), '--no-check']) == 0
    onnx, plain = (Segmenter(load_weights(one), 'cpu') for one in (target, file))
    assert (onnx.backend, onnx.metadata.architecture) == ('onnx', metadata.architecture)
    for height, width in ((64, 96), (101, 75)):
        batch = torch.randn(2, 3, height, width)
        logits = [one._runner.logits(batch) for one in (onnx, plain)]
        torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


def test_interpolated_weights_are_between_those_of_two_files(
    light_weights_file: Path, tmp_path: Path
) -> None:
    before = load_weights(light_weights_file)
    after = tmp_path / 'after.safetensors'
    save_weights(after, {n: t.float() + 1 for n, t in before.state.items()}, before.metadata)
    target = tmp_path / 'between.safetensors'
    words = ['--checkpoint', str(after), '-o', str(target), '--no-check']
    assert main([*words, '--interpolate', str(light_weights_file), '0.25']) == 0
    name = 'classifier.score.bias'
    change = load_weights(target).state[name].float() - before.state[name].float()
    torch.testing.assert_close(change, torch.full_like(change, 0.25), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ('interpolate', 'message'),
    [
        (['{file}', '1.5'], 'the SHARE of --interpolate must be 0 to 1, not 1.5'),
        (['{file}', 'half'], 'the SHARE of --interpolate must be 0 to 1, not half'),
        (['resnet50', '0.5'], "its classes ('background', 'rock', 'rim') are not those of"),
        (['{other}', '0.5'], 'is of another network than the checkpoint'),
    ],
)
def test_weights_that_cannot_be_interpolated_are_reported_in_one_line(
    interpolate: list[str],
    message: str,
    weights_file: Path,
    light_weights_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [one.format(file=light_weights_file, other=weights_file) for one in interpolate]
    target = tmp_path / 'never.safetensors'
    given = ['--checkpoint', str(light_weights_file), '-o', str(target), '--no-check']
    assert main([*given, '--interpolate', *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not target.exists()


def test_undefined_metrics_are_not_written_to_the_metadata(
    discs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = found(samples_of(discs), 100)
    monkeypatch.setitem(results['discs'].figures, 'ece', float('nan'))
    metrics = figures_of(results)
    assert 'discs_val_iou' in metrics
    assert 'discs_val_ece' not in metrics


def test_a_source_without_labelled_rock_has_no_iou_in_the_metadata(discs: Path) -> None:
    ground = DatasetConfig(str(discs), class_map={'0': 'background', '255': 'background'})
    metrics = figures_of(found(find_samples(ground, 'all', METADATA.classes), 100))
    assert metrics['discs_val_false_rock'] > 0
    assert {name for name in metrics if 'iou' in name or 'precision' in name} == set()
