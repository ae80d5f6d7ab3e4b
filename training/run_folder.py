# SPDX-License-Identifier: Apache-2.0
"""Records of a run: configuration, code version, data, curves and images."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import torch
import yaml
from lightning.pytorch.loggers import Logger
from torch import Tensor
from typing_extensions import override

from rock_seg_ros.perception.overlay import draw_overlay
from training.config import TrainingConfig
from training.curves import FILE_NAME, Row, read_rows, write_rows
from training.datasets import DataError, Sample, fingerprint
from training.datasets.json_file import read_json
from training.writing import write_atomically, write_image

PACKAGES = ('torch', 'torchvision', 'lightning', 'numpy', 'opencv-python-headless')
SHEET_IMAGES = 2
SHEET_WIDTH = 16384  # px; JPEG permits 65500
TINT_STRENGTH = 0.4


def describe_run(
    config: TrainingConfig, samples: Mapping[str, Sequence[Sample]], resume: bool
) -> None:
    """Writes `RUN/config.yaml` and `RUN/run.json`: code version, packages, data and their hashes.

    Args:
        config: Configuration of the run.
        samples: Name of a source → all its samples.
        resume: Whether the run is resumed. Its data and settings, except `machine` and paths, must
            then be unchanged, and the code version is added to `resumed_with` in run.json.

    Raises:
        DataError: Data or settings of a resumed run have changed.
        OSError: A file cannot be written.
    """
    run = Path(config.run)
    settings = _with_lists(asdict(config))
    del settings['sure']
    if resume:
        _check_settings_unchanged(run / 'config.yaml', settings)
    sources = {name: _describe(found) for name, found in samples.items()}
    description: dict[str, Any] = {
        'code': code_version(),
        'packages': {name: version(name) for name in PACKAGES},
        'sources': sources,
    }
    file = run / 'run.json'
    if resume and file.exists():
        description = read_json(file)
        _check_data_unchanged(run, description['sources'], sources)
        description.setdefault('resumed_with', []).append(code_version())
    write_atomically(run / 'config.yaml', yaml.safe_dump(settings, sort_keys=False).encode())
    write_atomically(file, (json.dumps(description, indent=2) + '\n').encode())


def _check_data_unchanged(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise DataError(f'{run}: the data of source {name} have changed since the run began')


def _check_settings_unchanged(file: Path, settings: dict[str, Any]) -> None:
    """Compares the recorded settings of a run, if there are any, with the current ones."""
    if not file.exists():
        return
    try:
        before = _fixed_settings(yaml.safe_load(file.read_text('utf-8')))
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError):
        raise DataError(f'{file}: is not the configuration of a run') from None
    now = _fixed_settings(settings)
    for name in [*now, *(name for name in before if name not in now)]:
        if before.get(name) != now.get(name):
            raise DataError(
                f'{file}: {name} is {before.get(name)!r}; it cannot be changed to'
                f' {now.get(name)!r} when the run is resumed'
            )


def _fixed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns by name the settings that a resumed run must keep: all but machine and paths."""
    no_paths = {'path': '', 'images': ''}
    sources = {name: {**source, **no_paths} for name, source in settings['sources'].items()}
    fixed = {**settings, 'sources': sources, 'machine': {}, 'run': ''}
    if 'sure' in fixed:  # its name until 0.1
        fixed['pseudo_label_threshold'] = fixed.pop('sure')
    return dict(_flatten(fixed))


def _flatten(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Yields nested settings with dotted names, such as 'stages.1.crop'."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = dict(enumerate(value, start=1))
    if not isinstance(value, dict):
        yield name, value
        return
    for inner, part in value.items():
        yield from _flatten(part, f'{name}.{inner}' if name else str(inner))


def code_version() -> str:
    """Returns the commit of the code, with '-dirty' if it was modified; '' without git."""
    if not shutil.which('git'):
        return ''
    done = subprocess.run(
        ['git', 'describe', '--always', '--dirty', '--abbrev=12'],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _describe(samples: Sequence[Sample]) -> dict[str, Any]:
    count = {split: sum(s.split == split for s in samples) for split in ('train', 'val')}
    return {**count, 'sha256': fingerprint(samples)}


def _with_lists(value: Any) -> Any:
    """Converts tuples to lists, as YAML has no tuples."""
    if isinstance(value, dict):
        return {name: _with_lists(v) for name, v in value.items()}
    return [_with_lists(v) for v in value] if isinstance(value, list | tuple) else value


class CurveWriter(pl.Callback):
    """Writes `RUN/curves.csv` (step, name, value): the loss per step, the metrics per validation.

    A resumed run has each step once. The losses are copied from the device at the end of an epoch,
    because copying them in every step would synchronize with the device.
    """

    def __init__(self, run: Path, logger: Logger | None = None) -> None:
        """Stores the run folder, and a logger that receives loss and learning rate per step."""
        self._run = run
        self._logger = logger
        self._rows: list[Row] = []
        self._steps: list[tuple[int, Tensor]] = []
        self._parts: list[Tensor] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reads the rows up to the step at which the run is resumed."""
        if trainer.global_step and (self._run / FILE_NAME).exists():
            self._rows = [row for row in read_rows(self._run) if row[0] <= trainer.global_step]

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Stores the loss of the step, the mean over its micro-batches."""
        figures = trainer.callback_metrics
        loss = figures['loss'].detach()
        self._parts.append(torch.stack([loss, figures.get('lr', loss).detach()]))
        if len(self._parts) == trainer.accumulate_grad_batches:
            self._steps.append((trainer.global_step, torch.stack(self._parts)))
            self._parts = []

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the validation metrics and writes the file."""
        self._fetch()
        figures = {n: float(v) for n, v in trainer.callback_metrics.items() if n != 'loss'}
        self._rows.extend((trainer.global_step, name, value) for name, value in figures.items())
        if trainer.is_global_zero:
            write_rows(self._run, self._rows)

    def _fetch(self) -> None:
        """Copies the losses of all steps from the device at once."""
        parts = torch.stack([parts for _, parts in self._steps]).tolist() if self._steps else []
        for (step, _), micro_batches in zip(self._steps, parts, strict=True):
            loss = float(np.mean([values[0] for values in micro_batches]))
            self._rows.append((step, 'loss', loss))
            if self._logger is not None:
                self._logger.log_metrics({'loss': loss, 'lr': micro_batches[-1][1]}, step)
        self._steps = []


class ValidationImageWriter(pl.Callback):
    """Draws the predictions of each validation into `RUN/images/step_N.jpg`."""

    def __init__(self, run: Path) -> None:
        """Stores the run folder."""
        self._folder = run / 'images'
        self._drawn: list[np.ndarray] = []

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first images of each source; the outputs are H×W masks, 1 is rock."""
        if batch_idx < SHEET_IMAGES and trainer.is_global_zero:
            image: Tensor = batch[0][0]
            mask = outputs.cpu().numpy().astype(np.uint8) * 255
            pixels = image.permute(1, 2, 0).cpu().numpy()
            self._drawn.append(draw_overlay(pixels, mask, [], TINT_STRENGTH))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the images in one row."""
        if not self._drawn:
            return
        height = min(len(image) for image in self._drawn)
        width = sum(image.shape[1] * height / len(image) for image in self._drawn)
        height = max(1, int(height * min(1, SHEET_WIDTH / width)))
        row = [cv2.resize(p, (max(1, p.shape[1] * height // len(p)), height)) for p in self._drawn]
        write_image(self._folder / f'step_{trainer.global_step:06}.jpg', np.hstack(row))
        self._drawn = []
