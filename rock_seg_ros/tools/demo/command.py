# SPDX-License-Identifier: Apache-2.0
"""`rock_seg demo`: the real node, in its own process, on real Mars images over real DDS."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import rock_seg_ros
from rock_seg_ros.tools.bag.files import Bag, BagWriter
from rock_seg_ros.tools.demo.drive import (
    COMPRESSED,
    IMAGE,
    await_active,
    listening,
    measure,
    play_drive,
    play_rate,
    warm_up,
)
from rock_seg_ros.tools.demo.report import table, write_report
from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.node_process import NodeProcess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg demo`."""
    parser.add_argument(
        '-o', '--output', type=Path, default=Path('demo_out'), metavar='OUT',
        help='output folder for images, recording and summary.json (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--data', type=Path, metavar='FOLDER',
        help='folder with mars_drive/ and samples/ (default: the data of the package)',
    )  # fmt: skip
    parser.add_argument(
        '--weights',
        default='',
        metavar='FILE',
        help='weights file, or the embedded weights resnet50 or light (default: resnet50 on CUDA,'
        ' light on a CPU)',
    )
    parser.add_argument(
        '--device',
        metavar='DEVICE',
        help='device of the network: auto, cpu, cuda or cuda:N (default: auto)',
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; raises DemoError when the node did not do its work."""
    began = time.monotonic()
    data = arguments.data or find_data()
    output: Path = arguments.output
    clear(output)
    # By best effort, DDS loses most messages above half a megabyte, as the samples are.
    reliability = f'qos_overrides.{COMPRESSED}.subscription.reliability'
    parameters = {'image_transport': 'compressed', reliability: 'reliable'}
    if arguments.weights:
        file = Path(arguments.weights)  # a name of embedded weights has no suffix
        parameters['weights'] = str(file.resolve() if file.suffix else file)
    if arguments.device:
        parameters['device'] = arguments.device
    signal.signal(signal.SIGTERM, _terminate)
    keep_to_this_machine()
    with (
        NodeProcess(parameters, {'image': IMAGE}, output / 'node.log') as process,
        BagWriter(output / 'recording') as recording,
        listening(process, recording) as camera,
    ):
        print('starting the node', file=sys.stderr)
        await_active(camera, process)
        seconds = warm_up(camera, data / 'mars_drive')
        with Bag(data / 'mars_drive') as bag:
            drive = play_drive(camera, bag, play_rate(bag.duration, seconds))
        samples = measure(camera, data / 'samples', seconds)
    summary = write_report(output, drive, samples, seconds)
    print(table(summary))
    print(f'{output}: images, recording and summary, after {time.monotonic() - began:.0f} s')
    return 0


def find_data() -> Path:
    """Returns the demo's folder: the checkout's, or the installed one.

    Raises:
        FileNotFoundError: There is none.
    """
    folder = Path(rock_seg_ros.__file__).parents[1] / 'demo'
    if (folder / 'mars_drive').is_dir():
        return folder
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory('rock_seg_ros')) / 'demo'
    except (PackageNotFoundError, LookupError):
        raise FileNotFoundError('the demo data are not installed; give --data FOLDER') from None


def clear(output: Path) -> None:
    """Makes the folder and takes away what an earlier demo left, so that nothing stale stays.

    Raises:
        UsageError: The folder is not empty, and not an earlier demo's.
    """
    output.mkdir(parents=True, exist_ok=True)
    recording = output / 'recording'
    marked = (output / 'node.log').is_file() and recording.is_dir()
    if not marked and any(output.iterdir()):
        raise UsageError(f'{output}: is not empty and not of an earlier demo; give another -o')
    for pattern in ('overlay_*.jpg', 'contact_sheet.jpg', 'summary.json', 'node.log'):
        for stale in output.glob(pattern):
            stale.unlink()
    if marked:
        shutil.rmtree(recording)


def keep_to_this_machine() -> None:
    """Gives this process and its children a ROS domain of their own, on loopback only."""
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ.pop('ROS_STATIC_PEERS', None)


def _terminate(number: int, *_: object) -> None:
    raise SystemExit(128 + number)
