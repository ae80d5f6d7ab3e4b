# SPDX-License-Identifier: Apache-2.0
"""Which files are images: the one list of suffixes, for the tools and for training."""

from __future__ import annotations

from pathlib import Path

from rock_seg_ros.perception.image_io.decoding import FORMATS

SUFFIXES_OF = {
    'PNG': ('.png',),
    'JPEG': ('.jpg', '.jpeg', '.jpe', '.jfif'),
    'BMP': ('.bmp', '.dib'),
    'TIFF': ('.tif', '.tiff'),
    'WEBP': ('.webp',),
    'PPM': ('.ppm', '.pgm', '.pbm', '.pnm'),
    'GIF': ('.gif',),
    'JPEG2000': ('.jp2', '.j2k'),
    'AVIF': ('.avif',),
    'HEIF': ('.heic', '.heif', '.hif'),
}
SUFFIXES = tuple(s for name, own in SUFFIXES_OF.items() if name in FORMATS for s in own)
LOSSY = ('JPEG', 'AVIF', 'HEIF')
# What an installation lacks that does not read a format.
MISSING = {
    'WEBP': 'Pillow with WebP',
    'JPEG2000': 'Pillow with JPEG 2000',
    'AVIF': 'Pillow 11.3 or newer',
    'HEIF': 'the package pillow-heif',
}


def image_files(folder: Path) -> list[Path]:
    """Returns the images of a folder that can be read here, sorted.

    Hidden files (`._a.jpg`, which macOS leaves beside each file) are not among them.

    Returns:
        Regular files, without subfolders; empty if there is no such folder.
    """
    return [path for path in _files(folder) if path.suffix.lower() in SUFFIXES]


def unsupported_files(folder: Path) -> dict[str, list[Path]]:
    """Returns the other files of a folder, by suffix as written; hidden ones are not told of."""
    others: dict[str, list[Path]] = {}
    for path in _files(folder):
        if path.suffix.lower() not in SUFFIXES:
            others.setdefault(path.suffix, []).append(path)
    return others


def unsupported_reason(suffix: str) -> str:
    """Returns why files of a suffix are not read."""
    for name, own in SUFFIXES_OF.items():
        if suffix.lower() in own:
            return f'reading them needs {MISSING[name]}'
    return 'not the suffix of an image'


def is_lossy(path: Path) -> bool:
    """Whether files of this suffix do not keep their values, as a mask must."""
    return any(path.suffix.lower() in SUFFIXES_OF[name] for name in LOSSY)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith('.'))
