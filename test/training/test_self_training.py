# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import lightning.pytorch as pl
import numpy as np
import pytest

from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.weights_file import WeightsError
from training.config import Stage, TrainingConfig
from training.datasets import IGNORE, DataError, DatasetConfig, Sample, find_samples
from training.self_training import (
    PseudoLabelledSample,
    pseudo_label_sources,
    pseudo_labels,
    remove_pseudo_labels,
)

AREA = (0.5, 1.0)


@dataclass
class FakeSegmenter:
    """Classifies bright green pixels as rock; the red channel is the confidence."""

    asymmetric: bool = False
    asked: int = 0

    def segment(self, image: np.ndarray) -> SimpleNamespace:
        self.asked += 1
        class_ids = (image[..., 1] > 100).astype(np.uint8)
        if self.asymmetric:
            class_ids[:, 0] = 1
        return SimpleNamespace(class_ids=class_ids, confidence=image[..., 0])


def test_pseudo_labels_are_only_made_where_the_network_is_confident() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[0:2, :, 1] = 200
    image[..., 0] = 240
    image[1, 2, 0] = image[3, 4, 0] = 220
    labels = pseudo_labels(FakeSegmenter(), image, 0.9)  # type: ignore[arg-type]
    assert labels.dtype == np.uint8
    assert labels[1, 2] == labels[3, 4] == IGNORE
    assert (labels == IGNORE).sum() == 2
    assert (labels[0] == 1).all()
    assert (labels[2] == 0).all()


def test_pseudo_labels_are_only_made_where_the_mirror_image_has_the_same_class() -> None:
    image = np.full((4, 6, 3), (255, 0, 0), np.uint8)
    labels = pseudo_labels(FakeSegmenter(asymmetric=True), image, 0.9)  # type: ignore[arg-type]
    assert (labels[:, [0, -1]] == IGNORE).all()
    assert (labels[:, 1:-1] == 0).all()


def samples_of(data: Path) -> list[Sample]:
    greys = {'0': 'ignore', '255': 'rock'}
    return find_samples(DatasetConfig(str(data), class_map=greys), 'all', ['background', 'rock'])


def test_only_ignored_pixels_get_pseudo_labels(own_discs: Path, tmp_path: Path) -> None:
    sample = samples_of(own_discs)[0]
    before = sample.read()
    labels = np.zeros_like(before.classes)
    labels[:40] = IGNORE
    cv2.imwrite(str(tmp_path / 'labels.png'), labels)
    after = PseudoLabelledSample(sample, tmp_path / 'labels.png').read()
    rock = before.classes == 1
    assert rock.any()
    assert (after.classes[rock] == 1).all()
    assert (after.classes[40:][~rock[40:]] == 0).all()
    assert (after.classes[:40][~rock[:40]] == IGNORE).all()
    assert (after.image == before.image).all()


@pytest.fixture
def config(own_discs: Path, tmp_path: Path) -> TrainingConfig:
    return TrainingConfig(
        {'mine': DatasetConfig(str(own_discs))},
        str(tmp_path / 'run'),
        [Stage(100, 32, AREA), Stage(100, 32, AREA, self_train=['mine'])],
        start_from='start.safetensors',
    )


@pytest.fixture
def labeller(monkeypatch: pytest.MonkeyPatch) -> FakeSegmenter:
    bright = FakeSegmenter()
    weights = SimpleNamespace(metadata=ModelMetadata())
    monkeypatch.setattr('training.self_training.load_weights', lambda path: weights)
    monkeypatch.setattr('training.self_training.Segmenter', lambda _: bright)
    return bright


def label(config: TrainingConfig, data: Path, stage: int = 1) -> dict:
    trainer = pl.Trainer(accelerator='cpu', devices=1, logger=False, enable_checkpointing=False)
    return pseudo_label_sources({'mine': samples_of(data)}, config, stage, trainer)


def test_a_stage_without_self_training_makes_no_pseudo_labels(
    config: TrainingConfig, own_discs: Path, labeller: FakeSegmenter
) -> None:
    assert label(config, own_discs, stage=0) == {}
    assert not Path(config.run).exists()


def test_pseudo_labels_are_made_once(
    config: TrainingConfig, own_discs: Path, labeller: FakeSegmenter
) -> None:
    config.pseudo_label_threshold = 0.0
    first = label(config, own_discs)
    assert labeller.asked == 2 * 5
    second = label(config, own_discs)
    assert labeller.asked == 2 * 5
    assert [s.labels for s in first['mine']] == [s.labels for s in second['mine']]
    truth = replace(samples_of(own_discs)[2], class_ids={0: 0, 255: 1}).read().classes  # type: ignore[call-arg]
    assert (second['mine'][2].read().classes == truth).mean() > 0.99


class Rank:
    """One of several processes, which records when it makes pseudo-labels and when it waits."""

    def __init__(self, rank: int, labelled: bool) -> None:
        self.is_global_zero = rank == 0
        self.strategy = self
        self.done: list[str] = []
        self._labelled = labelled

    def broadcast(self, own: bool) -> bool:
        if self.is_global_zero:
            assert own is not self._labelled
        return not self._labelled

    def barrier(self) -> None:
        self.done.append('wait')


def test_other_processes_wait_for_one_image_at_a_time(
    config: TrainingConfig,
    own_discs: Path,
    labeller: FakeSegmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others, first = Rank(1, labelled=False), Rank(0, labelled=False)
    plain = pseudo_labels

    def noted(*given: object) -> np.ndarray:
        first.done.append('label')
        return plain(*given)

    monkeypatch.setattr('training.self_training.pseudo_labels', noted)
    data = {'mine': samples_of(own_discs)}
    pseudo_label_sources(data, config, 1, others)  # type: ignore[arg-type]
    assert not Path(config.run).exists()
    pseudo_label_sources(data, config, 1, first)  # type: ignore[arg-type]
    assert first.done == ['label', 'wait'] * 5 + ['wait']
    assert others.done == ['wait'] * 6
    for rank in (Rank(0, labelled=True), Rank(1, labelled=True)):
        pseudo_label_sources(data, config, 1, rank)  # type: ignore[arg-type]
        assert rank.done == ['wait']


def test_class_ids_of_pseudo_labels_are_matched_by_class_name(
    config: TrainingConfig,
    own_discs: Path,
    labeller: FakeSegmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config.pseudo_label_threshold = 0.0
    for theirs, ids in (
        (('rock', 'background', 'sky'), (1, 0)),
        (('sky', 'rock', 'background'), (IGNORE, 1)),
    ):
        weights = SimpleNamespace(metadata=ModelMetadata(classes=theirs))
        monkeypatch.setattr('training.self_training.load_weights', lambda _, w=weights: w)
        found = label(config, own_discs)['mine'][2].labels
        written = cv2.imread(str(found), cv2.IMREAD_GRAYSCALE)
        bright = cv2.imread(str(own_discs / 'images/2.png'))[..., 1] > 100
        assert (written == np.where(bright, ids[1], ids[0])).all()
        remove_pseudo_labels(Path(config.run))


def test_missing_and_invalid_pseudo_labels_are_reported(
    config: TrainingConfig, own_discs: Path, labeller: FakeSegmenter
) -> None:
    sample = label(config, own_discs)['mine'][0]
    sample.labels.write_bytes(b'')
    with pytest.raises(DataError, match=r'stage_1/mine/0\.png: does not decode'):
        sample.read()
    sample.labels.unlink()
    with pytest.raises(DataError, match=r'stage_1/mine/0\.png'):
        sample.read()


def test_incomplete_pseudo_labels_are_made_again(
    config: TrainingConfig,
    own_discs: Path,
    labeller: FakeSegmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killed(*_: object) -> None:
        if labeller.asked >= 6:
            raise KeyboardInterrupt
        return plain(*_)

    plain = pseudo_labels
    with monkeypatch.context() as patch:
        patch.setattr('training.self_training.pseudo_labels', killed)
        with pytest.raises(KeyboardInterrupt):
            label(config, own_discs)
    folder = Path(config.run) / 'self_training'
    assert not (folder / 'stage_1').exists()
    label(config, own_discs)
    assert len(list((folder / 'stage_1/mine').iterdir())) == 5
    assert [f.name for f in folder.iterdir()] == ['stage_1']


def test_the_last_checkpoint_makes_the_pseudo_labels_if_it_exists(
    config: TrainingConfig,
    own_discs: Path,
    labeller: FakeSegmenter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked_for: list[str] = []

    def load(path: object) -> SimpleNamespace:
        asked_for.append(str(path))
        return SimpleNamespace(metadata=ModelMetadata())

    monkeypatch.setattr('training.self_training.load_weights', load)
    label(config, own_discs)
    last = Path(config.run) / 'checkpoints/last.ckpt'
    last.parent.mkdir()
    last.touch()
    (Path(config.run) / 'self_training/stage_1').rename(Path(config.run) / 'moved')
    label(config, own_discs)
    assert asked_for == ['start.safetensors', str(last)]


def test_weights_that_cannot_be_read_are_reported(config: TrainingConfig, own_discs: Path) -> None:
    with pytest.raises(WeightsError, match=r'start\.safetensors: no such file'):
        label(config, own_discs)
