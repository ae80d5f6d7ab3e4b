# SPDX-License-Identifier: Apache-2.0
"""Of a bag whose recorder was killed every message is read that is whole."""

from __future__ import annotations

import os
import struct
import tracemalloc
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from rosbags.interfaces import QosDurability

from rock_seg_ros.tools.bag import files as bag_files
from rock_seg_ros.tools.bag.files import RELIABLE, Bag, BagError, BagWriter
from rock_seg_ros.tools.bag.recovery import HEAD, unpack_begun
from rock_seg_ros.tools.bag.storage import zstd

KIND = 'std_msgs/msg/String'
STAMPS = (1_000, 3_000, 2_000, 4_000, 6_000, 5_000)  # two threads of a recorder
MESSAGE_HEAD = 9 + 22  # bytes
LATCHED = (
    '- history: 1\n  depth: 7\n  reliability: 1\n  durability: 1\n'
    '  deadline: {sec: 0, nsec: 0}\n  lifespan: {sec: 0, nsec: 0}\n'
    '  liveliness: 1\n  liveliness_lease_duration: {sec: 0, nsec: 0}\n'
    '  avoid_ros_namespace_conventions: false\n'
)


def text(number: int) -> bytes:
    """A String in CDR, long enough that zstd has blocks to tell apart."""
    noise = np.random.default_rng(number).integers(32, 127, 400, dtype=np.uint8).tobytes()
    return b'\0\1\0\0' + struct.pack('<I', len(noise) + 1) + noise + b'\0'


@pytest.fixture
def record(tmp_path):
    """Writes a bag as a recorder would; returns its only file."""

    def write(chunked=True, compression=CompressionType.NONE, chunk_size=900):
        folder = tmp_path / 'recording'
        folder.mkdir()
        path = folder / 'recording_0.mcap'
        with path.open('wb') as file:
            writer = Writer(file, chunk_size, compression, use_chunking=chunked)
            writer.start('ros2', 'a recorder')
            schema = writer.register_schema(KIND, 'ros2msg', b'string data\n')
            for topic in ('/a', '/b'):
                channel = writer.register_channel(
                    topic, 'cdr', schema, {'offered_qos_profiles': LATCHED}
                )
            for number, stamp in enumerate(STAMPS):
                writer.add_message(channel, stamp, text(number), stamp - 500, number)
            writer.finish()
        return path

    return write


def read(path):
    """The stamps of the messages and what is told of damage; checks what each message holds."""
    stamps, told = [], ''
    try:
        with Bag(path) as bag:
            for message in bag.messages(bag.topics):
                assert message.data == text(STAMPS.index(message.stamp))
                stamps.append(message.stamp)
    except BagError as error:
        told = str(error)
    return stamps, told


@pytest.mark.parametrize('chunked', [True, False])
def test_wherever_a_file_is_cut_every_message_before_is_read_and_the_damage_is_one_line(
    record, chunked
):
    path = record(chunked)
    content = path.read_bytes()
    ends = [content.index(text(number)) + len(text(number)) for number in range(len(STAMPS))]
    for cut in range(0, len(content), 23):
        path.write_bytes(content[:cut])
        stamps, told = read(path)
        assert stamps == sorted(STAMPS[: sum(end <= cut for end in ends)]), cut
        assert told == f'{path}: the end of the recording is missing', cut


@pytest.mark.parametrize('compression', [CompressionType.ZSTD, CompressionType.LZ4])
@pytest.mark.parametrize('chunk_size', [900, 10_000])
def test_of_a_compressed_chunk_what_can_be_unpacked_is_read(record, compression, chunk_size):
    path = record(compression=compression, chunk_size=chunk_size)
    content = path.read_bytes()
    most = 0
    for cut in range(0, len(content), 150):
        path.write_bytes(content[:cut])
        stamps, told = read(path)
        assert most <= len(stamps)
        most = len(stamps)
        assert stamps == sorted(STAMPS[:most])
        assert told.endswith('the end of the recording is missing')
    assert most == len(STAMPS)


def test_a_chunk_of_many_blocks_is_unpacked_up_to_the_last_whole_one():
    data = np.random.default_rng(0).bytes(1_000_000)
    begun = unpack_begun(zstd.compress(data)[:600_000], 'zstd')
    assert 400_000 < len(begun) <= 600_000
    assert data.startswith(begun)
    assert unpack_begun(b'no zstd', 'zstd') == b''


@pytest.mark.parametrize(
    ('pack', 'compression'), [(zstd.compress, 'zstd'), (lz4.frame.compress, 'lz4')]
)
def test_no_more_is_unpacked_than_the_limit(pack, compression):
    packed = pack(bytes(10_000_000))
    assert unpack_begun(packed, compression, 100_000) == bytes(100_000)


@pytest.mark.parametrize('kind', [Opcode.MESSAGE, Opcode.CHUNK], ids=lambda kind: kind.name)
def test_a_record_that_claims_to_be_larger_than_any_is_damage_and_not_read_into_memory(
    record, kind
):
    path = record(chunked=False)
    content = path.read_bytes()
    whole = content[: content.index(text(3)) - MESSAGE_HEAD]
    path.write_bytes(whole + HEAD.pack(kind, 2**40))
    os.truncate(path, 200_000_000)
    tracemalloc.start()
    stamps, told = read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stamps == [1_000, 2_000, 3_000]
    assert told.endswith('the end of the recording is missing')
    assert most < 100_000_000


def test_what_a_recorder_wrote_about_topics_and_messages_stays(record):
    path = record()
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with Bag(path) as bag:
        assert [(topic.name, topic.type, topic.count) for topic in bag.topics] == [
            ('/a', KIND, 0), ('/b', KIND, len(STAMPS)),
        ]  # fmt: skip
        assert bag.topics[1].qos.depth == 7
        assert bag.topics[1].qos.durability == QosDurability.TRANSIENT_LOCAL
        assert 'data' in str(bag.types.fielddefs[KIND])
        (recovered,) = bag._reader.paths
        with recovered.open('rb') as file:
            messages = [message for _, _, message in make_reader(file).iter_messages()]
    assert [(m.log_time, m.publish_time, m.sequence) for m in messages] == [
        (stamp, stamp - 500, STAMPS.index(stamp)) for stamp in sorted(STAMPS)
    ]
    assert not recovered.exists(), 'it is gone with the bag'
    assert path.read_bytes() == whole[:-100]


def test_an_unfinished_file_in_a_folder_is_named_and_packed_ones_are_read_too(record):
    path = record()
    path.write_bytes(path.read_bytes()[:-20])
    line = 'recording_0.mcap{}: the end of the recording is missing'
    assert read(path.parent) == (sorted(STAMPS), f'{path.parent}: {line.format("")}')
    packed = path.with_name('recording_0.mcap.zstd')
    packed.write_bytes(zstd.compress(path.read_bytes()))
    path.unlink()
    assert read(path.parent) == (sorted(STAMPS), f'{path.parent}: {line.format(".zstd")}')


@pytest.mark.parametrize('tail', [bytes(5_000), b'\xff' * 5_000], ids=['zeros', 'ones'])
def test_what_a_loss_of_power_leaves_at_the_end_is_no_message(record, tail):
    path = record(chunked=False)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(text(3)) - MESSAGE_HEAD] + tail)
    stamps, told = read(path)
    assert stamps == [1_000, 2_000, 3_000]
    assert told.endswith('the end of the recording is missing')


def test_a_chunk_whose_bytes_are_not_those_that_were_written_ends_what_is_read(record):
    path = record(chunk_size=1000)
    content = path.read_bytes()
    at = content.index(text(4)) + 50
    path.write_bytes(content[:at] + b'\0\0' + content[at + 2 : -20])
    stamps, told = read(path)
    assert stamps == sorted(STAMPS)[: len(stamps)]
    assert 0 < len(stamps) < 5
    assert told.endswith('the end of the recording is missing')


@pytest.mark.parametrize('seed', range(20))
def test_an_unfinished_file_with_some_wrong_bytes_is_read_or_refused_in_one_line(record, seed):
    chance = np.random.default_rng(seed)
    path = record(compression=CompressionType.ZSTD if seed % 2 else CompressionType.NONE)
    content = bytearray(path.read_bytes()[:-20])
    at = chance.integers(len(content) - 8)
    content[at : at + 8] = chance.bytes(8)
    path.write_bytes(content)
    with pytest.raises(BagError) as told, Bag(path) as bag:
        list(bag.messages(bag.topics))
    assert '\n' not in str(told.value)
    assert str(told.value).startswith(f'{path}: ')


def test_where_there_is_no_room_for_what_is_whole_the_folder_is_named(record, monkeypatch):
    path = record()
    path.write_bytes(path.read_bytes()[:-20])

    def fail(_path, _folder):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(bag_files, 'recover', fail)
    with pytest.raises(BagError, match=r'recording_0\.mcap cannot be written to /.*TMPDIR') as told:
        Bag(path)
    assert str(told.value).startswith(f'{path}: ')
    assert 'No space left on device' in str(told.value)


def test_a_bag_of_our_own_that_was_cut_is_read(tmp_path):
    with BagWriter(tmp_path / 'own') as writer:
        writer.add_topic('/b', KIND, RELIABLE)
        for number, stamp in enumerate(STAMPS):
            writer.write('/b', stamp, text(number))
    (path,) = Path(tmp_path / 'own').glob('*.mcap')
    path.write_bytes(path.read_bytes()[:-30])
    assert read(path.parent)[0] == sorted(STAMPS)
