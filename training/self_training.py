# SPDX-License-Identifier: Apache-2.0
"""Self-training: a network labels the images that its next stage learns from.

As in Noisy Student (Xie et al. 2020, arXiv:1911.04252): the labels come from the averaged weights
and clean images, the training sees them augmented.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.image_io.decoding import ImageError, read_grey
from rock_seg_ros.perception.inference.card import Card
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import load_weights
from training.checkpoints import last_checkpoint
from training.config import TrainingConfig
from training.datasets import IGNORE, DataError, Labelled, Sample
from training.writing import write_image


@dataclass(frozen=True)
class PseudoLabelledSample:
    """A sample whose ignored pixels a network has labelled, in a file of class ids."""

    sample: Sample
    labels: Path

    def read(self) -> Labelled:
        """Reads the sample and fills in its ignored pixels; rocks are not told apart in them.

        Raises:
            DataError: A file is missing or does not decode.
        """
        read = self.sample.read()
        try:
            labels = read_grey(self.labels)
        except (ImageError, OSError) as error:
            raise DataError(str(error)) from None
        classes = np.where(read.classes == IGNORE, labels, read.classes)
        return Labelled(read.image, classes, read.instances)


def pseudo_label_sources(
    samples: dict[str, list[Sample]],
    config: TrainingConfig,
    stage: int,
    trainer: pl.Trainer,
) -> dict[str, Sequence[PseudoLabelledSample]]:
    """Labels the sources that a stage wants labelled, or finds the labels that are there already.

    They lie in `RUN/self_training/stage_N/SOURCE/`; a run that goes on after a kill finds them
    whole or makes them again.

    Args:
        samples: Name of a source → its train samples.
        config: The run; its last checkpoint, or what it starts from, does the labelling.
        stage: Number of the stage, from 0.
        trainer: Of its processes the first does the work, and the others wait.

    Raises:
        WeightsError: The weights cannot be used.
        OSError: The labels cannot be written.
    """
    wanted = config.stages[stage].self_train
    if not wanted:
        return {}
    folder = _folder(Path(config.run)) / f'stage_{stage}'
    if trainer.strategy.broadcast(not folder.exists()):  # what the first process finds
        own = {name: samples[name] for name in wanted}
        images = sum(map(len, own.values()))
        for _ in _label(own, config, folder) if trainer.is_global_zero else range(images):
            trainer.strategy.barrier()  # the wait for all of them would time out
    trainer.strategy.barrier()
    return {
        name: [PseudoLabelledSample(s, folder / name / f'{s.name}.png') for s in samples[name]]
        for name in wanted
    }


def remove_pseudo_labels(run: Path) -> None:
    """Removes the labels that an earlier run has left in a run's folder."""
    if _folder(run).exists():
        shutil.rmtree(_folder(run))


def _folder(run: Path) -> Path:
    return run / 'self_training'


def _label(
    samples: dict[str, list[Sample]], config: TrainingConfig, folder: Path
) -> Iterator[None]:
    """Labels the samples, and stops after each."""
    last = last_checkpoint(Path(config.run))
    weights = load_weights(last if last.exists() else config.start_from)
    segmenter = Segmenter(weights)
    ids = ids_by_name(weights.card, config.all_classes)
    beside = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(beside, ignore_errors=True)
    for name, found in samples.items():
        (beside / name).mkdir(parents=True)
        for sample in tqdm(found, desc=f'labelling {name}', unit='image'):
            labels = ids[pseudo_labels(segmenter, sample.read().image, config.sure)]
            write_image(beside / name / f'{sample.name}.png', labels)
            yield
    beside.rename(folder)


def ids_by_name(card: Card, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Returns the class ids of a training for those of a card.

    Args:
        card: Of the weights that label.
        classes: Class names of the training; the place is the class id.

    Returns:
        256 uint8: at a class id of the card, the id of the class of that name; 255 where the
        training has no such class.
    """
    ids = np.full(256, IGNORE, np.uint8)
    for class_id, name in enumerate(card.classes):
        if name in classes:
            ids[class_id] = classes.index(name)
    return ids


def pseudo_labels(segmenter: Segmenter, image: NDArray[np.uint8], sure: float) -> NDArray[np.uint8]:
    """Labels an image where the network is sure of it and of its mirror image.

    Args:
        segmenter: The network.
        image: H×W×3 uint8 RGB.
        sure: Least confidence, 0 to 1.

    Returns:
        H×W uint8 class ids of the network's card; 255 where it is not sure.
    """
    plain = segmenter.segment(image)
    mirrored = segmenter.segment(np.ascontiguousarray(image[:, ::-1]))
    alike = plain.class_ids == mirrored.class_ids[:, ::-1]
    confidence = np.minimum(plain.confidence, mirrored.confidence[:, ::-1])
    return np.where(alike & (confidence >= 255 * sure), plain.class_ids, np.uint8(IGNORE))
