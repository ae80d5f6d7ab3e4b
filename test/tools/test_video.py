# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from fractions import Fraction

import av
import numpy as np
import pandas as pd
import pytest

from rock_seg_ros.tools import video
from rock_seg_ros.tools.main import main
from rock_seg_ros.tools.network_options import BITS_HINT
from rock_seg_ros.tools.video import OverlayVideo, Video, VideoError
from training.datasets import DatasetConfig, find_samples

TIMES = (0, 1, 2, 5, 6)  # fifths of a second, with a gap


@pytest.fixture
def find_rocks(monkeypatch, segmenter):
    """Runs `rock_seg video` with the test network."""
    monkeypatch.setattr(video, 'segmenter_of', lambda _: segmenter)
    return lambda *given: main(['video', *map(str, given)])


@pytest.fixture
def filmed(tmp_path, scene):
    """A lossless video of the scene with an odd size, 63×47."""
    path = tmp_path / 'in.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264rgb', rate=Fraction(5), options={'qp': '0'})
        stream.width, stream.height, stream.pix_fmt = 63, 47, 'rgb24'
        for time in TIMES:
            frame = av.VideoFrame.from_ndarray(scene[:47, :63].copy(), format='rgb24')
            frame.pts, frame.time_base = time, Fraction(1, 5)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_the_overlay_video_can_be_played_in_browsers(find_rocks, filmed, tmp_path):
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4') == 0
    with av.open(str(tmp_path / 'out.mp4')) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ('h264', 'yuv420p')
        assert len(container.streams) == 1
    content = (tmp_path / 'out.mp4').read_bytes()
    assert 0 < content.find(b'moov') < content.find(b'mdat')


def test_the_overlay_video_keeps_the_times_and_has_an_even_size(find_rocks, filmed, tmp_path):
    find_rocks(filmed, '-o', tmp_path / 'out.mp4')
    with Video(tmp_path / 'out.mp4') as drawn:
        frames = list(drawn.frames())
        times = [frame.stamp * drawn.time_base for frame in frames]
    assert times == [Fraction(time, 5) for time in TIMES]
    assert frames[0].image.shape == (48, 64, 3)
    with av.open(str(filmed)) as before, av.open(str(tmp_path / 'out.mp4')) as after:
        assert after.duration == before.duration == 1_400_000


@pytest.fixture
def recorded(tmp_path, scene):
    """Writes MPEG-TS of 10 frames at 5 Hz whose clock starts at the given times, s."""

    def write(*starts):
        path = tmp_path / 'in.ts'
        with path.open('wb') as whole:
            for start in starts:
                with av.open(str(tmp_path / 'part.ts'), 'w') as container:
                    stream = container.add_stream('mpeg2video', rate=5)
                    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
                    for time in range(10):
                        frame = av.VideoFrame.from_ndarray(scene[:48, :64].copy(), format='rgb24')
                        frame.pts, frame.time_base = 5 * start + time, Fraction(1, 5)
                        container.mux(stream.encode(frame))
                    container.mux(stream.encode(None))
                whole.write((tmp_path / 'part.ts').read_bytes())
        return path

    return write


@pytest.mark.parametrize('starts', [(3600,), (3600, 0), (0, 0)])
def test_the_times_of_a_video_start_at_0_and_go_on_where_its_clock_starts_again(recorded, starts):
    with Video(recorded(*starts)) as video:
        times = [float(frame.stamp * video.time_base) for frame in video.frames()]
        assert not video.problem
    np.testing.assert_allclose(times, np.arange(10 * len(starts)) / 5, atol=1e-4)


def test_the_record_has_the_rocks_and_the_time_of_every_frame(find_rocks, filmed, tmp_path):
    find_rocks(filmed, '-o', tmp_path / 'out.mp4')
    record = json.loads((tmp_path / 'out.json').read_text())
    assert record['video'] == 'in.mp4'
    assert [frame['time'] for frame in record['frames']] == [time / 5 for time in TIMES]
    for frame in record['frames']:
        assert (frame['image'], frame['width'], frame['height']) == ('in.mp4', 63, 47)
        assert [rock['area'] for rock in frame['rocks']] == [200, 120]


def test_the_frames_of_a_video_are_read_without_loss(filmed, scene):
    with Video(filmed) as opened:
        for frame in opened.frames():
            np.testing.assert_array_equal(frame.image, scene[:47, :63])


@pytest.mark.parametrize(('rotation', 'turns'), [(0, 0), (90, 1), (-90, 3), (180, 2), (-180, 2)])
def test_a_rotated_frame_is_turned_upright(rotation, turns):
    assert video._turns(float(rotation)) == turns


@pytest.fixture
def sound(tmp_path):
    with av.open(str(tmp_path / 'sound.wav'), 'w') as container:
        stream = container.add_stream('pcm_s16le', rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), 's16', 'mono')
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return tmp_path / 'sound.wav'


def test_a_file_without_a_video_stream_is_rejected(sound):
    with pytest.raises(VideoError, match=r'sound\.wav: has no video stream'):
        Video(sound)


def test_a_file_that_is_no_video_is_an_error_of_one_line(find_rocks, tmp_path, capsys):
    (tmp_path / 'in.mp4').write_text('no video')
    assert find_rocks(tmp_path / 'in.mp4', '-o', tmp_path / 'out.mp4') == 1
    error = capsys.readouterr().err
    assert error.startswith(f'rock_seg video: {tmp_path / "in.mp4"}: not a video (')
    assert error.count('\n') == 1


def test_a_missing_video_is_an_error_of_one_line(find_rocks, tmp_path, capsys):
    assert find_rocks('no.mp4', '-o', tmp_path / 'out.mp4') == 1
    assert capsys.readouterr().err == 'rock_seg video: no.mp4: No such file or directory\n'


def test_a_pipe_is_not_opened_as_a_video(find_rocks, tmp_path, capsys):
    os.mkfifo(tmp_path / 'pipe.mp4')
    assert find_rocks(tmp_path / 'pipe.mp4', '-o', tmp_path / 'out.mp4') == 1
    assert 'pipe.mp4: is not a regular file' in capsys.readouterr().err


@pytest.mark.parametrize('output', ['in.mp4', 'out.avi'])
def test_an_output_that_is_the_input_or_no_mp4_is_a_usage_error(find_rocks, filmed, output, capsys):
    assert find_rocks(filmed, '-o', filmed.with_name(output)) == 2
    assert output in capsys.readouterr().err


def test_ctrl_c_leaves_no_incomplete_video(find_rocks, filmed, tmp_path, monkeypatch):
    def interrupt(self, frame):
        write(self, frame)
        raise KeyboardInterrupt

    write = OverlayVideo.write
    monkeypatch.setattr(OverlayVideo, 'write', interrupt)
    assert find_rocks(filmed, '-o', tmp_path / 'new' / 'out.mp4') == 130
    assert list((tmp_path / 'new').iterdir()) == []


def test_a_rock_keeps_its_id_when_a_larger_one_comes_into_view(find_rocks, tmp_path):
    rng = np.random.default_rng(3)
    wide = np.repeat(np.kron(rng.integers(20, 100, (15, 40)), np.ones((8, 8)))[..., None], 3, 2)
    wide[30:50, 40:70] = wide[60:110, 175:240] = 220
    path = tmp_path / 'in.mp4'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264rgb', rate=Fraction(5), options={'qp': '0'})
        stream.width, stream.height, stream.pix_fmt = 160, 120, 'rgb24'
        for number in range(5):
            seen = np.ascontiguousarray(wide[:, 8 * number : 8 * number + 160], np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(seen, format='rgb24')))
        container.mux(stream.encode(None))
    seen = {}
    for option in ('--track', '--no-track'):
        assert find_rocks(path, '-o', tmp_path / 'out.mp4', option) == 0
        frames = json.loads((tmp_path / 'out.json').read_text())['frames']
        small = [next(r for r in f['rocks'] if r['area'] == 600) for f in frames]
        assert len(frames[-1]['rocks']) == 2
        seen[option] = (small[0]['id'], small[-1]['id'])
    assert seen == {'--track': (1, 1), '--no-track': (1, 2)}


def messages(capsys):
    lines = capsys.readouterr().err.splitlines()
    return [line.rpartition('rock_seg video: ')[2] for line in lines if 'rock_seg video' in line]


def film(path, image, codec, pixels, count=20):
    options = {'movflags': '+faststart'} if path.suffix == '.mp4' else {}  # the index at the start
    with av.open(str(path), 'w', options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width = image.shape[:2]
        stream.bit_rate = 2_000_000  # more than headers and index
        stream.pix_fmt = pixels
        for number in range(count):
            rng = np.random.default_rng(number).integers(0, 26, image.shape, np.uint8)
            frame = av.VideoFrame.from_ndarray(image + rng, format='rgb24')
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ('name', 'codec', 'pixels'),
    [
        ('in.avi', 'mpeg4', 'yuv420p'),
        ('in.avi', 'mjpeg', 'yuvj420p'),
        ('in.avi', 'rawvideo', 'bgr24'),
        ('in.mkv', 'libx264', 'yuv420p'),
        ('in.mp4', 'libx264', 'yuv420p'),
    ],
)
def test_a_truncated_video_keeps_what_was_read_and_is_reported(
    find_rocks, scene, tmp_path, capsys, name, codec, pixels
):
    path = tmp_path / name
    film(path, scene, codec, pixels)
    whole = path.read_bytes()
    assert find_rocks(path, '-o', tmp_path / 'out.mp4') == 0
    assert messages(capsys) == []
    path.write_bytes(whole[: 6 * len(whole) // 10])
    assert find_rocks(path, '-o', tmp_path / 'out.mp4') == 1
    (line,) = messages(capsys)
    assert line.startswith(f'{path}: truncated after ')
    frames = json.loads((tmp_path / 'out.json').read_text())['frames']
    assert 5 <= len(frames) < 20
    with Video(tmp_path / 'out.mp4') as drawn:
        assert len(list(drawn.frames())) == len(frames)


def test_a_frame_that_does_not_decode_is_skipped_and_reported(find_rocks, scene, tmp_path, capsys):
    film(tmp_path / 'in.avi', scene, 'mjpeg', 'yuvj420p')
    content = bytearray((tmp_path / 'in.avi').read_bytes())
    at = content.find(b'\xff\xd8', content.find(b'\xff\xd8', content.find(b'movi')) + 2)
    content[at : at + 600] = bytes(600)
    (tmp_path / 'in.avi').write_bytes(content)
    assert find_rocks(tmp_path / 'in.avi', '-o', tmp_path / 'out.mp4') == 1
    (line,) = messages(capsys)
    assert '1 frame could not be decoded' in line
    assert len(json.loads((tmp_path / 'out.json').read_text())['frames']) == 19


@pytest.mark.parametrize('suffix', ['.mp4', '.json'])
def test_an_output_that_is_a_folder_is_named_before_any_work(
    find_rocks, filmed, tmp_path, capsys, suffix
):
    (tmp_path / f'out{suffix}').mkdir()
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4') == 2
    (line,) = messages(capsys)
    assert f'{tmp_path}/out{suffix}: exists and ' in line
    assert not (tmp_path / 'out.mp4').is_file()


def test_a_json_file_that_is_no_record_is_not_overwritten(find_rocks, filmed, tmp_path, capsys):
    (tmp_path / 'notes.json').write_text('{"notes": []}')
    assert find_rocks(filmed, '-o', tmp_path / 'notes.mp4') == 2
    (line,) = messages(capsys)
    assert f'{tmp_path}/notes.json' in line
    assert (tmp_path / 'notes.json').read_text() == '{"notes": []}'
    assert not (tmp_path / 'notes.mp4').exists()
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4') == 0
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4') == 0, 'own results may be overwritten'


def test_a_video_larger_than_max_pixels_is_rejected_before_it_is_decoded(
    find_rocks, filmed, tmp_path
):
    with pytest.raises(VideoError, match='63×47; max_pixels is 2000'):
        Video(filmed, max_pixels=2000)
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4', '--max-pixels', 2000) == 1


def test_values_of_fewer_than_16_bits_are_scaled_and_reported_once(
    find_rocks, scene, tmp_path, capsys
):
    path = tmp_path / 'in.mkv'
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('ffv1', rate=Fraction(5))
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'gray16le'
        for factor in (16, 4):
            deep = scene[..., 0].astype(np.uint16) * factor
            frame = av.VideoFrame.from_ndarray(deep, format='gray16le')
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert find_rocks(path, '-o', tmp_path / 'out.mp4') == 0
    frames = json.loads((tmp_path / 'out.json').read_text())['frames']
    assert [len(frame['rocks']) for frame in frames] == [2, 0]
    (line,) = messages(capsys)
    assert line == (f'{path}: 16-bit values up to 3680 are scaled as 12 bits; {BITS_HINT}')


def test_a_table_of_a_video_has_the_frames_and_their_times(find_rocks, filmed, tmp_path):
    table = tmp_path / 'rocks.csv'
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4', '--table', table, '--mm-per-px', 2) == 0
    rows = pd.read_csv(table)
    assert set(rows['image']) == {'in.mp4'}
    assert rows['frame'].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert rows['time_s'].tolist()[::2] == [time / 5 for time in TIMES]
    assert rows['id'].tolist() == [1, 2] * 5, 'tracked'
    assert rows['diameter_mm'][0] == pytest.approx(31.9, abs=0.1)


def test_the_record_of_a_video_names_the_weights_and_the_report_shows_its_frames(
    find_rocks, filmed, tmp_path
):
    report = tmp_path / 'report.html'
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4', '--report', report) == 0
    made_by = json.loads((tmp_path / 'out.json').read_text())['made_by']
    assert made_by['weights'] == 'light.safetensors'
    assert made_by['weights_sha256'] in report.read_text()
    assert report.read_text().count('data:image/jpeg') == 5


def test_exported_frames_of_a_video_are_read_for_training(find_rocks, filmed, tmp_path):
    labels, coco = tmp_path / 'labels', tmp_path / 'rocks.json'
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4', '--labelme', labels, '--coco', coco) == 0
    for path, kind in ((labels, 'labelme'), (coco, 'coco')):
        samples = find_samples(DatasetConfig(str(path), kind), 'all', ('background', 'rock'))
        assert [sample.image.name for sample in samples] == [
            f'{filmed.name}_{number:06d}.jpg' for number in range(5)
        ]
        assert [sample.faults for sample in samples] == [()] * 5
        assert samples[0].read().classes.sum() == 320
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4', '--labelme', labels) == 2


def test_frames_without_the_scale_tag_are_reported_in_one_line(
    find_rocks, filmed, tmp_path, capsys
):
    assert find_rocks(filmed, '-o', tmp_path / 'out.mp4', '--scale-tag', '4x4_50:30') == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if 'rock_seg video' in line]
    (line,) = (line.rpartition('rock_seg video: ')[2] for line in lines)
    assert line == (
        '5 of 5 frames have no scale; the first one:'
        ' no tag of the family 4x4_50 found; sizes are in px only'
    )
    assert (tmp_path / 'out.mp4').exists()
