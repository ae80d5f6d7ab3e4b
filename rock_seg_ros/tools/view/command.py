# SPDX-License-Identifier: Apache-2.0
"""`rock_seg view`: shows rocks on a live page in the browser."""

from __future__ import annotations

import argparse
import webbrowser
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.scale import Scale
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import embedded_name
from rock_seg_ros.tools.image_results import image_record
from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.network_options import (
    add_network_options,
    add_track_option,
    segmenter_of,
    settings_of,
)
from rock_seg_ros.tools.results.recorder import Recorder, add_scale_options
from rock_seg_ros.tools.view.access import Access, listen
from rock_seg_ros.tools.view.controls import CONTROLS, read_setting
from rock_seg_ros.tools.view.feed import Feed
from rock_seg_ros.tools.view.footage import Camera, Footage, open_footage
from rock_seg_ros.tools.view.server import serve
from rock_seg_ros.tools.view.sources import LocalSource, Source

PORT = 8080


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg view`."""
    parser.add_argument(
        'inputs', nargs='*', metavar='IN',
        help='image files, a folder of images, a video or a bag; images are segmented here',
    )  # fmt: skip
    parser.add_argument(
        '--camera', type=int, metavar='N',
        help='show camera N of this machine (/dev/videoN); its images are segmented here',
    )  # fmt: skip
    parser.add_argument(
        '--node', metavar='NAMESPACE',
        help='show the topics of a running node, such as /rock_seg; of a node with several cameras'
        ' those of one, such as /rock_seg/front',
    )  # fmt: skip
    parser.add_argument(
        '--host', default='127.0.0.1', metavar='ADDRESS',
        help='address to listen on; 0.0.0.0 = every network, so that phones and other computers'
        ' can open the page with a token (default: %(default)s, only this machine)',
    )  # fmt: skip
    parser.add_argument(
        '--port', type=int, default=PORT, metavar='PORT',
        help='TCP port to listen on; 0 = a free one (default: %(default)s)',
    )  # fmt: skip
    parser.add_argument(
        '--token', metavar='TEXT',
        help='token that viewers need (default: none on this machine; with another --host, a new'
        ' one that is printed)',
    )  # fmt: skip
    parser.add_argument(
        '--open', action='store_true', help='open the page in the browser of this machine'
    )
    parser.add_argument(
        '--loop', action='store_true', help='restart at the end of the images, video or bag'
    )
    parser.add_argument(
        '--image', metavar='TOPIC',
        help='image topic; required if the bag has several cameras (default: the only image topic)',
    )  # fmt: skip
    parser.add_argument(
        '--record-folder', type=Path, default=Path(), metavar='FOLDER',
        help='folder for the bags that the page records (default: the current folder)',
    )  # fmt: skip
    add_scale_options(parser)
    add_track_option(parser)
    add_network_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    given = [bool(arguments.inputs), arguments.camera is not None, arguments.node is not None]
    if sum(given) != 1:
        raise UsageError('name one of IN, --camera and --node')
    access = Access(arguments.host, arguments.token)
    with closing(listen(arguments.host, arguments.port)) as listener:
        feed = Feed()
        serve(
            make_source(arguments, feed), feed, access, listener, partial(_announce, arguments.open)
        )
    return 0


def make_source(arguments: argparse.Namespace, feed: Feed) -> Source:
    """Makes the source that the arguments name.

    Raises:
        ValueError: It cannot be used; the message is one line.
        OSError: A file cannot be read.
        ImportError: A package that it needs is missing.
    """
    if arguments.node is not None:
        from rock_seg_ros.tools.view.node_source import NodeSource

        return NodeSource(feed, arguments.node, arguments.record_folder)
    settings = settings_of(arguments)
    segmenter = segmenter_of(arguments)
    recorder = Recorder(arguments, segmenter)
    footage = _footage(arguments, segmenter)
    weights = arguments.weights or embedded_name(
        arguments.device, arguments.backend, arguments.precision
    )
    about = (weights, str(segmenter.device), segmenter.precision)
    return LocalSource(
        feed,
        footage,
        settings,
        arguments.record_folder,
        partial(_record, recorder, segmenter.metadata.threshold),
        ', '.join(about),
        arguments.loop,
    )


def _record(
    recorder: Recorder, threshold: float, name: str, analysis: Analysis, scale: Scale | None
) -> dict[str, Any]:
    """Returns the record of an image, with the settings and the scale that the page has changed."""
    changed = {control.name: read_setting(analysis.settings, control.name) for control in CONTROLS}
    changed['threshold'] = analysis.settings.threshold or threshold
    settings = recorder.made_by['settings']
    settings = settings | {key: value for key, value in changed.items() if key in settings}
    record = image_record(name, analysis, scale) if scale else recorder.record(name, analysis)
    return {**record, 'made_by': {**recorder.made_by, 'settings': settings}}


def _footage(arguments: argparse.Namespace, segmenter: Segmenter) -> Footage:
    if arguments.camera is not None:
        return Camera(arguments.camera, segmenter)
    return open_footage(
        arguments.inputs,
        segmenter,
        arguments.image,
        arguments.significant_bits,
        arguments.max_pixels,
    )


def _announce(open_browser: bool, url: str) -> None:
    print(f'rock_seg view: open {url} in a browser; Ctrl-C ends it', flush=True)
    if open_browser:
        webbrowser.open(url)
