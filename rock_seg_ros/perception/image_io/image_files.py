# SPDX-License-Identifier: Apache-2.0
"""Image files by their suffixes, for the tools and for training."""

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
SUFFIXES = tuple(s for name, listed in SUFFIXES_OF.items() if name in FORMATS for s in listed)
LOSSY = ('JPEG', 'AVIF', 'HEIF')
# Format → the dependency that is missing if the format is not supported.
MISSING = {
    'WEBP': 'Pillow with WebP',
    'JPEG2000': 'Pillow with JPEG 2000',
    'AVIF': 'Pillow 11.3 or newer',
    'HEIF': 'the package pillow-heif',
}


def image_files(folder: Path) -> list[Path]:
    """Returns the images of a folder whose format is supported, sorted.

    Hidden files are excluded, such as `._a.jpg`, which macOS creates for each file.

    Returns:
        Regular files, without subfolders; empty if there is no such folder.
    """
    return [path for path in _files(folder) if path.suffix.lower() in SUFFIXES]


def unsupported_files(folder: Path) -> dict[str, list[Path]]:
    """Returns the other files of a folder by suffix, without hidden files."""
    others: dict[str, list[Path]] = {}
    for path in _files(folder):
        if path.suffix.lower() not in SUFFIXES:
            others.setdefault(path.suffix, []).append(path)
    return others


def unsupported_reason(suffix: str) -> str:
    """Returns the reason why files with a suffix are not read."""
    for name, suffixes in SUFFIXES_OF.items():
        if suffix.lower() in suffixes:
            return f'missing dependency: {MISSING[name]}'
    return 'not the suffix of an image'


def is_lossy(path: Path) -> bool:
    """Returns whether the compression of the format changes pixel values, which masks forbid."""
    return any(path.suffix.lower() in SUFFIXES_OF[name] for name in LOSSY)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith('.'))
