# SPDX-License-Identifier: Apache-2.0
"""What a run leaves beside its checkpoints: configuration, code, data, curves and pictures."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import lightning.pytorch as pl
import numpy as np
import yaml
from torch import Tensor
from typing_extensions import override

from rock_seg_ros.perception.overlay import draw_overlay
from rock_seg_ros.perception.weights_file import write_beside
from training.config import TrainingConfig
from training.sources import DataError, Sample, fingerprint

PACKAGES = ('torch', 'torchvision', 'lightning', 'numpy', 'opencv-python-headless')
SHEET_PICTURES = 2
TINT_STRENGTH = 0.4


def describe_run(
    config: TrainingConfig, samples: Mapping[str, Sequence[Sample]], resume: bool
) -> None:
    """Writes `RUN/config.yaml` and `RUN/run.json`: code version, packages, data and their hashes.

    Args:
        config: The run.
        samples: Name of a source → all its samples.
        resume: Whether the run goes on; its data must be those that it began with.

    Raises:
        DataError: They are not.
    """
    run = Path(config.run)
    sources = {name: _describe(found) for name, found in samples.items()}
    description = {
        'code': code_version(),
        'packages': {name: version(name) for name in PACKAGES},
        'sources': sources,
    }
    file = run / 'run.json'
    if resume and file.exists():
        before = json.loads(file.read_text())['sources']
        for name in sorted(before.keys() | sources.keys()):
            if before.get(name) != sources.get(name):
                raise DataError(f'{run}: source {name} is not what the run began with')
        return
    run.mkdir(parents=True, exist_ok=True)
    (run / 'config.yaml').write_text(yaml.safe_dump(_plain(asdict(config)), sort_keys=False))
    file.write_text(json.dumps(description, indent=2) + '\n')


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


class Curves(pl.Callback):
    """Writes `RUN/curves.csv` (step, name, value): each step's loss, each validation's figures.

    A run that goes on after a kill has each step once.
    """

    def __init__(self, run: Path) -> None:
        """Takes the run folder."""
        self._file = run / 'curves.csv'
        self._rows: list[tuple[int, str, float]] = []
        self._parts: list[float] = []

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the rows up to where the run goes on."""
        if trainer.global_step and self._file.exists():
            rows = (row for row in read_curves(self._file) if row[0] <= trainer.global_step)
            self._rows = list(rows)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any, **__: Any
    ) -> None:
        """Keeps the step's loss; the mean of its parts, where it has several."""
        self._parts.append(float(trainer.callback_metrics['loss']))
        if len(self._parts) == trainer.accumulate_grad_batches:
            self._rows.append((trainer.global_step, 'loss', float(np.mean(self._parts))))
            self._parts = []

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the validation's figures and writes the file anew."""
        figures = {n: float(v) for n, v in trainer.callback_metrics.items() if n != 'loss'}
        self._rows.extend((trainer.global_step, name, value) for name, value in figures.items())
        if trainer.is_global_zero:
            write_beside(self._file, lambda file: _write_rows(file, self._rows))


def _write_rows(file: Path, rows: Iterable[tuple[int, str, float]]) -> None:
    with file.open('w', newline='') as opened:
        csv.writer(opened).writerows([('step', 'name', 'value'), *rows])


def read_curves(file: Path) -> list[tuple[int, str, float]]:
    """Reads (step, name, value) from a run's `curves.csv`."""
    with file.open(newline='') as opened:
        return [(int(r['step']), r['name'], float(r['value'])) for r in csv.DictReader(opened)]


class PicturesOfProgress(pl.Callback):
    """Draws what the network finds: `RUN/pictures/step_N.jpg` at each validation."""

    def __init__(self, run: Path) -> None:
        """Takes the run folder."""
        self._folder = run / 'pictures'
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
        """Draws the first pictures of each source; the outputs are H×W masks, 1 where rock is."""
        if batch_idx < SHEET_PICTURES and trainer.is_global_zero:
            picture: Tensor = batch[0][0]
            mask = outputs.cpu().numpy().astype(np.uint8) * 255
            pixels = picture.permute(1, 2, 0).cpu().numpy()
            self._drawn.append(draw_overlay(pixels, mask, [], TINT_STRENGTH))

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Writes the pictures side by side."""
        if not self._drawn:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        height = min(len(picture) for picture in self._drawn)
        row = [cv2.resize(p, (p.shape[1] * height // len(p), height)) for p in self._drawn]
        sheet = cv2.cvtColor(np.hstack(row), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(self._folder / f'step_{trainer.global_step:06}.jpg'), sheet)
        self._drawn = []
