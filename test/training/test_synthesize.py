# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import errno
import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

import training.synthesize
from training.synthesize import main
from training.synthetic.bag import FRAME_ID, TYPES
from training.synthetic.scene_kinds import SCENE_KINDS

SMALL = ['--size', '64', '48', '--look', 'mars']


def test_images_and_ground_truth_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    for workers in ('1', '2'):
        out = ['-o', str(tmp_path / workers), '--workers', workers]
        assert main([*out, '--count', '3', '--per-scene', '2', '--seed', '5', *SMALL]) == 0
    one, two = (
        {p.relative_to(tmp_path / w): p.read_bytes() for p in (tmp_path / w).rglob('*.*')}
        for w in ('1', '2')
    )
    assert one == two
    with (tmp_path / '1' / 'manifest.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [row['group'] for row in rows] == ['0', '0', '1']
    assert [row['split'] for row in rows] == ['train', 'train', 'val']
    lines = (tmp_path / '1' / 'scenes.jsonl').read_text().splitlines()
    described = json.loads(lines[0])
    assert described['name'] == rows[0]['id']
    name = f'{rows[0]["id"]}.png'
    instances = cv2.imread(str(tmp_path / '1' / 'instances' / name), cv2.IMREAD_UNCHANGED)
    depth = cv2.imread(str(tmp_path / '1' / 'depth' / name), cv2.IMREAD_UNCHANGED)
    assert instances.dtype == depth.dtype == np.uint16
    assert {rock['id'] for rock in described['rocks']} == set(np.unique(instances).tolist()) - {0}


def test_the_topics_in_the_bag_of_a_drive_have_the_same_stamps(tmp_path: Path) -> None:
    out, bag = tmp_path / 'out', tmp_path / 'bag'
    drive = ['--drive', '--seconds', '1', '--rate', '2', '--bag', str(bag), '--workers', '1']
    assert main(['-o', str(out), *drive, *SMALL]) == 0
    found: dict[str, list] = {}
    with AnyReader([bag], default_typestore=TYPES) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            found.setdefault(connection.topic, []).append(message)
    stamps = {
        topic: [(m.header.stamp.sec, m.header.stamp.nanosec, m.header.frame_id) for m in messages]
        for topic, messages in found.items()
    }
    images = '/camera/image_raw/compressed'
    assert set(stamps) == {images, '/camera/camera_info', '/camera/depth'}
    assert len({tuple(each) for each in stamps.values()}) == 1
    (first, second) = stamps[images]
    assert first[2] == FRAME_ID
    assert second[0] * 10**9 + second[1] - first[0] * 10**9 - first[1] == 500_000_000
    metres = found['/camera/depth'][0].data.view('<f4').reshape(48, 64)
    written = cv2.imread(str(out / 'depth' / '000000.png'), cv2.IMREAD_UNCHANGED) / 1000
    near = (metres < 60) & (written > 0)
    assert near.any()
    np.testing.assert_allclose(metres[near], written[near], atol=6e-4)
    described = json.loads((out / 'scenes.jsonl').read_text().splitlines()[0])
    np.testing.assert_allclose(
        found['/camera/camera_info'][0].k.reshape(3, 3), np.array(described['K'])
    )


def test_the_help_describes_every_scene_kind(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(['--help'])
    shown = ' '.join(capsys.readouterr().out.split())
    for name, kind in SCENE_KINDS.items():
        assert f'{name}: {kind.__doc__}' in shown


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (
            ['--look', 'venus'],
            "kind is 'venus'; expected: mars, moon, quarry, belt, "
            'beach, creek, rubble, boulder, yard or mix',
        ),
        (['--count', '0'], 'count is 0; it must be 1 or more'),
        (['--size', '8', '8'], 'size is (8, 8); each side must be 32 to 4096 px'),
        (['--bag', 'b'], '--bag b needs --drive'),
        (
            ['--drive', '--look', 'belt'],
            "kind is 'belt'; with --drive, it must be one of mars, moon, quarry",
        ),
        (['--val-fraction', '1'], 'val_fraction is 1.0; it must be at least 0 and below 1'),
        (['--drive', '--rate', '0'], 'rate is 0.0; it must be above 0 and below 10000'),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['-o', str(tmp_path / 'out'), *arguments]) == 1
    assert capsys.readouterr().err == f'training.synthesize: {line}\n'
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('out', 'bag'), [('out', 'out/bag'), ('out', 'out'), ('out', 'else/../out/a/b'), ('b/out', 'b')]
)
def test_a_bag_inside_the_folder_or_around_it_is_an_error(
    out: str,
    bag: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training.synthesize, 'synthesize_drive', lambda *_: pytest.fail('begun'))
    given = ['-o', str(tmp_path / out), '--drive', '--bag', str(tmp_path / bag)]
    assert main([*given, *SMALL]) == 1
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert error.endswith(f'--out {tmp_path / out} must not contain each other\n')
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_not_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'mine.txt').write_text('mine')
    assert main(['-o', str(tmp_path), '--count', '1']) == 1
    assert capsys.readouterr().err.endswith('is not empty; choose a new folder\n')
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(Path, 'write_bytes', full)
    out = ['-o', str(tmp_path / 'out'), '--count', '1', '--workers', '1']
    assert main([*out, *SMALL]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith('training.synthesize: ')
    assert last.endswith('.jpg: No space left on device')
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_drive_leaves_neither_folder_nor_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training.synthesize, 'write_tables', interrupted)
    drive = ['--drive', '--seconds', '1', '--rate', '1', '--bag', str(tmp_path / 'bag')]
    assert main(['-o', str(tmp_path / 'out'), *drive, '--workers', '1', *SMALL]) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_partial_folder_of_a_killed_run_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'out.partial').mkdir()
    assert main(['-o', str(tmp_path / 'out'), '--count', '1', *SMALL]) == 1
    assert 'out.partial: exists; another run is active, or was killed' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_an_interrupt_ends_the_workers_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, '-m', 'training.synthesize', '-o', str(tmp_path / 'out')]
    command += ['--count', '4000', '--per-scene', '1', '--workers', '2', *SMALL]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr
        shown = ''
        while ' 1/4000' not in shown:
            piece = running.stderr.read(1)
            assert piece, shown
            shown += piece
        running.send_signal(signal.SIGINT)
        shown += running.stderr.read()  # returns when all workers have ended
    assert running.returncode == 130
    assert 'Traceback' not in shown
    assert list(tmp_path.iterdir()) == []
