# SPDX-License-Identifier: Apache-2.0
"""Tags of a TIFF (TIFF 6.0 or BigTIFF), and corrections of tags that OpenCV misinterprets."""

from __future__ import annotations

import struct
from typing import NamedTuple

WIDTH, HEIGHT, BITS, PHOTOMETRIC, SAMPLES, PLANAR, EXTRA = 256, 257, 258, 262, 277, 284, 338
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
SEPARATE = 2  # planar configuration: one plane per channel
UNKNOWN = 65535  # a tag that readers ignore
NUMBERS = {3: 'H', 4: 'I', 16: 'Q'}  # SHORT, LONG, LONG8


class Tag(NamedTuple):
    """An entry of the first directory of a TIFF.

    Attributes:
        offset: Position of the entry in the file, bytes.
        value: Its first number.
    """

    offset: int
    value: int


class Tiff:
    """The first directory of a TIFF.

    Attributes:
        width: Width, px.
        height: Height, px.
        samples: Number of channels.
        bits: Bits per value.
    """

    def __init__(self, content: bytes) -> None:
        """Reads the tags.

        Raises:
            ValueError: The content is not a TIFF, or is truncated.
        """
        self._content = content
        try:
            self._order = {b'II': '<', b'MM': '>'}[content[:2]]
            self._tags = self._read_tags()
            self.width, self.height = self._tags[WIDTH].value, self._tags[HEIGHT].value
        except (KeyError, struct.error):
            raise ValueError('not a TIFF, or truncated') from None
        self.samples = self._value(SAMPLES, 1)
        self.bits = self._value(BITS, 1)

    def _read_tags(self) -> dict[int, Tag]:
        big = self._unpack('H', 2) == 43
        offset = self._unpack('Q', 8) if big else self._unpack('I', 4)
        count_kind, entry_kind, inline_bytes = ('Q', 'HHQ', 8) if big else ('H', 'HHI', 4)
        count = self._unpack(count_kind, offset)
        offset += struct.calcsize(count_kind)
        head = struct.calcsize(f'={entry_kind}')
        tags = {}
        for _ in range(count):
            tag, kind, numbers = struct.unpack_from(self._order + entry_kind, self._content, offset)
            if kind in NUMBERS:
                value_offset = offset + head
                if numbers * struct.calcsize(NUMBERS[kind]) > inline_bytes:
                    value_offset = self._unpack('Q' if big else 'I', value_offset)
                tags[tag] = Tag(offset, self._unpack(NUMBERS[kind], value_offset))
            offset += head + inline_bytes
        return tags

    def _unpack(self, kind: str, offset: int) -> int:
        return int(struct.unpack_from(self._order + kind, self._content, offset)[0])

    def _value(self, tag: int, default: int) -> int:
        return self._tags[tag].value if tag in self._tags else default

    @property
    def deep_planes(self) -> bool:
        """Whether it has separate planes of more than 8 bits; OpenCV reads only the first one."""
        separate = self._value(PLANAR, 1) == SEPARATE and self.samples > 1
        return separate and self.bits > 8

    @property
    def deep_white_is_zero(self) -> bool:
        """Whether 0 is white and values have 9 to 16 bits; OpenCV does not invert these values."""
        return self._value(PHOTOMETRIC, RGB) == WHITE_IS_ZERO and 8 < self.bits <= 16

    def for_opencv(self) -> bytes:
        """Returns the content with tags that OpenCV and libtiff interpret correctly.

        Three or four channels that are marked as grey become RGB, because only the first one would
        be read. A fourth channel is not opacity, because the other channels would be darkened.
        """
        content = bytearray(self._content)
        if self.samples in (3, 4) and self._value(PHOTOMETRIC, RGB) == BLACK_IS_ZERO:
            self._set(content, PHOTOMETRIC, PHOTOMETRIC, RGB)
        if self._value(PHOTOMETRIC, RGB) in (BLACK_IS_ZERO, RGB) and EXTRA in self._tags:
            self._set(content, EXTRA, UNKNOWN if self.samples == 3 else EXTRA, 0)
        return bytes(content)

    def _set(self, content: bytearray, tag: int, becomes: int, value: int) -> None:
        """Replaces the entry of a tag by the tag `becomes` with one value of the type SHORT."""
        big = self._content[2:4] in (b'+\0', b'\0+')
        entry = self._order + ('HHQHHHH' if big else 'HHIHH')
        rest = (0,) * (3 if big else 1)
        struct.pack_into(entry, content, self._tags[tag].offset, becomes, 3, 1, value, *rest)
