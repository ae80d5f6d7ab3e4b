# SPDX-License-Identifier: Apache-2.0
"""Reads rosbag1 and rosbag2 files, and writes rosbag2 with mcap storage. Messages stay in CDR."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from rosbags.convert.converter import is_same_wireformat
from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag1 import ReaderError as Rosbag1Error
from rosbags.rosbag2 import ReaderError as Rosbag2Error
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.serde import SerdeError
from rosbags.typesys import Stores, TypesysError, get_typestore
from rosbags.typesys.store import Typestore

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.bag.recovery import has_end, has_journal, has_start, recover, with_journal
from rock_seg_ros.tools.bag.storage import (
    STORAGE,
    ZSTD,
    BagError,
    decompress,
    decompress_message,
    storage_files,
)

TYPES = get_typestore(Stores.ROS2_JAZZY)
_READ_ERRORS = (AnyReaderError, Rosbag1Error, Rosbag2Error, SerdeError, TypesysError, OSError)
READ = (*STORAGE, *(suffix + ZSTD for suffix in STORAGE), '.bag')  # suffixes of bags
REINDEX = 'run rosbag reindex'
_NO_TIME = QosTime(0, 0)


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag.

    Attributes:
        name: Topic name.
        type: ROS 2 message type, such as 'sensor_msgs/msg/Image'.
        count: Number of messages in the bag.
        qos: QoS that the recorded publisher offered; latched topics of ROS 1 are transient local;
            None = not in the bag.
        connections: The connections of rosbags for this topic.
    """

    name: str
    type: str
    count: int
    qos: Qos | None
    connections: tuple[Connection, ...] = field(repr=False, compare=False)


@dataclass(frozen=True)
class BagMessage:
    """A message of a bag.

    Attributes:
        topic: Topic name.
        stamp: Time of recording, ns since the epoch.
        data: The message in CDR.
    """

    topic: str
    stamp: int
    data: bytes


class Bag:
    """A bag that is open for reading: a rosbag2 (mcap or sqlite3, also with zstd) or a rosbag1.

    A rosbag2 is read from its storage files; metadata.yaml may be missing or out of date. If the
    end of an mcap file is missing, all messages before the damage are read.
    """

    def __init__(self, path: str | Path) -> None:
        """Opens the bag.

        Args:
            path: Folder with storage files, a storage file, or a `.bag` file.

        Raises:
            BagError: The bag does not exist, or all of it is damaged.
        """
        self.path = Path(path)
        if self.path.exists() and not (self.path.is_dir() or self.path.is_file()):
            raise BagError(f'{self.path}: is not a regular file')  # a pipe might never end
        self._stack = ExitStack()
        self._damage: list[str] = []
        try:
            files = storage_files(self.path) if self.path.is_dir() else [self.path]
            if self.path.is_file() and not self.path.name.endswith(READ):
                raise BagError(f'{self.path}: {_wrong_name(self.path)}')
            self._reader = self._open(files)
        except Exception as error:
            self._stack.close()
            if isinstance(error, BagError):
                raise
            missing = isinstance(error, FileNotFoundError)
            reason = 'the bag does not exist' if missing else _reason(error)
            raise BagError(f'{self.path}: {reason}') from None
        self.topics = [
            _topic(name, info.connections) for name, info in sorted(self._reader.topics.items())
        ]

    def _open(self, files: Sequence[Path]) -> AnyReader:
        """Opens files. If some are damaged, the readable part is opened and the damage is stored.

        Raises:
            BagError: Nothing can be read.
        """
        try:
            return self._open_all([self._plain(file) for file in files])
        except FileNotFoundError:
            raise
        except Exception:  # noqa: BLE001  (rosbags raises any exception for damaged bytes)
            readable = [found for file in files if (found := self._readable(file))]
        if not readable:
            raise BagError(*self._damage)
        return self._open_all(readable)

    def _open_all(self, files: Sequence[Path]) -> AnyReader:
        reader = AnyReader(files, default_typestore=TYPES)
        reader.open()
        self._stack.callback(reader.close)
        return reader

    def _readable(self, file: Path) -> Path | None:
        """Returns an intact file, or the recovered part of a truncated one; None if it is lost."""
        prefix = f'{self.path}: ' if file == self.path else f'{self.path}: {file.name}: '
        plain = file
        try:
            if not file.stat().st_size:
                raise EOFError('the file is empty')
            if file.suffix == ZSTD:
                folder = self._temporary()
                plain = folder / file.stem
                decompress(file, folder)
            plain = self._with_journal(plain)
            if not has_start(plain):
                raise ValueError('it is not an mcap file')
            if not has_end(plain):
                raise EOFError('the end of the recording is missing')
            with AnyReader([plain], default_typestore=TYPES):
                return plain
        except Exception as error:  # noqa: BLE001  (as in _open)
            self._damage.append(f'{prefix}{_reason(error)}')
            return self._recovered(plain) if plain.is_file() else None

    def _recovered(self, file: Path) -> Path | None:
        folder = self._temporary()
        try:
            return recover(file, folder)
        except OSError as error:
            raise BagError(
                f'{self.path}: the recovered part of {file.name} cannot be written to {folder}'
                f' ({error.strerror}); set TMPDIR to another folder'
            ) from None

    def _plain(self, file: Path) -> Path:
        """Returns a storage file without compression, and with the messages of its journal."""
        return self._with_journal(
            decompress(file, self._temporary()) if file.suffix == ZSTD else file
        )

    def _with_journal(self, file: Path) -> Path:
        return with_journal(file, self._temporary()) if has_journal(file) else file

    def _temporary(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory()))

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def duration(self) -> float:
        """Time from the first message to the last, s."""
        return max(0, self._reader.end_time - 1 - self._reader.start_time) * 1e-9

    @property
    def types(self) -> Typestore:
        """The ROS 2 message types of this bag."""
        return self._reader.typestore if self._reader.is2 else TYPES

    def has_ros2_form(self, topic: BagTopic) -> bool:
        """Whether the messages of a topic can be converted to ROS 2 CDR."""
        if self._reader.is2:
            extra = topic.connections[0].ext
            return isinstance(extra, ConnectionExtRosbag2) and extra.serialization_format == 'cdr'
        return topic.type in TYPES.fielddefs and is_same_wireformat(
            self._reader.typestore, TYPES, topic.type, topic.type
        )

    def messages(self, topics: Collection[BagTopic]) -> Iterator[BagMessage]:
        """Reads the messages of some topics in the order of their stamps.

        Raises:
            BagError: The bag is damaged, or has fewer messages than its index lists. All readable
                messages were yielded before.
        """
        connections = [connection for topic in topics for connection in topic.connections]
        if not connections:
            return
        left = sum(topic.count for topic in topics)
        try:
            for connection, stamp, data in self._reader.messages(connections):
                data = (
                    decompress_message(data)
                    if self._reader.is2
                    else bytes(TYPES.ros1_to_cdr(data, connection.msgtype))
                )
                left -= 1
                yield BagMessage(connection.topic, stamp, data)
        except Exception as error:  # noqa: BLE001  (rosbags raises any exception for damaged bytes)
            raise BagError(*self._damage, f'{self.path}: {_reason(error)}') from None
        if left > 0:
            raise BagError(*self._damage, f'{self.path}: damaged ({left} messages are missing)')
        if self._damage:
            raise BagError(*self._damage)

    def first(self, topic: BagTopic) -> BagMessage | None:
        """Reads the first message of a topic; None if the topic has no messages.

        Raises:
            BagError: The bag is damaged.
        """
        return next(self.messages([topic]), None)


class BagWriter:
    """Writes a new rosbag2 folder with mcap storage.

    Use it as a context manager. After an error, the bag has no metadata, so that readers reject
    it.
    """

    def __init__(self, path: str | Path) -> None:
        """Creates the folder.

        Raises:
            BagError: The folder exists.
        """
        if Path(path).exists():
            raise BagError(f'{path}: exists; choose another folder or delete it')
        self._writer = Writer(
            path, version=Writer.VERSION_LATEST, storage_plugin=StoragePlugin.MCAP
        )
        self._connections: dict[str, Connection] = {}

    def __enter__(self) -> BagWriter:
        self._writer.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)

    def add_topic(self, name: str, message_type: str, qos: Qos | None = None) -> None:
        """Adds a topic.

        Args:
            name: Topic name.
            message_type: A type of ROS 2, such as 'sensor_msgs/msg/Image'.
            qos: QoS that a player offers; None = reliable, volatile, keep last 10.
        """
        self._connections[name] = self._writer.add_connection(
            name, message_type, typestore=TYPES, offered_qos_profiles=[qos or RELIABLE]
        )

    def add_topic_of(self, bag: Bag, topic: BagTopic) -> None:
        """Adds a topic with the type and QoS that it has in another bag."""
        self._connections[topic.name] = self._writer.add_connection(
            topic.name,
            topic.type,
            typestore=bag.types,
            offered_qos_profiles=[topic.qos or RELIABLE],
        )

    def add_metadata(self, key: str, text: str) -> None:
        """Adds a text to the custom data in metadata.yaml."""
        self._writer.set_custom_data(key, text)

    def write(self, topic: str, stamp: int, data: bytes) -> None:
        """Writes a CDR message to a topic that was added; `stamp` in ns since the epoch."""
        self._writer.write(self._connections[topic], stamp, data)

    def write_message(self, topic: str, stamp: int, message: Any) -> None:
        """Serializes and writes a message that is made of the classes of `TYPES`."""
        message_type = self._connections[topic].msgtype
        self.write(topic, stamp, bytes(TYPES.serialize_cdr(message, message_type)))


RELIABLE = Qos(
    QosHistory.KEEP_LAST,
    10,
    QosReliability.RELIABLE,
    QosDurability.VOLATILE,
    _NO_TIME,
    _NO_TIME,
    QosLiveliness.AUTOMATIC,
    _NO_TIME,
    False,
)


def _topic(name: str, connections: Sequence[Connection]) -> BagTopic:
    return BagTopic(
        name,
        connections[0].msgtype,
        sum(connection.msgcount for connection in connections),
        next(filter(None, map(_offered, connections)), None),
        tuple(connections),
    )


def _reason(error: Exception) -> str:
    line = first_line(error)
    if 'index looks damaged' in line:  # of a rosbag1
        return f'{line}; {REINDEX}'
    return line if isinstance(error, (*_READ_ERRORS, EOFError)) else f'damaged ({line})'


def _wrong_name(path: Path) -> str:
    """Returns why the name of an existing file cannot be that of a bag."""
    if path.suffix == '.active':
        return f'the recording was not closed; {REINDEX}'
    return f'must be a rosbag2 folder, or a file that ends in {", ".join(READ)}'


def _offered(connection: Connection) -> Qos | None:
    if isinstance(connection.ext, ConnectionExtRosbag2):
        return next(iter(connection.ext.offered_qos_profiles), None)
    latched = RELIABLE._replace(depth=1, durability=QosDurability.TRANSIENT_LOCAL)
    return latched if connection.ext.latching else None
