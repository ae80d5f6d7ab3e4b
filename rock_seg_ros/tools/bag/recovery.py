# SPDX-License-Identifier: Apache-2.0
"""Recovers the intact messages of a truncated or damaged mcap or sqlite3 file."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from io import BytesIO
from pathlib import Path
from typing import IO

from lz4.frame import LZ4FrameDecompressor
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Header, Message, Schema
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer

from rock_seg_ros.tools.bag.storage import zstd

SQLITE = '.db3'
JOURNALS = ('-wal', '-journal')  # suffixes of the files that sqlite3 has next to an open file
RECORD_HEADER = struct.Struct('<BQ')  # opcode, and number of bytes of the content
PADDING = 0  # not an opcode; file systems may leave zeros at the end after a loss of power
COPIED_OPCODES = (Opcode.HEADER, Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK)
MAX_RECORD_BYTES = 1 << 30  # of a record or a decompressed chunk; recorders write about 1 MB
BLOCK = 1 << 16  # number of bytes that are decompressed at once
DECOMPRESSORS = {'zstd': zstd.ZstdDecompressor, 'lz4': LZ4FrameDecompressor}


def has_start(path: Path) -> bool:
    """Returns whether a file begins as an mcap file, if that is its suffix."""
    if path.suffix != '.mcap':
        return True
    with path.open('rb') as file:
        return file.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC


def has_end(path: Path) -> bool:
    """Returns whether a file is complete: an mcap file with its end, or any other file."""
    if path.suffix != '.mcap':
        return True
    with path.open('rb') as file:
        file.seek(max(0, path.stat().st_size - len(MCAP0_MAGIC)))
        return file.read() == MCAP0_MAGIC


def has_journal(path: Path) -> bool:
    """Returns whether a sqlite3 file has messages in a journal next to it.

    A recorder that is killed leaves them there, and rosbags does not read them.
    """
    return path.suffix == SQLITE and bool(_journals(path))


def with_journal(path: Path, folder: Path) -> Path:
    """Writes a sqlite3 file and the messages in its journal to a new file.

    Args:
        path: A sqlite3 file. It is not changed.
        folder: Folder of the new file.

    Raises:
        OSError: A file cannot be read or written.
        sqlite3.Error: The file or its journal is damaged.
    """
    for file in (path, *_journals(path)):
        shutil.copyfile(file, folder / file.name)
    with closing(sqlite3.connect(folder / path.name)) as database:
        database.execute('PRAGMA journal_mode = DELETE')  # moves the messages to the file
    return folder / path.name


def _journals(path: Path) -> list[Path]:
    found = [path.with_name(path.name + suffix) for suffix in JOURNALS]
    return [file for file in found if file.is_file() and file.stat().st_size]


def recover(path: Path, folder: Path) -> Path | None:
    """Writes the messages of a file before any damage to a new file with an index.

    Times, types and QoS do not change. One chunk at a time is in memory.

    Args:
        path: The mcap or sqlite3 file. It is not changed.
        folder: Folder of the new file, which is about as large as the old one.

    Returns:
        The new file; None if the old one has no intact message.

    Raises:
        OSError: A file cannot be read or written.
    """
    target = folder / f'recovered_{path.name}'
    if path.suffix == SQLITE:
        return target if _recover_sqlite(path, target) else None
    with path.open('rb') as source, target.open('wb') as sink:
        copy = _Copy(Writer(sink, compression=CompressionType.NONE))
        try:
            if source.read(len(MCAP0_MAGIC)) == MCAP0_MAGIC:
                for kind, content in _records(source, path.stat().st_size):
                    copy.add(kind, content)
        except OSError:
            raise
        except Exception:  # noqa: BLE001  (mcap raises any exception for damaged bytes)
            pass
        return target if copy.finish() else None


def _recover_sqlite(path: Path, target: Path) -> bool:
    """Copies the rows of a sqlite3 file before any damage; returns whether there are messages."""
    messages = 0
    with (
        closing(sqlite3.connect(f'{path.absolute().as_uri()}?immutable=1', uri=True)) as source,
        closing(sqlite3.connect(target)) as sink,
        suppress(sqlite3.DatabaseError),
    ):
        source.execute('PRAGMA writable_schema = ON')  # else a truncated file is not opened
        sql = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql NOT NULL"
        for name, statement in sorted(source.execute(sql), key=lambda row: row[0] == 'messages'):
            sink.execute(statement)
            with suppress(sqlite3.DatabaseError):
                for row in source.execute(f'SELECT * FROM "{name}" ORDER BY rowid'):
                    sink.execute(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(row))})', row)
                    messages += name == 'messages'
            sink.commit()
    return messages > 0


class _Copy:
    """Writes records to a new file, and each schema and channel only once."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._schemas = {0: 0}  # old id → new id; 0 is none
        self._channels: dict[int, int] = {}
        self._messages = 0

    def add(self, kind: int, content: bytes) -> None:
        """Adds a record of the old file; `kind` is its opcode."""
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
        """Completes the new file; returns whether it has messages."""
        if self._messages:
            self._writer.finish()
        return self._messages > 0


def _records(stream: IO[bytes], size: int) -> Iterator[tuple[int, bytes]]:
    """Yields the opcode and content of complete records, including those in a truncated chunk.

    Args:
        stream: A stream at the beginning of a record.
        size: Number of bytes of the whole stream.
    """
    while len(header := stream.read(RECORD_HEADER.size)) == RECORD_HEADER.size:
        kind, length = RECORD_HEADER.unpack(header)
        available = min(length, size - stream.tell())
        if kind == PADDING:
            return
        if kind not in COPIED_OPCODES:
            stream.seek(available, 1)
            continue
        if length > MAX_RECORD_BYTES:  # damage
            return
        content = stream.read(available)
        if kind == Opcode.CHUNK:
            records = _decompressed(Chunk.read(ReadDataStream(BytesIO(content))))
            yield from _records(BytesIO(records), len(records))
        elif available == length:
            yield kind, content


def _decompressed(chunk: Chunk) -> bytes:
    """Returns the records of a chunk; those of a truncated chunk are incomplete.

    Raises:
        ValueError: The checksum differs.
    """
    data = decompress_available(chunk.data, chunk.compression) if chunk.compression else chunk.data
    crc = chunk.uncompressed_crc
    if crc and len(data) >= chunk.uncompressed_size and zlib.crc32(data) != crc:
        raise ValueError('damaged chunk')
    return data


def decompress_available(data: bytes, compression: str, most: int = MAX_RECORD_BYTES) -> bytes:
    """Decompresses truncated or damaged data up to the first block that is not intact.

    Args:
        data: The compressed data.
        compression: 'zstd' or 'lz4'.
        most: Maximum number of bytes of the result.

    Raises:
        KeyError: The compression is not known.
    """
    decompressor = DECOMPRESSORS[compression]()
    found = bytearray()
    for start in range(0, len(data), BLOCK):
        try:
            found += decompressor.decompress(data[start : start + BLOCK], most - len(found))
        except (zstd.ZstdError, RuntimeError, EOFError):  # lz4 raises RuntimeError
            break
        if len(found) == most:
            break
    return bytes(found)
