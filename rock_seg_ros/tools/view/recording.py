# SPDX-License-Identifier: Apache-2.0
"""Writes results to a new bag while they are shown, with the topics of `rock_seg bag`."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from std_msgs.msg import Header

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.pairing import NS
from rock_seg_ros.perception.writing import make_folder
from rock_seg_ros.tools.bag.command import CHOICES, DEFAULT_OUTPUTS, Results, type_name
from rock_seg_ros.tools.bag.files import RELIABLE, BagWriter

FRAME_ID = 'camera_optical_frame'  # for images without a header


class Recording:
    """A bag that is being written.

    Attributes:
        path: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the bag in a folder, with the time as its name.

        Raises:
            OSError: The bag cannot be written.
        """
        make_folder(folder)
        name = time.strftime('view_%Y%m%d_%H%M%S')
        path, number = folder / name, 1
        while path.exists():
            number += 1
            path = folder / f'{name}_{number}'
        self.path = path
        self._writer = BagWriter(path)
        self._writer.__enter__()

    def write_analysis(self, analysis: Analysis, stamp: int) -> None:
        """Writes the results of an image; `stamp` in ns since the epoch."""
        raise NotImplementedError

    def write_message(self, topic: str, stamp: int, data: bytes) -> None:
        """Writes a message in CDR; `stamp` in ns since the epoch."""
        self._writer.write(topic, stamp, data)

    def close(self) -> None:
        """Completes the bag."""
        self._writer.__exit__(None, None, None)

    def abandon(self) -> None:
        """Closes the bag after an error; messages that were written are kept."""
        error = OSError('the recording failed')
        with suppress(OSError):  # the disk may still be full
            self._writer.__exit__(type(error), error, None)


class LocalRecording(Recording):
    """Writes the topics that the node would publish."""

    def __init__(self, folder: Path) -> None:
        """Creates the bag with its topics."""
        super().__init__(folder)
        self._results = Results(self._writer, [CHOICES[name] for name in DEFAULT_OUTPUTS])

    def write_analysis(self, analysis: Analysis, stamp: int) -> None:
        """Writes the results of an image; an image without a header gets one with `stamp`."""
        if analysis.header is None:
            analysis.header = Header(frame_id=FRAME_ID)
            analysis.header.stamp.sec, analysis.header.stamp.nanosec = divmod(stamp, NS)
        for topic, data in self._results.serialize(analysis):
            self.write_message(topic, stamp, data)


class TopicRecording(Recording):
    """Writes messages of topics when they arrive."""

    def __init__(self, folder: Path, namespace: str) -> None:
        """Creates the bag with the topics of a node's namespace."""
        super().__init__(folder)
        for name in DEFAULT_OUTPUTS:
            output = CHOICES[name]
            qos = RELIABLE._replace(depth=output.depth)
            self._writer.add_topic(f'{namespace}/{name}', type_name(output), qos)
