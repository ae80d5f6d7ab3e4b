# SPDX-License-Identifier: Apache-2.0
"""Tests of the recovery of truncated and damaged mcap files."""

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
from rock_seg_ros.tools.bag.recovery import RECORD_HEADER, decompress_available
from rock_seg_ros.tools.bag.storage import zstd

KIND = 'std_msgs/msg/String'
STAMPS = (1_000, 3_000, 2_000, 4_000, 6_000, 5_000)  # a recorder with threads does not sort them
MESSAGE_HEADER = 9 + 22  # bytes
LATCHED = (
    '- history: 1\n  depth: 7\n  reliability: 1\n  durability: 1\n'
    '  deadline: {sec: 0, nsec: 0}\n  lifespan: {sec: 0, nsec: 0}\n'
    '  liveliness: 1\n  liveliness_lease_duration: {sec: 0, nsec: 0}\n'
    '  avoid_ros_namespace_conventions: false\n'
)


def text(number: int) -> bytes:
    """Returns a String in CDR that is long enough for several zstd blocks in a chunk."""
    noise = np.random.default_rng(number).integers(32, 127, 400, dtype=np.uint8).tobytes()
    return b'\0\1\0\0' + struct.pack('<I', len(noise) + 1) + noise + b'\0'


@pytest.fixture
def record(tmp_path):
    """Writes a bag with the layout of a recorder; returns its only file."""

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
    """Returns the stamps of the messages and the error; checks the content of each message."""
    stamps, damage = [], ''
    try:
        with Bag(path) as bag:
            for message in bag.messages(bag.topics):
                assert message.data == text(STAMPS.index(message.stamp))
                stamps.append(message.stamp)
    except BagError as error:
        damage = str(error)
    return stamps, damage


@pytest.mark.parametrize('chunked', [True, False])
def test_all_messages_before_the_end_of_a_truncated_file_are_read_and_the_error_is_one_line(
    record, chunked
):
    path = record(chunked)
    content = path.read_bytes()
    ends = [content.index(text(number)) + len(text(number)) for number in range(len(STAMPS))]
    for cut in range(23, len(content), 23):
        path.write_bytes(content[:cut])
        stamps, damage = read(path)
        assert stamps == sorted(STAMPS[: sum(end <= cut for end in ends)]), cut
        assert damage == f'{path}: the end of the recording is missing', cut


def test_a_file_that_is_no_recording_is_not_called_truncated(tmp_path):
    path = tmp_path / 'text.mcap'
    path.write_text('These are notes.')
    assert read(path) == ([], f'{path}: damaged (it is not an mcap file)')


@pytest.mark.parametrize('compression', [CompressionType.ZSTD, CompressionType.LZ4])
@pytest.mark.parametrize('chunk_size', [900, 10_000])
def test_intact_messages_of_a_truncated_compressed_chunk_are_read(record, compression, chunk_size):
    path = record(compression=compression, chunk_size=chunk_size)
    content = path.read_bytes()
    most = 0
    for cut in range(150, len(content), 150):
        path.write_bytes(content[:cut])
        stamps, damage = read(path)
        assert most <= len(stamps)
        most = len(stamps)
        assert stamps == sorted(STAMPS[:most])
        assert damage.endswith('the end of the recording is missing')
    assert most == len(STAMPS)


def test_truncated_data_are_decompressed_up_to_the_last_complete_block():
    data = np.random.default_rng(0).bytes(1_000_000)
    found = decompress_available(zstd.compress(data)[:600_000], 'zstd')
    assert 400_000 < len(found) <= 600_000
    assert data.startswith(found)
    assert decompress_available(b'no zstd', 'zstd') == b''


@pytest.mark.parametrize(
    ('compress', 'compression'), [(zstd.compress, 'zstd'), (lz4.frame.compress, 'lz4')]
)
def test_decompression_stops_at_the_limit(compress, compression):
    compressed = compress(bytes(10_000_000))
    assert decompress_available(compressed, compression, 100_000) == bytes(100_000)


@pytest.mark.parametrize('kind', [Opcode.MESSAGE, Opcode.CHUNK], ids=lambda kind: kind.name)
def test_a_record_with_a_size_above_the_limit_is_damage_and_is_not_read_into_memory(record, kind):
    path = record(chunked=False)
    content = path.read_bytes()
    intact = content[: content.index(text(3)) - MESSAGE_HEADER]
    path.write_bytes(intact + RECORD_HEADER.pack(kind, 2**40))
    os.truncate(path, 200_000_000)
    tracemalloc.start()
    stamps, damage = read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert stamps == [1_000, 2_000, 3_000]
    assert damage.endswith('the end of the recording is missing')
    assert most < 100_000_000


def test_topics_qos_times_and_sequence_numbers_are_recovered(record):
    path = record()
    complete = path.read_bytes()
    path.write_bytes(complete[:-100])
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
    assert not recovered.exists(), 'the temporary file must be deleted'
    assert path.read_bytes() == complete[:-100]


def test_the_error_names_the_truncated_file_of_a_folder_also_if_it_is_compressed(record):
    path = record()
    path.write_bytes(path.read_bytes()[:-20])
    line = 'recording_0.mcap{}: the end of the recording is missing'
    assert read(path.parent) == (sorted(STAMPS), f'{path.parent}: {line.format("")}')
    compressed = path.with_name('recording_0.mcap.zstd')
    compressed.write_bytes(zstd.compress(path.read_bytes()))
    path.unlink()
    assert read(path.parent) == (sorted(STAMPS), f'{path.parent}: {line.format(".zstd")}')


@pytest.mark.parametrize('tail', [bytes(5_000), b'\xff' * 5_000], ids=['zeros', 'ones'])
def test_padding_after_a_loss_of_power_is_not_read_as_messages(record, tail):
    path = record(chunked=False)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(text(3)) - MESSAGE_HEADER] + tail)
    stamps, damage = read(path)
    assert stamps == [1_000, 2_000, 3_000]
    assert damage.endswith('the end of the recording is missing')


def test_a_chunk_with_a_wrong_checksum_ends_the_recovery(record):
    path = record(chunk_size=1000)
    content = path.read_bytes()
    at = content.index(text(4)) + 50
    path.write_bytes(content[:at] + b'\0\0' + content[at + 2 : -20])
    stamps, damage = read(path)
    assert stamps == sorted(STAMPS)[: len(stamps)]
    assert 0 < len(stamps) < 5
    assert damage.endswith('the end of the recording is missing')


@pytest.mark.parametrize('seed', range(20))
def test_a_truncated_file_with_wrong_bytes_gives_an_error_of_one_line(record, seed):
    chance = np.random.default_rng(seed)
    path = record(compression=CompressionType.ZSTD if seed % 2 else CompressionType.NONE)
    content = bytearray(path.read_bytes()[:-20])
    at = chance.integers(len(content) - 8)
    content[at : at + 8] = chance.bytes(8)
    path.write_bytes(content)
    with pytest.raises(BagError) as raised, Bag(path) as bag:
        list(bag.messages(bag.topics))
    assert '\n' not in str(raised.value)
    assert str(raised.value).startswith(f'{path}: ')


def test_the_error_names_the_temporary_folder_if_the_disk_is_full(record, monkeypatch):
    path = record()
    path.write_bytes(path.read_bytes()[:-20])

    def fail(_path, _folder):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(bag_files, 'recover', fail)
    message = r'recording_0\.mcap cannot be written to /.*TMPDIR'
    with pytest.raises(BagError, match=message) as raised:
        Bag(path)
    assert str(raised.value).startswith(f'{path}: ')
    assert 'No space left on device' in str(raised.value)


def test_a_truncated_bag_of_the_bag_writer_is_read(tmp_path):
    with BagWriter(tmp_path / 'own') as writer:
        writer.add_topic('/b', KIND, RELIABLE)
        for number, stamp in enumerate(STAMPS):
            writer.write('/b', stamp, text(number))
    (path,) = Path(tmp_path / 'own').glob('*.mcap')
    path.write_bytes(path.read_bytes()[:-30])
    assert read(path.parent)[0] == sorted(STAMPS)
