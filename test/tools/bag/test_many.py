# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil

import cv2
import pytest
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import Image

from rock_seg_ros.tools.bag import command
from rock_seg_ros.tools.bag.files import Bag, BagWriter
from rock_seg_ros.tools.jobs import DIED, Outcome
from rock_seg_ros.tools.main import main


@pytest.fixture
def bags(tmp_path, scene, make_compressed):
    """Two bags of two images each, and a file that is no bag."""
    for name in ('monday', 'tuesday'):
        with BagWriter(tmp_path / name) as writer:
            writer.add_topic('/camera/image_raw/compressed', make_compressed.type)
            for stamp in (1_000_000_000, 2_000_000_000):
                message = make_compressed.message(scene, stamp)
                writer.write_message('/camera/image_raw/compressed', stamp, message)
    (tmp_path / 'broken.mcap').write_bytes(b'no bag')
    return tmp_path / 'monday', tmp_path / 'tuesday'


@pytest.fixture
def find_rocks(monkeypatch, segmenter, tmp_path):
    """Runs `rock_seg bag`; results go to `out`. `loaded` counts the networks."""
    loaded = []

    def load(_):
        loaded.append(segmenter)
        return segmenter

    def run(*given):
        return main(['bag', *map(str, given), '-o', str(tmp_path / 'out')])

    monkeypatch.setattr(command, 'segmenter_of', load)
    run.loaded = loaded
    return run


def masks(bag):
    with Bag(bag) as opened:
        topics = [topic for topic in opened.topics if topic.name == '/rock_seg/mask']
        found = [deserialize_message(message.data, Image) for message in opened.messages(topics)]
    return [(image.header.stamp.sec, bytes(image.data)) for image in found]


def told(capsys):
    return capsys.readouterr().err.splitlines()


def test_several_bags_get_one_bag_each_with_one_network(find_rocks, bags, tmp_path, capsys):
    out = tmp_path / 'out'
    assert find_rocks(*bags) == 0
    assert sorted(path.name for path in out.iterdir()) == ['monday', 'tuesday']
    assert len(find_rocks.loaded) == 1
    assert told(capsys) == [
        f'rock_seg bag: {bag}: {out / bag.name}: 2 images with results' for bag in bags
    ]
    results = masks(out / 'monday')
    assert len(results) == 2
    shutil.rmtree(out)
    assert find_rocks(bags[0]) == 0, 'of a single bag, OUT is the new bag'
    assert masks(out) == results


def test_a_bag_that_fails_is_reported_and_the_others_are_processed(
    find_rocks, bags, tmp_path, capsys
):
    assert find_rocks(bags[0], tmp_path / 'broken.mcap', tmp_path / 'none', bags[1]) == 1
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['monday', 'tuesday']
    lines = told(capsys)
    assert len([line for line in lines if f'{tmp_path}/broken.mcap: ' in line]) == 1
    assert len([line for line in lines if f'{tmp_path}/none: ' in line]) == 1


def test_bags_that_are_finished_are_not_processed_again(find_rocks, bags, tmp_path, capsys):
    assert find_rocks(*bags) == 0
    whole = masks(tmp_path / 'out/tuesday')
    shutil.rmtree(tmp_path / 'out/tuesday')
    kept = (tmp_path / 'out/monday/metadata.yaml').stat().st_mtime_ns
    told(capsys)
    assert find_rocks(*bags, '--resume') == 0
    assert told(capsys)[0] == 'rock_seg bag: 1 of 2 bags are finished already'
    assert (tmp_path / 'out/monday/metadata.yaml').stat().st_mtime_ns == kept
    assert masks(tmp_path / 'out/tuesday') == whole


@pytest.mark.parametrize(
    ('setting', 'difference'),
    [
        (('--threshold', '0.7'), 'threshold 0.5, not 0.7'),
        (('--camera-height', '1.5'), 'camera_height 0.0, not 1.5'),
    ],
)
def test_bags_of_other_settings_are_not_continued(
    find_rocks, bags, tmp_path, capsys, setting, difference
):
    assert find_rocks(bags[0]) == 0
    assert find_rocks(bags[0], '--resume', *setting) == 2
    assert f'{tmp_path}/out: has results that were made with {difference};' in told(capsys)[-1]


def test_an_output_that_exists_is_named_before_any_work(find_rocks, bags, tmp_path, capsys):
    (tmp_path / 'out/tuesday').mkdir(parents=True)
    for more in ([], ['--resume']):
        assert find_rocks(*bags, *more) == 1
        assert told(capsys) == [
            f'rock_seg bag: {tmp_path}/out/tuesday: exists; choose another output or delete it'
        ]
    assert not find_rocks.loaded


def test_two_bags_of_one_name_are_refused(find_rocks, bags, tmp_path, capsys):
    (tmp_path / 'other').mkdir()
    other = tmp_path / 'other/monday.mcap'
    shutil.copy(bags[0] / 'monday.mcap', other)
    assert find_rocks(bags[0], other) == 2
    assert told(capsys) == [
        f'rock_seg bag: {other}: its results would overwrite those of {bags[0]}'
    ]


def test_each_damaged_bag_is_named_on_its_own_line(find_rocks, bags, tmp_path, capsys):
    for bag in bags:
        (bag / 'metadata.yaml').unlink()
        (storage,) = bag.iterdir()
        storage.write_bytes(storage.read_bytes()[:-400])
    assert find_rocks(bags[0], tmp_path / 'broken.mcap', bags[1]) == 1
    lines = told(capsys)
    for bag in bags:
        (line,) = (line for line in lines if line.startswith(f'rock_seg bag: {bag}: {bag.name}'))
        assert line == (
            f'rock_seg bag: {bag}: {bag.name}.mcap: the end of the recording is missing;'
            ' the results before the damage are kept'
        )
    assert len([line for line in lines if 'broken.mcap: ' in line]) == 1
    assert len(masks(tmp_path / 'out/monday')) == 2


def test_images_that_are_rejected_are_told_with_their_bag(
    find_rocks, bags, tmp_path, scene, capsys
):
    cv2.imwrite(str(tmp_path / 'keep.png'), scene[:8, :8, 0])
    assert find_rocks(*bags, '--ignore-mask', tmp_path / 'keep.png') == 1
    lines = told(capsys)
    for bag in bags:
        assert any(line.startswith(f'rock_seg bag: {bag}: image 1 (1.000 s): ') for line in lines)


def test_a_bag_whose_worker_dies_is_listed(find_rocks, bags, monkeypatch, capsys):
    monkeypatch.setattr(
        'rock_seg_ros.tools.bag.many.run_tasks',
        lambda _, tasks, __: (Outcome(path, DIED) for (path,) in tasks),
    )
    assert find_rocks(*bags, '--jobs', '2') == 1
    assert told(capsys) == [f'rock_seg bag: {bag}: {DIED}' for bag in bags]


def test_a_damaged_bag_that_is_finished_is_reported_again(find_rocks, bags, tmp_path, capsys):
    (storage,) = bags[0].glob('*.mcap')
    storage.write_bytes(storage.read_bytes()[:-400])
    assert find_rocks(*bags) == 1
    damage = [line for line in told(capsys) if 'the end of the recording is missing' in line]
    assert len(damage) == 1
    for _ in range(2):
        assert find_rocks(*bags, '--resume') == 1
        lines = told(capsys)
        assert lines[0] == 'rock_seg bag: 2 of 2 bags are finished already'
        assert lines[1] == damage[0]


def test_a_finished_bag_with_rejected_images_is_reported_again(
    find_rocks, tmp_path, make_compressed, scene, capsys
):
    bag = tmp_path / 'monday'
    with BagWriter(bag) as writer:
        writer.add_topic('/camera/image_raw/compressed', make_compressed.type)
        for stamp in (1_000_000_000, 2_000_000_000):
            message = make_compressed.message(scene, stamp)
            if stamp == 2_000_000_000:
                message.data = message.data[:100]
            writer.write_message('/camera/image_raw/compressed', stamp, message)
    assert find_rocks(bag) == 1
    told(capsys)
    assert find_rocks(bag, '--resume') == 1
    assert told(capsys)[1] == (
        f'rock_seg bag: {bag}: 1 images with results; rejected: not decodable (1)'
    )


def test_a_bag_that_changed_after_its_results_is_not_finished(find_rocks, bags, tmp_path, capsys):
    assert find_rocks(*bags) == 0
    told(capsys)
    (storage,) = bags[0].glob('*.mcap')
    later = (tmp_path / 'out/monday/metadata.yaml').stat().st_mtime + 10
    os.utime(storage, (later, later))
    assert find_rocks(*bags, '--resume') == 1
    assert told(capsys) == [
        f'rock_seg bag: {tmp_path}/out/monday: is older than {bags[0]};'
        ' delete it to process the bag again'
    ]
