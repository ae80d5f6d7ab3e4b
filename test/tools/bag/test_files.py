# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import yaml
from rosbags.interfaces import QosDurability
from rosbags.rosbag1 import Writer as Rosbag1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from rock_seg_ros.tools.bag.files import RELIABLE, TYPES, Bag, BagError, BagWriter
from rock_seg_ros.tools.bag.storage import zstd

STAMPS = (1_000, 2_000, 5_000)


@pytest.fixture
def serialized(make_compressed, scene):
    """Three messages in CDR."""
    messages = [make_compressed.message(scene, stamp) for stamp in STAMPS]
    return [bytes(TYPES.serialize_cdr(message, make_compressed.type)) for message in messages]


@pytest.fixture
def written(tmp_path, serialized, make_compressed):
    with BagWriter(tmp_path / 'bag') as writer:
        writer.add_topic('/b', make_compressed.type)
        writer.add_topic('/a', make_compressed.type)
        for stamp, data in zip(STAMPS, serialized, strict=True):
            writer.write('/b', stamp, data)
    return tmp_path / 'bag'


def test_messages_are_read_unchanged(written, serialized):
    with Bag(written) as bag:
        messages = list(bag.messages(bag.topics))
        assert bag.duration == pytest.approx(4e-6)
    assert [message.data for message in messages] == serialized
    assert [message.stamp for message in messages] == list(STAMPS)
    assert {message.topic for message in messages} == {'/b'}


def test_topics_have_type_count_and_qos(written, make_compressed):
    with Bag(written) as bag:
        found = [(topic.name, topic.type, topic.count, topic.qos) for topic in bag.topics]
    assert found == [
        ('/a', make_compressed.type, 0, RELIABLE),
        ('/b', make_compressed.type, 3, RELIABLE),
    ]


def test_a_topic_without_messages_is_empty(written):
    with Bag(written) as bag:
        assert list(bag.messages(bag.topics[:1])) == []
        assert list(bag.messages([])) == []


def test_an_existing_bag_is_not_overwritten(written):
    with pytest.raises(BagError, match='exists; choose'):
        BagWriter(written)


def test_an_incompletely_written_bag_is_rejected(tmp_path, make_compressed):
    def interrupted():
        with BagWriter(tmp_path / 'half') as writer:
            writer.add_topic('/a', make_compressed.type)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(BagError, match='half'):
        Bag(tmp_path / 'half')


def test_sqlite3_bags_are_read(tmp_path, serialized, make_compressed):
    path = tmp_path / 'bag'
    with Rosbag2Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection('/a', make_compressed.type, typestore=TYPES)
        writer.write(connection, 7, serialized[0])
    with Bag(path) as bag:
        (message,) = bag.messages(bag.topics)
        assert bag.topics[0].qos is None
    assert message.data == serialized[0]


@pytest.fixture
def rosbag1(tmp_path, scene):
    """A ROS 1 bag with a latched image topic and a type that differs in ROS 2."""
    store = get_typestore(Stores.ROS1_NOETIC)
    make = store.types
    time = make['builtin_interfaces/msg/Time'](12, 34)
    header = make['std_msgs/msg/Header'](5, time, 'camera')
    data = np.ascontiguousarray(scene).ravel()
    image = make['sensor_msgs/msg/Image'](header, 48, 64, 'rgb8', 0, 64 * 3, data)
    path = tmp_path / 'old.bag'
    with Rosbag1Writer(path) as writer:
        connection = writer.add_connection(
            '/image', 'sensor_msgs/msg/Image', typestore=store, latching=1
        )
        writer.write(connection, 9, store.serialize_ros1(image, 'sensor_msgs/msg/Image'))
        logs = writer.add_connection('/rosout', 'rosgraph_msgs/msg/Log', typestore=store)
        entry = make['rosgraph_msgs/msg/Log'](header, 1, 'n', 'm', 'f', 'x', 1, [])
        writer.write(logs, 10, store.serialize_ros1(entry, 'rosgraph_msgs/msg/Log'))
    return path


def test_ros_1_images_are_converted_to_ros_2_messages(rosbag1, scene):
    with Bag(rosbag1) as bag:
        image, log = bag.topics
        assert bag.has_ros2_form(image)
        assert not bag.has_ros2_form(log)
        (message,) = bag.messages([image])
    found = TYPES.deserialize_cdr(message.data, image.type)
    assert (found.header.stamp.sec, found.header.stamp.nanosec) == (12, 34)
    assert found.header.frame_id == 'camera'
    np.testing.assert_array_equal(found.data.reshape(48, 64, 3), scene)


def test_a_latched_ros_1_topic_is_transient_local(rosbag1):
    with Bag(rosbag1) as bag:
        assert bag.topics[0].qos.durability == QosDurability.TRANSIENT_LOCAL
        assert bag.topics[1].qos is None


def test_the_error_for_a_missing_bag_names_it(tmp_path):
    with pytest.raises(BagError, match='none: the bag does not exist'):
        Bag(tmp_path / 'none')


def test_a_pipe_is_not_opened_as_a_bag(tmp_path):
    os.mkfifo(tmp_path / 'pipe.mcap')
    with pytest.raises(BagError, match=r'pipe\.mcap: is not a regular file'):
        Bag(tmp_path / 'pipe.mcap')


def test_the_error_for_a_damaged_bag_names_it(written):
    (storage,) = written.glob('*.mcap')
    storage.write_bytes(storage.read_bytes()[:200])
    with pytest.raises(BagError, match=r'bag: \S'), Bag(written) as bag:
        list(bag.messages(bag.topics))


def test_the_error_for_a_file_that_is_not_a_bag_names_it(tmp_path):
    (tmp_path / 'x.bag').write_text('nonsense')
    with pytest.raises(BagError, match=r'x\.bag: '):
        Bag(tmp_path / 'x.bag')


@pytest.mark.parametrize('seed', range(20))
def test_a_bag_with_wrong_bytes_is_read_or_gives_an_error_of_one_line(written, seed):
    chance = np.random.default_rng(seed)
    (storage,) = written.glob('*.mcap')
    content = bytearray(storage.read_bytes())
    at = chance.integers(len(content) - 8)
    content[at : at + 8] = chance.bytes(8)
    storage.write_bytes(content)
    lines = error_of(written).splitlines()
    assert lines == [] or (len(lines) == 1 and lines[0].startswith(f'{written}: '))


def error_of(path):
    """Returns the error of a bag that cannot be read; '' if it can be read."""
    try:
        with Bag(path) as bag:
            list(bag.messages(bag.topics))
    except BagError as error:
        return str(error)
    return ''


def test_a_bag_with_fewer_messages_than_its_index_lists_is_damaged(written, monkeypatch):
    with Bag(written) as bag:
        monkeypatch.setattr(bag._reader, 'messages', lambda _: iter(()))
        with pytest.raises(BagError, match=r'bag: damaged \(3 messages are missing\)'):
            list(bag.messages(bag.topics))


def test_the_first_message_of_a_topic_is_read(written, serialized):
    with Bag(written) as bag:
        empty, full = bag.topics
        assert bag.first(empty) is None
        assert bag.first(full).data == serialized[0]


def test_a_topic_whose_type_is_defined_only_in_the_bag_is_copied(tmp_path):
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg('uint8 hardness\n', 'own_msgs/msg/Rock'))
    with Rosbag2Writer(tmp_path / 'in', version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection('/rock', 'own_msgs/msg/Rock', typestore=store)
        writer.write(connection, 7, b'\0\1\0\0\5')
    with Bag(tmp_path / 'in') as bag, BagWriter(tmp_path / 'out') as writer:
        (topic,) = bag.topics
        writer.add_topic_of(bag, topic)
        for message in bag.messages(bag.topics):
            writer.write(message.topic, message.stamp, message.data)
    with Bag(tmp_path / 'out') as bag:
        (message,) = bag.messages(bag.topics)
        assert (message.stamp, message.data) == (7, b'\0\1\0\0\5')
        assert bag.topics[0].type == 'own_msgs/msg/Rock'


METADATA = 'metadata.yaml'


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
    """Folder of rosbag2s that are written once and not changed."""
    return tmp_path_factory.mktemp('originals')


@pytest.fixture(params=[StoragePlugin.MCAP, StoragePlugin.SQLITE3], ids=['mcap', 'sqlite3'])
def stored(request, originals, tmp_path, serialized, make_compressed):
    """A rosbag2 with three messages."""
    original, path = originals / request.param.name / 'stored', tmp_path / 'stored'
    if not original.exists():
        with Rosbag2Writer(original, version=9, storage_plugin=request.param) as writer:
            topic = writer.add_connection('/a', make_compressed.type, typestore=TYPES)
            for stamp, data in zip(STAMPS, serialized, strict=True):
                writer.write(topic, stamp, data)
    shutil.copytree(original, path)
    return path


def storage_of(path):
    (storage,) = (each for each in path.iterdir() if each.name != METADATA)
    return storage


def stamps_of(path):
    with Bag(path) as bag:
        return [message.stamp for message in bag.messages(bag.topics)]


def test_a_bag_without_metadata_is_read(stored):
    (stored / METADATA).unlink()
    assert stamps_of(stored) == list(STAMPS)
    assert stamps_of(storage_of(stored)) == list(STAMPS)


@pytest.mark.parametrize(
    ('written', 'edited'),
    [
        ('message_count: 3', 'message_count: 5'),
        ('message_count: 3', 'message_count: 1'),
        ('offered_qos_profiles: []', 'offered_qos_profiles: ""'),
        ('offered_qos_profiles: []', 'offered_qos_profiles: [{depth: 7}]'),
        ('name: /a', 'name: /other'),
        ('rosbag2_bagfile_information', 'nonsense'),
        ('version: 9', 'version: 99'),
        ('stored.', 'former_name.'),
        ('message_count: 3', '{ : ['),
    ],
)
def test_metadata_that_contradicts_the_storage_files_is_ignored(stored, written, edited):
    metadata = stored / METADATA
    text = metadata.read_text()
    assert written in text
    metadata.write_text(text.replace(written, edited))
    assert stamps_of(stored) == list(STAMPS)
    with Bag(stored) as bag:
        assert [(topic.name, topic.count) for topic in bag.topics] == [('/a', 3)]


def test_a_compressed_storage_file_is_read_alone_and_in_its_folder(stored):
    storage = storage_of(stored)
    (stored / METADATA).unlink()
    compressed = storage.with_name(f'{storage.name}.zstd')
    compressed.write_bytes(zstd.compress(storage.read_bytes()))
    assert stamps_of(stored) == list(STAMPS), 'only the decompressed file must be read'
    storage.unlink()
    assert stamps_of(compressed) == stamps_of(stored) == list(STAMPS)


@pytest.mark.parametrize('mode', [CompressionMode.FILE, CompressionMode.MESSAGE])
@pytest.mark.parametrize('metadata', [True, False])
def test_compressed_bags_are_read_with_and_without_metadata(
    tmp_path, serialized, make_compressed, mode, metadata
):
    path = tmp_path / 'compressed'
    writer = Rosbag2Writer(path, version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        topic = writer.add_connection('/a', make_compressed.type, typestore=TYPES)
        writer.write(topic, 7, serialized[0])
    if not metadata:
        (path / METADATA).unlink()
    with Bag(path) as bag:
        (message,) = bag.messages(bag.topics)
    assert message.data == serialized[0]


def test_the_error_names_an_unsupported_compression(stored):
    metadata = stored / METADATA
    about = yaml.safe_load(metadata.read_text())
    about['rosbag2_bagfile_information']['compression_format'] = 'lz4'
    metadata.write_text(yaml.safe_dump(about))
    with pytest.raises(
        BagError, match='stored: compression lz4 is not supported; use zstd or none'
    ):
        Bag(stored)


def test_a_folder_without_storage_files_is_not_a_bag(tmp_path):
    (tmp_path / '._a.mcap').write_bytes(b'')
    with pytest.raises(BagError, match=r'not a bag, because it has no \.mcap or \.db3 file'):
        Bag(tmp_path)


@pytest.fixture
def split(originals, tmp_path, serialized, make_compressed):
    """A recording in three files, without metadata."""
    folder = tmp_path / 'split'
    folder.mkdir()
    for number, (stamp, data) in enumerate(zip(STAMPS, serialized, strict=True)):
        part = originals / f'part{number}'
        if not part.exists():
            with BagWriter(part) as writer:
                writer.add_topic('/a', make_compressed.type)
                writer.write('/a', stamp, data)
        shutil.copy(storage_of(part), folder / f'split_{number}.mcap')
    return folder


def test_a_bag_in_several_files_is_read_in_order(split):
    assert stamps_of(split) == list(STAMPS)


def test_the_error_names_a_missing_storage_file(split):
    names = [f'split_{number}.mcap' for number in range(4)]
    about = {'rosbag2_bagfile_information': {'relative_file_paths': names}}
    (split / METADATA).write_text(yaml.safe_dump(about))
    with pytest.raises(BagError, match=r'split: split_3\.mcap is missing, but metadata\.yaml'):
        Bag(split)


def test_the_files_before_a_truncated_one_are_read_and_then_the_error_is_raised(split):
    last = split / 'split_2.mcap'
    last.write_bytes(last.read_bytes()[:300])
    with Bag(split) as bag:
        messages = bag.messages(bag.topics)
        assert [next(messages).stamp, next(messages).stamp] == list(STAMPS[:2])
        with pytest.raises(
            BagError, match=r'split: split_2\.mcap: the end of the recording is missing'
        ):
            next(messages)


@pytest.fixture
def sqlite(tmp_path, serialized, make_compressed):
    """The storage file of a rosbag2 with the plugin sqlite3, and with 30 messages."""
    writer = Rosbag2Writer(tmp_path / 's', version=9, storage_plugin=StoragePlugin.SQLITE3)
    with writer:
        topic = writer.add_connection('/a', make_compressed.type, typestore=TYPES)
        for stamp in range(1, 31):
            writer.write(topic, stamp, serialized[0] + os.urandom(20000))
    return tmp_path / 's/s.db3'


def stamps_before_damage(path):
    """Returns the stamps of the messages and the damage."""
    stamps = []
    try:
        with Bag(path) as bag:
            stamps.extend(message.stamp for message in bag.messages(bag.topics))
    except BagError as error:
        return stamps, str(error)
    return stamps, ''


def test_messages_in_the_journal_of_a_killed_recorder_are_read(sqlite, tmp_path):
    killed = tmp_path / 'killed'
    killed.mkdir()
    with closing(sqlite3.connect(sqlite)) as database:
        database.execute('PRAGMA journal_mode = WAL')
        database.execute(
            'INSERT INTO messages(topic_id, timestamp, data)'
            ' SELECT topic_id, 31, data FROM messages LIMIT 1'
        )
        database.commit()
        for file in (sqlite, sqlite.with_name('s.db3-wal')):
            shutil.copy(file, killed)
    before = {file.name: file.read_bytes() for file in killed.iterdir()}
    for path in (killed, killed / 's.db3'):
        assert stamps_before_damage(path) == (list(range(1, 32)), '')
    assert {file.name: file.read_bytes() for file in killed.iterdir()} == before


def test_the_messages_before_the_damage_of_a_truncated_sqlite3_file_are_read(sqlite):
    content = sqlite.read_bytes()
    sqlite.write_bytes(content[: len(content) // 2])
    stamps, damage = stamps_before_damage(sqlite)
    assert 10 <= len(stamps) < 20
    assert stamps == list(range(1, len(stamps) + 1))
    assert damage.startswith(f'{sqlite}: ')
    assert '\n' not in damage


@pytest.mark.parametrize('kind', ['truncated', 'wrong bytes'])
def test_the_messages_before_the_damage_of_a_compressed_file_are_read(sqlite, kind):
    compressed = sqlite.with_name('s.db3.zstd')
    content = zstd.compress(sqlite.read_bytes())
    end = bytes(len(content) // 2) if kind == 'wrong bytes' else b''
    compressed.write_bytes(content[: len(content) // 2] + end)
    stamps, damage = stamps_before_damage(compressed)
    assert 5 <= len(stamps) < 20
    assert stamps == list(range(1, len(stamps) + 1))
    assert damage.startswith(f'{compressed}: ')
    assert '\n' not in damage


@pytest.mark.parametrize('name', ['a.mcap', 'a.db3', 'a.mcap.zstd', 'a.bag'])
def test_the_error_names_an_empty_file(tmp_path, name):
    (tmp_path / name).write_bytes(b'')
    with pytest.raises(BagError, match=rf'^\S*/{name}: the file is empty$'):
        Bag(tmp_path / name)


def test_the_error_names_the_suffixes_of_bags(tmp_path, rosbag1):
    metadata = tmp_path / METADATA
    metadata.write_text('')
    with pytest.raises(BagError, match=r'metadata\.yaml: must be a rosbag2 folder, or a file that'):
        Bag(metadata)
    active = tmp_path / 'a.bag.active'
    active.write_bytes(b'#ROSBAG V2.0\n')
    with pytest.raises(BagError, match=r'active: the recording was not closed; run rosbag reindex'):
        Bag(active)
    cut = tmp_path / 'cut.bag'
    cut.write_bytes(rosbag1.read_bytes()[:-200])
    with pytest.raises(BagError, match=r'cut\.bag: Bag index looks damaged.*; run rosbag reindex'):
        Bag(cut)
