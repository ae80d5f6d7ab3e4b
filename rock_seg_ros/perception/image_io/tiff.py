# SPDX-License-Identifier: Apache-2.0
"""The tags of a TIFF (TIFF 6.0, and BigTIFF), and those that OpenCV misreads put right."""

from __future__ import annotations

import struct
from typing import NamedTuple

WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES, PLANAR, EXTRA = 256, 257, 258, 262, 277, 284, 338
BLACK_IS_ZERO, RGB = 1, 2
APART = 2  # the planes of a channel each
UNKNOWN = 65535  # a tag that no reader knows
NUMBERS = {3: 'H', 4: 'I', 16: 'Q'}  # SHORT, LONG, LONG8


class Tag(NamedTuple):
    """An entry of a TIFF's first directory.

    Attributes:
        place: Of the entry, bytes from the start of the file.
        value: Its first number.
    """

    place: int
    value: int


class Tiff:
    """The first directory of a TIFF.

    Attributes:
        width: px.
        height: px.
        samples: Channels.
    """

    def __init__(self, content: bytes) -> None:
        """Reads the tags.

        Raises:
            ValueError: It is no TIFF, or cut short.
        """
        self._content = content
        try:
            self._order = {b'II': '<', b'MM': '>'}[content[:2]]
            self._tags = self._read_tags()
            self.width, self.height = self._tags[WIDTH].value, self._tags[HEIGHT].value
        except (KeyError, struct.error):
            raise ValueError('no TIFF, or cut short') from None
        self.samples = self._value(SAMPLES, 1)

    def _read_tags(self) -> dict[int, Tag]:
        big = self._unpack('H', 2) == 43
        place = self._unpack('Q', 8) if big else self._unpack('I', 4)
        count_kind, entry_kind, inside = ('Q', 'HHQ', 8) if big else ('H', 'HHI', 4)
        count = self._unpack(count_kind, place)
        place += struct.calcsize(count_kind)
        head = struct.calcsize(f'={entry_kind}')
        tags = {}
        for _ in range(count):
            tag, kind, numbers = struct.unpack_from(self._order + entry_kind, self._content, place)
            if kind in NUMBERS:
                where = place + head
                if numbers * struct.calcsize(NUMBERS[kind]) > inside:
                    where = self._unpack('Q' if big else 'I', where)
                tags[tag] = Tag(place, self._unpack(NUMBERS[kind], where))
            place += head + inside
        return tags

    def _unpack(self, kind: str, place: int) -> int:
        return int(struct.unpack_from(self._order + kind, self._content, place)[0])

    def _value(self, tag: int, default: int) -> int:
        return self._tags[tag].value if tag in self._tags else default

    @property
    def deep_planes(self) -> bool:
        """Whether it has channels of over 8 bits apart, of which OpenCV reads only the first."""
        apart = self._value(PLANAR, 1) == APART and self.samples > 1
        return apart and self._value(BITS, 1) > 8

    def for_opencv(self) -> bytes:
        """Returns the content with the tags that OpenCV, or libtiff for it, misreads put right.

        Three or four channels marked as grey are colour, of which it would read the first only;
        a fourth is never opacity, with which it would darken the others.
        """
        content = bytearray(self._content)
        if self.samples in (3, 4) and self._value(PHOTOMETRIC, RGB) == BLACK_IS_ZERO:
            self._set(content, PHOTOMETRIC, PHOTOMETRIC, RGB)
        if self._value(PHOTOMETRIC, RGB) in (BLACK_IS_ZERO, RGB) and EXTRA in self._tags:
            self._set(content, EXTRA, UNKNOWN if self.samples == 3 else EXTRA, 0)
        return bytes(content)

    def _set(self, content: bytearray, tag: int, becomes: int, value: int) -> None:
        """Makes an entry a tag of one SHORT."""
        big = self._content[2:4] in (b'+\0', b'\0+')
        entry = self._order + ('HHQHHHH' if big else 'HHIHH')
        rest = (0,) * (3 if big else 1)
        struct.pack_into(entry, content, self._tags[tag].place, becomes, 3, 1, value, *rest)
