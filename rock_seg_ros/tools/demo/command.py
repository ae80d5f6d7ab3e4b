# SPDX-License-Identifier: Apache-2.0
"""`rock_seg demo`: runs the node in its own process on Mars images that are sent over DDS."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import rock_seg_ros
from rock_seg_ros.perception.writing import make_folder
from rock_seg_ros.tools.bag.files import Bag, BagWriter
from rock_seg_ros.tools.demo.drive import (
    COMPRESSED,
    IMAGE,
    WANTED_MASKS,
    await_active,
    image_topic,
    measure,
    open_camera,
    play_drive,
    play_rate,
    warm_up,
)
from rock_seg_ros.tools.demo.report import table, write_report
from rock_seg_ros.tools.local_domain import use_local_domain
from rock_seg_ros.tools.main import UsageError, exit_on_termination
from rock_seg_ros.tools.node_process import NodeProcess

LIGHT_IMAGES = WANTED_MASKS


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
        '--light',
        action='store_true',
        help='run a short demo that needs little memory and time: the light network and the first'
        f' {LIGHT_IMAGES} images of the bag (default: all images)',
    )
    parser.add_argument(
        '--device',
        metavar='DEVICE',
        help='device of the network: auto, cpu, cuda or cuda:N (default: auto)',
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; raises DemoError if the node does not work as expected."""
    if arguments.light and arguments.weights:
        raise UsageError('--light selects the weights; use it without --weights')
    start = time.monotonic()
    data = arguments.data or find_data()
    output: Path = arguments.output
    clear(output)
    # With best-effort reliability, DDS loses most messages above 0.5 MB, such as the samples.
    reliability = f'qos_overrides.{COMPRESSED}.subscription.reliability'
    parameters = {'image_transport': 'compressed', reliability: 'reliable'}
    if weights := 'light' if arguments.light else arguments.weights:
        file = Path(weights)  # the names of embedded weights have no suffix
        parameters['weights'] = str(file.resolve() if file.suffix else file)
    if arguments.device:
        parameters['device'] = arguments.device
    exit_on_termination()
    use_local_domain()
    with (
        NodeProcess(parameters, {'image': IMAGE}, output / 'node.log') as process,
        BagWriter(output / 'recording') as recording,
        open_camera(process, recording) as camera,
    ):
        print('starting the node', file=sys.stderr)
        await_active(camera, process)
        seconds = warm_up(camera, data / 'mars_drive')
        with Bag(data / 'mars_drive') as bag:
            count = LIGHT_IMAGES if arguments.light else None
            share = count / image_topic(bag).count if count else 1
            drive = play_drive(camera, bag, play_rate(share * bag.duration, seconds), count)
        samples = measure(camera, data / 'samples', seconds)
    summary = write_report(output, drive, samples, seconds)
    print(table(summary))
    print(
        f'{output}: overlays, recording and summary written after {time.monotonic() - start:.0f} s'
    )
    return 0


def find_data() -> Path:
    """Returns the folder of the demo data in the checkout or in the installed package.

    Raises:
        FileNotFoundError: The data is not installed.
    """
    folder = Path(rock_seg_ros.__file__).parents[1] / 'demo'
    if (folder / 'mars_drive').is_dir():
        return folder
    from ament_index_python.packages import PackageNotFoundError, get_package_share_directory

    try:
        return Path(get_package_share_directory('rock_seg_ros')) / 'demo'
    except (PackageNotFoundError, LookupError):
        raise FileNotFoundError(
            'the demo data is not installed; pass its folder with --data FOLDER'
        ) from None


def clear(output: Path) -> None:
    """Creates the output folder and removes the files of an earlier demo from it.

    Raises:
        UsageError: The folder is not empty and was not written by an earlier demo.
    """
    make_folder(output)
    recording = output / 'recording'
    from_demo = (output / 'node.log').is_file() and recording.is_dir()
    if not from_demo and any(output.iterdir()):
        raise UsageError(
            f'{output}: is not empty and was not written by the demo; choose another folder with -o'
        )
    for pattern in ('overlay_*.jpg', 'contact_sheet.jpg', 'summary.json', 'node.log'):
        for file in output.glob(pattern):
            file.unlink()
    if from_demo:
        shutil.rmtree(recording)
