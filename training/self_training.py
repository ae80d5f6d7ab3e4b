# SPDX-License-Identifier: Apache-2.0
"""Self-training: a network makes pseudo-labels for the images of its next stage.

As in Noisy Student (Xie et al. 2020, arXiv:1911.04252), the pseudo-labels come from the averaged
weights and images without augmentation, and the training uses augmented crops.
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

from rock_seg_ros.perception.image_io.decoding import ImageError, read_label_image
from rock_seg_ros.perception.inference.metadata import ModelMetadata
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import load_weights
from training.checkpoints import last_checkpoint
from training.config import TrainingConfig
from training.datasets import IGNORE, DataError, Labelled, Sample
from training.writing import write_image


@dataclass(frozen=True)
class PseudoLabelledSample:
    """A sample whose ignored pixels have pseudo-labels in a file of class ids."""

    sample: Sample
    labels: Path

    def read(self) -> Labelled:
        """Reads the sample and fills its ignored pixels; pseudo-labels have no instances.

        Raises:
            DataError: A file is missing or does not decode.
        """
        read = self.sample.read()
        try:
            labels = read_label_image(self.labels)
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
    """Makes the pseudo-labels of a stage, unless they exist already.

    They are stored in `RUN/self_training/stage_N/SOURCE/`. The folder appears when it is complete,
    so a resumed run uses complete pseudo-labels or makes them again.

    Args:
        samples: Name of a source → its train samples.
        config: Configuration of the run. The pseudo-labels come from its last checkpoint, or else
            from the weights that it starts from.
        stage: Index of the stage.
        trainer: The trainer, whose first process makes the pseudo-labels while the others wait.

    Returns:
        Name of a source in `self_train` → its samples with pseudo-labels.

    Raises:
        WeightsError: The weights cannot be used.
        OSError: The pseudo-labels cannot be written.
    """
    names = config.stages[stage].self_train
    if not names:
        return {}
    folder = _folder(Path(config.run)) / f'stage_{stage}'
    if trainer.strategy.broadcast(not folder.exists()):  # all processes use the first one's answer
        selected = {name: samples[name] for name in names}
        images = sum(map(len, selected.values()))
        for _ in _label(selected, config, folder) if trainer.is_global_zero else range(images):
            trainer.strategy.barrier()  # a single wait for all images would time out
    trainer.strategy.barrier()
    return {
        name: [PseudoLabelledSample(s, folder / name / f'{s.name}.png') for s in samples[name]]
        for name in names
    }


def remove_pseudo_labels(run: Path) -> None:
    """Removes the pseudo-labels of an earlier run from the folder of a run."""
    if _folder(run).exists():
        shutil.rmtree(_folder(run))


def _folder(run: Path) -> Path:
    return run / 'self_training'


def _label(
    samples: dict[str, list[Sample]], config: TrainingConfig, folder: Path
) -> Iterator[None]:
    """Makes the pseudo-labels; yields after each image."""
    last = last_checkpoint(Path(config.run))
    weights = load_weights(last if last.exists() else config.start_from)
    segmenter = Segmenter(weights)
    ids = ids_by_name(weights.metadata, config.all_classes)
    temporary = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(temporary, ignore_errors=True)
    for name, members in samples.items():
        (temporary / name).mkdir(parents=True)
        for sample in tqdm(members, desc=f'pseudo-labelling {name}', unit='image'):
            image = sample.read().image
            labels = ids[pseudo_labels(segmenter, image, config.pseudo_label_threshold)]
            write_image(temporary / name / f'{sample.name}.png', labels)
            yield
    temporary.rename(folder)


def ids_by_name(metadata: ModelMetadata, classes: Sequence[str]) -> NDArray[np.uint8]:
    """Returns a lookup table from the class ids of a network to those of the training.

    Args:
        metadata: Metadata of the network that makes the pseudo-labels.
        classes: Class names of the training; the index is the class id.

    Returns:
        256 uint8: the class id of the training for each class id of the network; 255 (ignored) for
        classes that the training does not have.
    """
    ids = np.full(256, IGNORE, np.uint8)
    for class_id, name in enumerate(metadata.classes):
        if name in classes:
            ids[class_id] = classes.index(name)
    return ids


def pseudo_labels(
    segmenter: Segmenter, image: NDArray[np.uint8], threshold: float
) -> NDArray[np.uint8]:
    """Returns the confident predictions for an image.

    A prediction is used where the image and its mirror image give the same class, both with at
    least the threshold's confidence.

    Args:
        segmenter: The network.
        image: H×W×3 uint8 RGB.
        threshold: Minimum confidence, 0 to 1.

    Returns:
        H×W uint8 class ids of the network; 255 (ignored) where it is not confident.
    """
    plain = segmenter.segment(image)
    mirrored = segmenter.segment(np.ascontiguousarray(image[:, ::-1]))
    same = plain.class_ids == mirrored.class_ids[:, ::-1]
    confidence = np.minimum(plain.confidence, mirrored.confidence[:, ::-1])
    return np.where(same & (confidence >= 255 * threshold), plain.class_ids, np.uint8(IGNORE))
