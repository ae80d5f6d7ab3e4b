# SPDX-License-Identifier: Apache-2.0
"""`rock_seg video`: finds rocks in a video and draws them onto a copy of it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.files import size_of_regular_file
from rock_seg_ros.perception.image_io.bit_depth import BitDepth
from rock_seg_ros.perception.image_io.decoding import MAX_PIXELS, ImageTooLargeError, check_size
from rock_seg_ros.perception.instances.tracking import Tracker
from rock_seg_ros.perception.writing import atomic_write, temporary_folder
from rock_seg_ros.tools.image_results import is_result_file, write_json_lists
from rock_seg_ros.tools.main import FAILED, UsageError, print_message
from rock_seg_ros.tools.network_options import (
    BITS_HINT,
    add_network_options,
    add_track_option,
    segmenter_of,
    settings_of,
)
from rock_seg_ros.tools.progress import progress
from rock_seg_ros.tools.results.exports import add_export_options, check_exports, write_exports
from rock_seg_ros.tools.results.record_file import RecordFiles, RecordWriter
from rock_seg_ros.tools.results.recorder import Recorder, add_scale_options
from rock_seg_ros.tools.results.results import Results, frame_file

QUARTER_TURNS = {-90: 3, 90: 1, 180: 2, -180: 2}
FALLBACK_RATE = Fraction(25)
# s; larger jumps of the stamps are restarts of the clock. FFmpeg takes a restart in MPEG-TS
# for an overflow of 33 bits, so the jump may be forwards.
MAX_BACKWARD, MAX_FORWARD = 0.5, 3600
MARGIN = 0.5  # s; durations in headers are rounded and need not start at the first frame


class Frame(NamedTuple):
    """A frame of a video.

    Attributes:
        stamp: Time, ticks.
        duration: Time for which it is displayed, ticks.
        image: H×W×3 uint8 RGB, upright.
    """

    stamp: int
    duration: int
    image: NDArray[np.uint8]


class VideoError(ValueError):
    """A video that cannot be read; the message is one line with the file and the reason."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg video`."""
    parser.add_argument(
        'input', type=Path, metavar='IN', help='input video, of any format that FFmpeg reads'
    )
    parser.add_argument(
        '-o', '--output', type=Path, required=True, metavar='OUT.mp4',
        help='output video (H.264 in MP4, without sound); the rocks are written to OUT.json',
    )  # fmt: skip
    add_export_options(parser)
    add_scale_options(parser)
    add_track_option(parser)
    add_network_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Processes every frame. Frames that cannot be read are reported, and the others are kept."""
    output: Path = arguments.output
    record = output.with_suffix('.json')
    if output.suffix.lower() != '.mp4':
        raise UsageError(f'{output}: the name must end in .mp4')
    if output.resolve() == arguments.input.resolve():
        raise UsageError(f'{output}: is the input file; choose another output file')
    if output.exists() and not output.is_file():
        raise UsageError(f'{output}: exists and is not a file; choose another output file')
    if record.exists() and not is_result_file(record):
        raise UsageError(
            f'{record}: exists and was not written by rock_seg; choose another output file'
        )
    check_exports(arguments, None, (output, record))
    depth = BitDepth(
        arguments.significant_bits,
        lambda text: print_message('video', f'{arguments.input}: {text}; {BITS_HINT}'),
    )
    with (
        Video(arguments.input, depth, arguments.max_pixels) as video,
        temporary_folder(record) as folder,
    ):
        drawing = _Drawing(arguments)
        file = folder / 'records.jsonl'
        name = arguments.input.name
        with RecordWriter(file, name, drawing.recorder, arguments.labelme) as records:
            atomic_write(output, lambda temporary: drawing.draw(video, temporary, records))
        frames = RecordFiles([file])
        write_json_lists(
            record, {'frames': frames.plain()}, video=name, made_by=drawing.recorder.made_by
        )
        problems = write_exports(_results(frames, arguments), arguments)
    if line := records.scale_line('frames'):
        print_message('video', line)
    problems += [video.problem] if video.problem else []
    for line in problems:
        print_message('video', line)
    return FAILED if problems or records.without_scale == records.count else 0


def _results(frames: RecordFiles, arguments: argparse.Namespace) -> Results:
    """Returns the results of the frames; their overlays are those of the video that was written."""

    def overlays(indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        with Video(arguments.output) as drawn:
            for number, frame in enumerate(drawn.frames()):
                if number in indices:
                    yield frame.image

    folder = arguments.labelme
    return Results(
        arguments.input.name, frames, lambda _, record: frame_file(folder, record), overlays
    )


class Video:
    """A video file that is open for reading.

    Attributes:
        path: The file.
        rate: Its mean frame rate, Hz.
        time_base: Seconds per tick of its time stamps.
        count: Number of frames; 0 = unknown.
        problem: Set after the frames were read: one line about frames that could not be read;
            empty if there are none.
    """

    def __init__(
        self, path: Path, depth: BitDepth | None = None, max_pixels: int = MAX_PIXELS
    ) -> None:
        """Opens the file.

        Args:
            path: The file.
            depth: Number of bits that 16-bit frames use; None = found from the values.
            max_pixels: Maximum number of pixels of a frame; larger videos are rejected.

        Raises:
            VideoError: The file is not a video, or its frames are too large.
            OSError: The file cannot be read, or is not a regular file.
        """
        self.path = path
        self.problem = ''
        self._depth = depth or BitDepth()
        size_of_regular_file(path)  # a pipe might never end
        with path.open('rb'):  # raises OSError with a clear message if the file cannot be read
            pass
        try:
            self._container = av.open(str(path))
        except (av.error.FFmpegError, ValueError) as error:
            raise VideoError(f'{path}: not a video ({_line(error)})') from None
        try:
            self._stream = self._open_stream(max_pixels)
        except VideoError:
            self._container.close()
            raise
        self.rate = Fraction(self._stream.average_rate or FALLBACK_RATE)
        self.time_base = Fraction(self._stream.time_base or 1 / self.rate)
        self.count = self._stream.frames

    def _open_stream(self, max_pixels: int) -> Any:
        if not self._container.streams.video:
            raise VideoError(f'{self.path}: has no video stream')
        stream = self._container.streams.video[0]
        stream.thread_type = 'AUTO'
        try:
            check_size(stream.width, stream.height, max_pixels)
        except ImageTooLargeError as error:
            raise VideoError(f'{self.path}: {error}') from None
        return stream

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *error: object) -> None:
        self._container.close()

    def frames(self) -> Iterator[Frame]:
        """Yields the frames with increasing stamps from 0. Frames that do not decode are skipped.

        Where the clock of the recorder starts again, the stamps go on.

        Raises:
            VideoError: No frame can be decoded.
        """
        last: int | None = None
        shift = 0
        step = max(1, round(1 / (self.rate * self.time_base)))
        for frame in self._decoded():
            expected = 0 if last is None else last + step
            stamp = expected if frame.pts is None else frame.pts + shift
            jump = (stamp - expected) * self.time_base
            if frame.pts is not None and (last is None or not -MAX_BACKWARD <= jump <= MAX_FORWARD):
                shift, stamp = expected - frame.pts, expected
            last = stamp if last is None else max(stamp, last + 1)
            yield Frame(last, frame.duration or step, self._image(frame))
        if last is None:
            raise VideoError(self.problem or f'{self.path}: no frame can be decoded')

    def _decoded(self) -> Iterator[av.VideoFrame]:
        """Yields the frames that decode; describes the others in `problem`."""
        packets = lost = good = 0
        end, why, damaged = 0.0, '', False
        demuxed = self._container.demux(self._stream)
        while True:
            try:
                packet = next(demuxed, None)
                if packet is None:
                    break
                packets += packet.dts is not None or packet.size > 0
                damaged = packet.is_corrupt
                decoded = packet.decode()
            except av.error.EOFError:
                break
            except av.error.FFmpegError as error:
                lost, why = lost + 1, _line(error)
                continue
            for frame in decoded:
                good, end = good + 1, max(end, frame.time or 0.0)
                yield frame
        if damaged or self._is_short(packets, end):
            of = f' of {self.count}' if self.count else ''
            self.problem = f'{self.path}: truncated after {good}{of} frames'
        elif lost:
            frames = '1 frame' if lost == 1 else f'{lost} frames'
            self.problem = f'{self.path}: {frames} could not be decoded ({why})'

    def _is_short(self, packets: int, end: float) -> bool:
        """Returns whether the file is shorter than its header states, if this can be determined."""
        if 'avi' in self._container.format.name.split(','):
            return packets < self.count  # FFmpeg guesses the duration from the file's size
        whole = (self._container.duration or 0) / av.time_base
        other = len(self._container.streams) > 1  # another stream may be longer than the video
        if other and packets >= self.count:
            return False
        return end < whole - max(MARGIN, 3 / self.rate)

    def _image(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """Returns a frame as H×W×3 uint8 RGB, upright."""
        deep = frame.format.components[0].bits == 16
        pixels = frame.to_ndarray(format='rgb48le' if deep else 'rgb24')
        return np.rot90(self._depth.to_eight_bits(pixels), _turns(frame.rotation))


class _Drawing:
    """Finds the rocks in the frames of a video.

    Attributes:
        recorder: Makes their records.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._settings = settings_of(arguments)
        self._segmenter = segmenter_of(arguments)
        self._tracker = Tracker()
        self.recorder = Recorder(arguments, self._segmenter)

    def draw(self, video: Video, output: Path, records: RecordWriter) -> None:
        """Writes the overlay video and the records."""
        frames = progress(video.frames(), total=video.count or None, unit='frame')
        with OverlayVideo(output, video.rate, video.time_base) as drawn:
            for frame in frames:
                time = float(frame.stamp * video.time_base)
                analysis = Analysis(
                    frame.image, self._segmenter, self._settings, tracker=self._tracker, time=time
                )
                drawn.write(frame._replace(image=analysis.overlay))
                records.add(analysis, time=time)


class OverlayVideo:
    """Writes an H.264 file that browsers can play: yuv420p, with the index at the beginning."""

    def __init__(self, path: Path, rate: Fraction, time_base: Fraction) -> None:
        """Opens the file; `rate` in Hz, `time_base` in seconds per tick."""
        self._container = av.open(str(path), 'w', format='mp4', options={'movflags': '+faststart'})
        self._rate, self._time_base = rate, time_base
        self._stream: Any = None
        self._durations: dict[int, int] = {}

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(self, *error: object) -> None:
        if self._stream is not None and error[0] is None:
            self._encode(None)
        self._container.close()

    def write(self, frame: Frame) -> None:
        """Adds a frame. Odd sides are padded by one pixel, because yuv420p needs even sides."""
        height, width = frame.image.shape[:2]
        even = cv2.copyMakeBorder(frame.image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._stream is None:
            self._open_stream(even.shape[1], even.shape[0])
        coded = av.VideoFrame.from_ndarray(even, format='rgb24')
        coded.pts, coded.time_base = frame.stamp, self._time_base
        self._durations[frame.stamp] = frame.duration
        self._encode(coded)

    def _encode(self, coded: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(coded):
            packet.duration = self._durations.pop(packet.pts)  # the encoder does not keep it
            self._container.mux(packet)

    def _open_stream(self, width: int, height: int) -> None:
        # Without B-frames, the duration of the file is right even if the frame rate varies.
        self._stream = self._container.add_stream('libx264', rate=self._rate, options={'bf': '0'})
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = 'yuv420p'
        self._stream.time_base = self._stream.codec_context.time_base = self._time_base


def _turns(rotation: float) -> int:
    """Returns the number of counterclockwise quarter turns that make a frame upright."""
    return QUARTER_TURNS.get(round(rotation), 0)


def _line(error: Exception) -> str:
    return getattr(error, 'strerror', None) or first_line(error)
