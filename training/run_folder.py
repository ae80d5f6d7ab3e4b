# SPDX-License-Identifier: Apache-2.0
"""What a run leaves beside its checkpoints: configuration, code, data, curves and images."""

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
TINT_STRENGTH = 0.4


def describe_run(
    config: TrainingConfig, samples: Mapping[str, Sequence[Sample]], resume: bool
) -> None:
    """Writes `RUN/config.yaml` and `RUN/run.json`: code version, packages, data and their hashes.

    Args:
        config: The run.
        samples: Name of a source → all its samples.
        resume: Whether the run goes on; then its data and its settings must be those that it
            began with, but for `machine` and paths, and the code version is added to
            `resumed_with` in run.json.

    Raises:
        DataError: They are not.
        OSError: A file cannot be written.
    """
    run = Path(config.run)
    settings = _plain(asdict(config))
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
            raise DataError(f'{run}: source {name} is not what the run began with')


def _check_settings_unchanged(file: Path, settings: dict[str, Any]) -> None:
    """Compares what a run began with, if it is still told, with what it is to go on with."""
    if not file.exists():
        return
    try:
        before = _lasting(yaml.safe_load(file.read_text('utf-8')))
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError):
        raise DataError(f'{file}: is no configuration that a run began with') from None
    now = _lasting(settings)
    for name in [*now, *(name for name in before if name not in now)]:
        if before.get(name) != now.get(name):
            raise DataError(
                f'{file}: {name} is {before.get(name)!r}; the run cannot go on with'
                f' {now.get(name)!r}'
            )


def _lasting(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns by name what may not change as a run goes on: all but machine and places."""
    nowhere = {'path': '', 'images': ''}
    sources = {name: {**source, **nowhere} for name, source in settings['sources'].items()}
    return dict(_walk({**settings, 'sources': sources, 'machine': {}, 'run': ''}))


def _walk(value: Any, name: str = '') -> Iterator[tuple[str, Any]]:
    """Walks through settings: 'stages.1.crop' and its value, and so on."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        value = dict(enumerate(value, start=1))
    if not isinstance(value, dict):
        yield name, value
        return
    for inner, part in value.items():
        yield from _walk(part, f'{name}.{inner}' if name else str(inner))


def code_version() -> str:
    """Returns the commit that the code is at, with '-dirty' if it was changed; '' without git."""
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


def _plain(value: Any) -> Any:
    """Turns tuples into lists, as YAML has no tuples."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


class CurveWriter(pl.Callback):
    """Writes `RUN/curves.csv` (step, name, value): each step's loss, each validation's figures.

    A run that goes on after a kill has each step once. The losses are fetched from the device at
    the end of an epoch, as a step that tells its own would wait for it.
    """

    def __init__(self, run: Path, logger: Logger | None = None) -> None:
        """Takes the run folder, and a logger that is given each step's loss and learning rate."""
        self._run = run
        self._logger = logger
        self._rows: list[Row] = []
        self._steps: list[tuple[int, Tensor]] = []
        self._parts: list[Tensor] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the rows up to where the run goes on."""
        if trainer.global_step and (self._run / FILE_NAME).exists():
            self._rows = [row for row in read_rows(self._run) if row[0] <= trainer.global_step]

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Keeps the step's loss; the mean of its parts, where it has several."""
        figures = trainer.callback_metrics
        loss = figures['loss'].detach()
        self._parts.append(torch.stack([loss, figures.get('lr', loss).detach()]))
        if len(self._parts) == trainer.accumulate_grad_batches:
            self._steps.append((trainer.global_step, torch.stack(self._parts)))
            self._parts = []

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the validation's figures and writes the file anew."""
        self._fetch()
        figures = {n: float(v) for n, v in trainer.callback_metrics.items() if n != 'loss'}
        self._rows.extend((trainer.global_step, name, value) for name, value in figures.items())
        if trainer.is_global_zero:
            write_rows(self._run, self._rows)

    def _fetch(self) -> None:
        """Fetches the losses of the steps, all at once."""
        parts = torch.stack([parts for _, parts in self._steps]).tolist() if self._steps else []
        for (step, _), own in zip(self._steps, parts, strict=True):
            loss = float(np.mean([part[0] for part in own]))
            self._rows.append((step, 'loss', loss))
            if self._logger is not None:
                self._logger.log_metrics({'loss': loss, 'lr': own[-1][1]}, step)
        self._steps = []


class ValidationImageWriter(pl.Callback):
    """Draws what the network finds: `RUN/images/step_N.jpg` at each validation."""

    def __init__(self, run: Path) -> None:
        """Takes the run folder."""
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
        """Draws the first images of each source; the outputs are H×W masks, 1 where rock is."""
        if batch_idx < SHEET_IMAGES and trainer.is_global_zero:
            image: Tensor = batch[0][0]
            mask = outputs.cpu().numpy().astype(np.uint8) * 255
            pixels = image.permute(1, 2, 0).cpu().numpy()
            self._drawn.append(draw_overlay(pixels, mask, [], TINT_STRENGTH))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the images side by side."""
        if not self._drawn:
            return
        height = min(len(image) for image in self._drawn)
        row = [cv2.resize(p, (p.shape[1] * height // len(p), height)) for p in self._drawn]
        write_image(self._folder / f'step_{trainer.global_step:06}.jpg', np.hstack(row))
        self._drawn = []
