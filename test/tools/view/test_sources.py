# SPDX-License-Identifier: Apache-2.0
"""Sources that are segmented by the command itself: images, video, bag and camera."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import cv2
import numpy as np
import pytest

from rock_seg_ros.perception.analysis import Settings
from rock_seg_ros.perception.inference.segmentation import DeferredSegmentation
from rock_seg_ros.perception.instances.rocks import RockSettings
from rock_seg_ros.tools.bag.files import Bag
from rock_seg_ros.tools.main import UsageError
from rock_seg_ros.tools.view import sources
from rock_seg_ros.tools.view.feed import Feed
from rock_seg_ros.tools.view.footage import (
    BagFile,
    Camera,
    ImageFiles,
    VideoFile,
    open_footage,
)
from rock_seg_ros.tools.view.sources import LocalSource

OVERLAY = frozenset({'overlay'})


class Results:
    """Collects the results of a feed."""

    def __init__(self, feed):
        self.results = []
        feed.subscribe(lambda: self._take(feed.result))

    def _take(self, result):
        if result is not None and result not in self.results[-1:]:
            self.results.append(result)

    @property
    def images(self):
        return [result.record['image'] for result in self.results]


@pytest.fixture
def video(tmp_path, scene):
    from rock_seg_ros.tools.video import Frame, OverlayVideo

    path = tmp_path / 'drive.mp4'
    with OverlayVideo(path, Fraction(20), Fraction(1, 20)) as written:
        for number in range(6):
            written.write(Frame(number, 1, np.roll(scene, number, 1)))
    return path


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('samples/images', ImageFiles),
        ('samples/images/same.png', ImageFiles),
        ('samples/images/*.png', ImageFiles),
        ('mars_drive', BagFile),
        ('mars_drive/mars_drive.mcap', BagFile),
    ],
)
def test_images_and_bags_are_recognized_by_their_names(demo_data, segmenter, name, kind):
    footage = open_footage([str(demo_data / name)], segmenter)
    assert type(footage) is kind
    footage.close()


def test_other_files_are_videos(video, segmenter):
    assert type(open_footage([str(video)], segmenter)) is VideoFile


@pytest.mark.parametrize(
    ('make', 'error'),
    [
        (lambda folder: folder / 'missing', 'No such file'),
        (lambda folder: folder.mkdir() or folder, 'contains no images'),
        (lambda folder: folder.write_bytes(b'nothing') and folder, 'not a video'),
    ],
)
def test_an_input_that_cannot_be_opened_is_an_error(tmp_path, segmenter, make, error):
    path = make(tmp_path / 'in')
    with pytest.raises((ValueError, OSError), match=error):
        next(open_footage([str(path)], segmenter).moments()).analyse(Settings())


def test_nothing_is_segmented_without_viewers(make_source, demo_data, segmenter, view):
    asked = threading.Event()
    original = segmenter.segment
    segmenter.segment = lambda *given: asked.set() or original(*given)
    source, feed = make_source(demo_data / 'mars_drive')
    source.start()
    assert not asked.wait(0.2)
    source.want(OVERLAY)
    view.wait_for(lambda: feed.result, 'a result')


def test_segmentation_stops_when_the_last_viewer_disconnects(drive, view):
    source, feed = drive
    shown = Results(feed)
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: len(shown.results) > 2, 'results')
    source.want(None)
    last = view.wait_for(lambda: _settled(shown), 'the last result')
    assert len(shown.results) == last


def _settled(shown):
    """Returns the number of results if it does not change for 4 periods of the bag."""
    before = len(shown.results)
    threading.Event().wait(0.2)
    return before if len(shown.results) == before else 0


def test_a_bag_is_played_to_its_end_and_restarts_on_play(make_source, demo_data, view):
    source, feed = make_source(demo_data / 'mars_drive')
    shown = Results(feed)
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: not source.playing, 'the end')
    assert len(shown.results) == 12
    assert [r.time for r in shown.results] == sorted(r.time for r in shown.results)
    ids = {rock['id'] for result in shown.results for rock in result.record['rocks']}
    assert len(ids) < 12  # rocks are tracked
    source.play()
    view.wait_for(lambda: len(shown.results) == 24, 'the second time')
    assert source.problem == ''


def test_a_bag_is_not_played_faster_than_it_was_recorded(make_source, demo_data, view):
    source, _ = make_source(demo_data / 'mars_drive')
    began = sources.time.monotonic()
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: not source.playing, 'the end')
    assert sources.time.monotonic() - began >= 11 * 0.05


def test_a_loop_continues_until_it_is_stopped(drive, view):
    source, feed = drive
    shown = Results(feed)
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: len(shown.results) > 13, 'the second round')
    assert source.playing


def test_a_video_is_shown_frame_by_frame(make_source, video, view):
    source, feed = make_source(video)
    shown = Results(feed)
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: not source.playing, 'the end')
    assert [round(result.time, 2) for result in shown.results] == [0, 0.05, 0.1, 0.15, 0.2, 0.25]
    assert shown.images[1] == 'drive.mp4 0.050 s'


def test_images_are_paused_at_the_first_one(samples, view):
    source, feed = samples
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: feed.result, 'the first image')
    assert not source.playing
    assert feed.result.record['image'] == 'half.png'
    layers = [feed.result.layer(name) for name in source.layers]
    assert [layer.shape for layer in layers] == [(48, 64, 3), (48, 64, 3), (48, 64), (48, 64)]
    assert feed.result.layer('other') is None


def test_a_step_shows_the_image_whose_time_a_pause_interrupted(make_source, demo_data, view):
    source, feed = make_source(demo_data / 'samples/images')
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: feed.result, 'the first image')
    source.play()
    view.wait_for(lambda: source._moment and source._due, 'the wait for the second image')
    source.pause()
    assert feed.result.record['image'] == 'half.png'
    source.step()
    view.wait_for(lambda: feed.result.record['image'] == 'same.png', 'the second image')


def test_an_image_that_fails_is_reported_and_the_next_one_is_shown(make_source, demo_data, view):
    (demo_data / 'samples/images/half.png').write_bytes(b'nothing')
    source, feed = make_source(demo_data / 'samples/images')
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: source.problem, 'the problem')
    assert 'half.png' in source.problem
    source.step()
    view.wait_for(lambda: feed.result, 'the next image')
    assert source.problem == ''


def test_a_damaged_bag_is_shown_up_to_the_damage(make_source, demo_data, view):
    file = demo_data / 'mars_drive/mars_drive.mcap'
    file.write_bytes(file.read_bytes()[:-2000])
    source, feed = make_source(file)
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: source.problem, 'the problem')
    assert 'mars_drive.mcap' in source.problem
    assert feed.result is not None
    assert not source.playing


def test_a_topic_that_the_bag_does_not_have_is_an_error(demo_data, segmenter):
    with pytest.raises(UsageError, match='has no sensor_msgs/msg/Image topic /other'):
        BagFile(demo_data / 'mars_drive', '/other', segmenter)


def test_settings_apply_to_the_paused_image(samples, view):
    source, feed = samples
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: feed.result, 'the first image')
    source.set('max_rocks', 1)
    view.wait_for(lambda: len(feed.result.record['rocks']) == 1, 'one rock')
    assert feed.result.record['image'] == 'half.png'
    assert 'track' not in {control['name'] for control in source.controls()}


def test_a_layer_that_two_viewers_ask_for_at_the_same_time_is_computed_once(
    make_source, demo_data, segmenter, view
):
    computed, never = [], threading.Event()

    def compute():
        computed.append(1)
        never.wait(0.1)  # so that both requests overlap
        return np.full((48, 64), 200, np.uint8)

    plain = segmenter.segment

    def deferred(image, threshold=None):
        found = plain(image, threshold)
        return DeferredSegmentation(
            found.class_ids, compute, found.rock_ids, None, lambda: found.rock_confidence
        )

    segmenter.segment = deferred
    together = Settings(rocks=RockSettings(split_touching=False))  # does not use the confidence
    source, feed = make_source(demo_data / 'samples/images', settings=together)
    source.start()
    source.want(OVERLAY)
    result = view.wait_for(lambda: feed.result, 'a result')
    assert not computed
    with ThreadPoolExecutor(2) as pool:
        layers = list(pool.map(result.layer, ['confidence'] * 2))
    assert [layer[0, 0] for layer in layers] == [200, 200]
    assert len(computed) == 1


class Capture:
    """A substitute for cv2.VideoCapture that gives an image per release of a semaphore."""

    def __init__(self, scene):
        self.image = cv2.cvtColor(scene, cv2.COLOR_RGB2BGR)
        self.permits = threading.Semaphore(0)
        self.released = threading.Event()
        self.broken = False

    def isOpened(self):  # noqa: N802
        return True

    def read(self):
        self.permits.acquire()
        return not self.broken, self.image

    def release(self):
        self.released.set()


def test_a_camera_gives_the_newest_image_and_counts_dropped_ones(segmenter, scene, view, tmp_path):
    capture = Capture(scene)
    camera = Camera(0, segmenter, capture)
    feed = Feed()
    source = LocalSource(feed, camera, Settings(), tmp_path)
    capture.permits.release(5)
    view.wait_for(lambda: camera.dropped == 4, 'four dropped images')
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: feed.result, 'a result')
    assert [rock['area'] for rock in feed.result.record['rocks']] == [200, 120]
    assert feed.samples(0)[-1].dropped == 4
    capture.broken = True
    capture.permits.release(2)
    view.wait_for(lambda: source.problem == 'camera 0 gives no images', 'the problem')
    source.stop()
    assert capture.released.is_set()


def test_a_missing_camera_is_an_error(segmenter):
    with pytest.raises(ValueError, match='camera 987 cannot be opened; check that /dev/video987'):
        Camera(987, segmenter)


def test_a_recording_has_the_results_of_each_image_that_is_shown(
    make_source, demo_data, view, tmp_path
):
    source, feed = make_source(demo_data / 'mars_drive')
    shown = Results(feed)
    source.record()
    source.record()  # continues the same bag
    source.start()  # records without viewers
    view.wait_for(lambda: not source.playing, 'the end')
    source.stop_recording()
    (path,) = (tmp_path / 'records').iterdir()
    with Bag(path) as bag, Bag(demo_data / 'mars_drive') as played:
        rocks = next(topic for topic in bag.topics if topic.name == '/rock_seg/rocks')
        stamps = [message.stamp for message in bag.messages([rocks])]
        assert stamps == [message.stamp for message in played.messages(played.topics)]
    assert len(shown.results) == 12


def test_images_without_a_header_get_one_in_a_recording(samples, view, tmp_path):
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import PointCloud2

    source, feed = samples
    source.record()
    source.start()
    view.wait_for(lambda: feed.result, 'a result')
    source.stop()
    (path,) = (tmp_path / 'records').iterdir()
    with Bag(path) as bag:
        (message,) = bag.messages([t for t in bag.topics if t.name == '/rock_seg/rocks'])
    header = deserialize_message(message.data, PointCloud2).header
    assert header.frame_id == 'camera_optical_frame'
    assert header.stamp.sec * 10**9 + header.stamp.nanosec == message.stamp


def test_a_full_disk_ends_the_recording_but_not_the_view(drive, view, monkeypatch):
    source, feed = drive
    source.record()
    path = source.status()['recording']

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(source._recording, 'write_message', full)
    shown = Results(feed)
    problems = []
    feed.subscribe(lambda: problems.append(source.problem))
    source.start()
    source.want(OVERLAY)
    view.wait_for(lambda: len(shown.results) > 2, 'further results')
    assert source.status()['recording'] == ''
    assert any(p.startswith(f'{path}: ') and p.endswith('recording stopped') for p in problems)


def test_a_recording_folder_that_cannot_be_created_is_an_error(samples, tmp_path):
    (tmp_path / 'records').write_text('in the way')
    with pytest.raises(NotADirectoryError, match='records'):
        samples[0].record()
