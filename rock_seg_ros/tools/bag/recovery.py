# SPDX-License-Identifier: Apache-2.0
"""An mcap file whose recorder was killed: all that is whole in it, as a file with an index."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import IO

from lz4.frame import LZ4FrameDecompressor
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Header, Message, Schema
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from rock_seg_ros.tools.bag.storage import zstd

HEAD = struct.Struct('<BQ')  # of a record: what it is, and how many bytes come after
NO_RECORD = 0  # as in the zeros that a file system may leave where power was lost
NEEDED = (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK)
LARGEST = 1 << 30  # bytes of a record or an unpacked chunk; recorders write about 1 MB
PIECE = 1 << 16  # bytes that are unpacked at once
UNPACKERS = {'zstd': zstd.ZstdDecompressor, 'lz4': LZ4FrameDecompressor}


def has_end(path: Path) -> bool:
    """Returns whether a file is none of mcap, or ends as one does whose recorder was not killed."""
    if path.suffix != '.mcap':
        return True
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - len(MCAP0_MAGIC)))
        return file.read() == MCAP0_MAGIC


def recover(path: Path, folder: Path) -> Path | None:
    """Writes the messages of an mcap file up to where it is damaged to a new file.

    Times, types and QoS stay as they are. One chunk at a time is in memory.

    Args:
        path: The file; it is only read.
        folder: Where the new file is written, which is about as large.

    Returns:
        The new file; None where there is no whole message.

    Raises:
        OSError: A file cannot be read or written.
    """
    target = folder / path.name
    with path.open('rb') as source, target.open('wb') as sink:
        copy = _Copy(Writer(sink, compression=CompressionType.NONE))
        try:
            if source.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC:
                for kind, content in _records(source, path.stat().st_size):
                    copy.take(kind, content)
        except OSError:
            raise
        except Exception:  # noqa: BLE001  (damaged bytes raise anything; they end what is whole)
            pass
        return target if copy.finish() else None


class _Copy:
    """The new file. What the old one says of a schema or channel again is not written again."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._schemas = {0: 0}  # old id → new id; 0 is none
        self._channels: dict[int, int] = {}
        self._messages = 0

    def take(self, kind: int, content: bytes) -> None:
        """Writes a record of the old file."""
        stream = ReadDataStream(BytesIO(content))
        if kind == Opcode.HEADER:
            self._writer.start(Header.read(stream).profile)
        elif kind == Opcode.SCHEMA:
            schema = Schema.read(stream)
            if schema.id not in self._schemas:
                self._schemas[schema.id] = self._writer.register_schema(
                    schema.name, schema.encoding, schema.data
                )
        elif kind == Opcode.CHANNEL:
            channel = Channel.read(stream)
            if channel.id not in self._channels:
                self._channels[channel.id] = self._writer.register_channel(
                    channel.topic,
                    channel.message_encoding,
                    self._schemas[channel.schema_id],
                    channel.metadata,
                )
        elif kind == Opcode.MESSAGE:
            message = Message.read(stream, len(content))
            self._writer.add_message(
                self._channels[message.channel_id],
                message.log_time,
                message.data,
                message.publish_time,
                message.sequence,
            )
            self._messages += 1

    def finish(self) -> bool:
        """Ends the new file; returns whether there are messages in it."""
        if self._messages:
            self._writer.finish()
        return self._messages > 0


def _records(stream: IO[bytes], size: int) -> Iterator[tuple[int, bytes]]:
    """Yields the kind and content of whole records, and of those inside a chunk, even one cut off.

    Args:
        stream: Where the first record begins.
        size: Of all that is in the stream, bytes.
    """
    while len(head := stream.read(HEAD.size)) == HEAD.size:
        kind, length = HEAD.unpack(head)
        there = min(length, size - stream.tell())
        if kind == NO_RECORD:
            return
        if kind not in NEEDED:
            stream.seek(there, 1)
            continue
        if length > LARGEST:  # damage
            return
        content = stream.read(there)
        if kind == Opcode.CHUNK:
            inside = _unpacked(Chunk.read(ReadDataStream(BytesIO(content))))
            yield from _records(BytesIO(inside), len(inside))
        elif there == length:
            yield kind, content


def _unpacked(chunk: Chunk) -> bytes:
    """Returns what is in a chunk, as far as it is there.

    Raises:
        ValueError: It is not what was written.
    """
    data = unpack_begun(chunk.data, chunk.compression) if chunk.compression else chunk.data
    crc = chunk.uncompressed_crc
    if crc and len(data) >= chunk.uncompressed_size and zlib.crc32(data) != crc:
        raise ValueError('damaged chunk')
    return data


def unpack_begun(data: bytes, compression: str, most: int = LARGEST) -> bytes:
    """Unpacks the beginning of data that were compressed with 'zstd' or 'lz4', as far as it goes.

    Args:
        data: The compressed data.
        compression: 'zstd' or 'lz4'.
        most: Number of bytes at which unpacking ends.

    Raises:
        KeyError: It is another compression.
    """
    unpacker = UNPACKERS[compression]()
    unpacked = bytearray()
    for start in range(0, len(data), PIECE):
        try:
            unpacked += unpacker.decompress(data[start : start + PIECE], most - len(unpacked))
        except (zstd.ZstdError, RuntimeError, EOFError):  # RuntimeError is lz4's
            break
        if len(unpacked) == most:
            break
    return bytes(unpacked)
