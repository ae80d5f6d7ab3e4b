# SPDX-License-Identifier: Apache-2.0
"""What the page shows: the interface of a source, and the sources whose images are segmented here.

A source runs in its own thread, and processes images only while there are viewers or a recording.
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from rock_seg_ros.perception.analysis import Analysis, Settings
from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.perception.geometry.scale import Scale, scale_from_points
from rock_seg_ros.tools.image_results import image_record
from rock_seg_ros.tools.view.controls import CONTROLS, change_setting, describe, read_setting
from rock_seg_ros.tools.view.feed import Feed, Result
from rock_seg_ros.tools.view.footage import Footage, Moment

if TYPE_CHECKING:
    from rock_seg_ros.tools.view.recording import Recording

Point = tuple[float, float]

LAYERS = ('image', 'overlay', 'mask', 'confidence')
# torch raises RuntimeError when it is out of memory.
_IMAGE_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, cv2.error)
_STOP_TIMEOUT = 1.0


class Source(ABC):
    """The interface of a source of results.

    Attributes:
        title: Title on the page.
        layers: Layers of its results.
        playing: Whether it continues with the next image automatically.
        line: Short description of the state.
        problem: The last error; empty if there is none.
        measurable: Whether `set_scale` is supported.
    """

    layers: tuple[str, ...] = LAYERS
    measurable = True

    def __init__(self, feed: Feed, title: str, record_folder: Path) -> None:
        """Starts nothing; results go to `feed`, recordings to `record_folder`."""
        self.title = title
        self.playing = True
        self.line = ''
        self.problem = ''
        self._feed = feed
        self._record_folder = record_folder
        self._recording: Recording | None = None
        self._record_lock = threading.Lock()

    @abstractmethod
    def start(self) -> None:
        """Starts the thread."""

    @abstractmethod
    def stop(self) -> None:
        """Ends the thread; waits at most a short time for the current image."""

    @abstractmethod
    def want(self, layers: frozenset[str] | None) -> None:
        """Sets the layers that viewers display; None = there are no viewers."""

    @abstractmethod
    def play(self) -> None:
        """Continues automatically; after the end, it starts again."""

    @abstractmethod
    def pause(self) -> None:
        """Stops after the current image."""

    @abstractmethod
    def step(self) -> None:
        """Shows one more image and pauses."""

    @abstractmethod
    def controls(self) -> list[dict[str, Any]]:
        """Returns the settings that can be changed, as `describe` returns them."""

    @abstractmethod
    def set(self, name: str, value: Any) -> None:
        """Changes a setting.

        Raises:
            ValueError: The setting is rejected; the message is the reason.
        """

    @abstractmethod
    def set_scale(self, first: Point, second: Point, mm: float) -> None:
        """Sets the scale by two points of the image (x, y in px) and their distance.

        Raises:
            ValueError: The scale is rejected; the message is the reason.
        """

    @abstractmethod
    def _open_recording(self) -> Recording:
        """Creates the bag of a recording."""

    def record(self) -> None:
        """Starts to write the results to a new bag.

        Raises:
            ValueError: A package is missing.
            OSError: The bag cannot be written.
        """
        with self._record_lock:
            if self._recording is None:
                try:
                    self._recording = self._open_recording()
                except ImportError as error:
                    raise ValueError(f'missing dependency: {error.name or error}') from None
        self._recording_changed()

    def stop_recording(self) -> None:
        """Completes the bag."""
        with self._record_lock:
            recording, self._recording = self._recording, None
            if recording is not None:
                recording.close()
        self._recording_changed()

    def _recording_changed(self) -> None:
        """Called after a recording was started or stopped."""
        self._feed.notify()

    def _write(self, write: Callable[[Recording], None]) -> None:
        """Writes to the recording if there is one; an error ends it and is shown."""
        with self._record_lock:
            if self._recording is None:
                return
            try:
                write(self._recording)
                return
            except OSError as error:
                self.problem = f'{self._recording.path}: {first_line(error)}; recording stopped'
                self._recording.abandon()
                self._recording = None
        self._recording_changed()

    def status(self) -> dict[str, Any]:
        """Returns the state as the page reads it."""
        recording = self._recording
        return {
            'title': self.title,
            'layers': self.layers,
            'measurable': self.measurable,
            'playing': self.playing,
            'line': self.line,
            'problem': self.problem,
            'recording': '' if recording is None else str(recording.path),
            'controls': self.controls(),
        }


class LocalSource(Source):
    """Segments images of files, a bag or a camera here."""

    def __init__(
        self,
        feed: Feed,
        footage: Footage,
        settings: Settings,
        record_folder: Path,
        record: Callable[[str, Analysis, Scale | None], dict[str, Any]] = image_record,
        network: str = '',
        loop: bool = False,
    ) -> None:
        """Starts nothing.

        Args:
            feed: Takes the results.
            footage: Gives the images.
            settings: Settings of the analysis at the start.
            record_folder: Folder of the recordings.
            record: Returns the record of an image from its name, its results and the scale that a
                viewer has set.
            network: Description of the network for the page.
            loop: Whether to begin again at the end.
        """
        super().__init__(feed, footage.title, record_folder)
        self.playing = footage.moving
        self.line = ', '.join(filter(None, (footage.detail, network)))
        self._footage = footage
        self._settings = settings
        self._record = record
        self._scale: Scale | None = None
        self._layer_lock = threading.Lock()
        self._loop = loop
        self._steps = 0 if footage.moving else 1
        self._again = False  # whether the settings changed since the last image
        self._unmoved = True  # whether there was no image since the last command
        self._wanted = False
        self._stopped = False
        self._changed = threading.Condition()
        self._moments: Iterator[Moment] = iter(())
        self._moment: Moment | None = None
        self._ahead: Moment | None = None  # image that was read, but is not due yet
        self._due = 0.0
        self._thread = threading.Thread(target=self._run, name='view source', daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and completes a recording."""
        with self._changing():
            self._stopped = True
        if self._thread.is_alive():
            self._thread.join(_STOP_TIMEOUT)
        self.stop_recording()
        self._footage.close()

    def want(self, layers: frozenset[str] | None) -> None:
        """Processes images while there are viewers; layers are computed only on request."""
        with self._changing():
            self._wanted = layers is not None

    def play(self) -> None:
        """Continues automatically; after the end, it starts again."""
        with self._changing():
            self.playing, self._unmoved = True, True

    def pause(self) -> None:
        """Stops after the current image."""
        with self._changing():
            self.playing, self._steps = False, 0

    def step(self) -> None:
        """Shows one more image and pauses; after the end, the first one."""
        with self._changing():
            self.playing, self._unmoved = False, True
            self._steps += 1

    def controls(self) -> list[dict[str, Any]]:
        """Returns the settings of the analysis."""
        shown = [c for c in CONTROLS if c.name != 'track' or self._footage.tracked]
        return describe(shown, lambda name: read_setting(self._settings, name))

    def set(self, name: str, value: Any) -> None:
        """Changes a setting, also for the current image."""
        with self._changing():
            self._settings = change_setting(self._settings, name, value)
            self._again = True

    def set_scale(self, first: Point, second: Point, mm: float) -> None:
        """Sets the scale of this image and those that follow."""
        if not (mm > 0 and all(map(math.isfinite, (*first, *second, mm)))):
            raise ValueError(f'the distance is {mm:g} mm; it must be a number above 0')
        with self._changing():
            self._scale = scale_from_points(first, second, mm)
            self._again = True

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Holds the lock, and wakes the thread and the viewers after the change."""
        with self._changed:
            yield
            self._changed.notify_all()
        self._feed.notify()

    def _open_recording(self) -> Recording:
        from rock_seg_ros.tools.view.recording import LocalRecording

        return LocalRecording(self._record_folder)

    def _recording_changed(self) -> None:
        with self._changing():
            pass

    # The thread

    def _run(self) -> None:
        while self._wait_for_turn():
            again = not self.playing and not self._steps
            moment = self._moment if again else self._next()
            if moment is None:
                continue
            if again or self._wait_until_due(moment):
                self._moment = moment
                self._analyse(moment, again)
            else:
                self._ahead = moment

    def _wait_for_turn(self) -> bool:
        """Waits for the turn of the next image; returns False at the end of the thread."""
        with self._changed:
            self._changed.wait_for(self._has_turn)
            return not self._stopped

    def _has_turn(self) -> bool:
        needed = self._wanted or self._recording is not None
        again = self._again and self._moment is not None
        return self._stopped or (needed and (self.playing or self._steps > 0 or again))

    def _next(self) -> Moment | None:
        """Reads the next image; at the end, pauses and returns None."""
        moment, self._ahead = self._ahead, None
        try:
            moment = moment or next(self._moments, None)
            if moment is None and (self._unmoved or self._loop):
                self._moments = self._footage.moments()
                moment = next(self._moments, None)
        except _IMAGE_ERRORS as error:
            self.problem = first_line(error)
        self._unmoved = False
        if moment is None:
            self.pause()
        return moment

    def _wait_until_due(self, moment: Moment) -> bool:
        """Waits for the time of an image if the source is playing.

        Returns:
            Whether the image is shown; False if the source was paused or stopped during the wait.
        """
        with self._changed:
            due = self._due + moment.after
            while self.playing and not self._stopped and (left := due - time.monotonic()) > 0:
                self._changed.wait(left)
            self._due = max(due, time.monotonic())
            return not self._stopped and (self.playing or self._steps > 0)

    def _analyse(self, moment: Moment, again: bool) -> None:
        """Analyses an image and shows the results; `again` with changed settings."""
        with self._changed:
            self._again, settings = False, self._settings
            self._steps = max(0, self._steps - 1)
        started = time.monotonic()
        try:
            analysis = moment.analyse(settings)
            record = self._record(moment.name, analysis, self._scale)
        except _IMAGE_ERRORS as error:
            reason = first_line(error)
            self.problem = reason if moment.name in reason else f'{moment.name}: {reason}'
            self._feed.notify()
            return
        self.problem = self._footage.problem
        self._feed.measure((time.monotonic() - started) * 1000, self._footage.dropped)
        if not again:
            self._write(lambda recording: recording.write_analysis(analysis, moment.stamp))
        self._feed.show(
            Result(record, moment.time, partial(self._layer, analysis)),
            self._footage.tracked and settings.track,
        )

    def _layer(self, analysis: Analysis, name: str) -> Any:
        """Returns a layer; viewers that ask for it at the same time wait for one computation."""
        with self._layer_lock:
            return layer_of(analysis, name)


def layer_of(analysis: Analysis, name: str) -> Any:
    """Returns a layer of an analysis, see `Result.layer`."""
    if name == 'confidence':
        return analysis.segmentation.confidence
    return getattr(analysis, name) if name in LAYERS else None
