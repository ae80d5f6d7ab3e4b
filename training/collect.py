# SPDX-License-Identifier: Apache-2.0
"""Collects photographs without rocks from Debian packages into a folder for training."""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from rock_seg_ros.perception.image_io.decoding import ImageError, decode_rgb
from rock_seg_ros.perception.writing import make_folder
from training.datasets.sample import DataError
from training.synthetic.writing import atomic_folder
from training.writing import write_atomically, write_image

MANIFEST = Path(__file__).with_name('no_rock') / 'manifest.csv'
COLUMNS = (
    *('id', 'split', 'group', 'tags', 'package', 'version', 'path', 'sha256', 'licence'),
    *('fill', 'ignore'),
)
SPLITS = ('train', 'val')
LONG_SIDE = 640
BACKGROUND, IGNORED = 0, 128
JPEG_QUALITY = 95
DOWNLOAD_TIMEOUT = 1800  # s; the largest packages have a gigabyte


class CollectError(RuntimeError):
    """No image can be collected; the message is one line."""


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """An image in a Debian package.

    Attributes:
        name: Stem of the output files, unique.
        split: 'train' or 'val'.
        group: Scene that the image shows; a scene is in one split only.
        tags: Content of the image, as words separated by blanks.
        package: Name of the Debian package.
        version: Version of the package for which the checksum is valid.
        path: Path of the file in the package, without a leading slash.
        sha256: The first 128 bits of the SHA-256 of the file, in hexadecimal digits.
        licence: Licence of the file, as stated by the package.
        fill: RGB colour for transparent pixels; None = the file has none.
        ignore: N×2 polygons of ignored regions, which are or may be rock; x and y as shares of
            width and height, 0 to 1.
    """

    name: str
    split: str
    group: str
    tags: str
    package: str
    version: str
    path: str
    sha256: str
    licence: str
    fill: tuple[int, int, int] | None
    ignore: tuple[NDArray[np.float64], ...] = field(hash=False)


def read_manifest(path: Path) -> list[Photograph]:
    """Reads the list of photographs.

    Args:
        path: CSV file with `COLUMNS`; `ignore` has polygons `x y x y x y`, or boxes
            `left top right bottom`, separated by `;`.

    Raises:
        DataError: The file cannot be read, or a row is invalid; the message names the line.
    """
    try:
        with path.open(newline='', encoding='utf-8') as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read: {error}') from None
    missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f'{path}: the column {missing[0]} is missing; expected: {", ".join(COLUMNS)}'
        )
    photographs: dict[str, Photograph] = {}
    splits: dict[str, str] = {}
    for line, row in rows:
        try:
            photograph = _photograph({key: row[key] or '' for key in COLUMNS})
            if photograph.name in photographs:
                raise ValueError(f'the id {photograph.name!r} is listed twice')
            if splits.setdefault(photograph.group, photograph.split) != photograph.split:
                raise ValueError(f'the group {photograph.group!r} is in train and in val')
        except ValueError as error:
            raise DataError(f'{path}, line {line}: {error}') from None
        photographs[photograph.name] = photograph
    return list(photographs.values())


def _photograph(row: dict[str, str]) -> Photograph:
    for key, pattern in (
        ('id', r'[A-Za-z0-9_-]+'),
        ('split', '|'.join(SPLITS)),
        ('package', r'[a-z0-9][a-z0-9.+-]+'),
        ('path', r'[^/].*'),
        ('sha256', r'[0-9a-f]{32}'),
        ('fill', r'(#[0-9a-f]{6})?'),
    ):
        if not re.fullmatch(pattern, row[key]):
            raise ValueError(f'{key} is {row[key]!r}; it must match {pattern}')
    hexadecimal = row['fill'][1:]
    red, green, blue = bytes.fromhex(hexadecimal or '000000')
    return Photograph(
        name=row['id'],
        split=row['split'],
        group=row['group'] or row['id'],
        tags=row['tags'],
        package=row['package'],
        version=row['version'],
        path=row['path'],
        sha256=row['sha256'],
        licence=row['licence'],
        fill=(red, green, blue) if hexadecimal else None,
        ignore=tuple(_polygon(text) for text in row['ignore'].split(';') if text.strip()),
    )


def _polygon(text: str) -> NDArray[np.float64]:
    try:
        numbers = [float(number) for number in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) < 4 or len(numbers) % 2 or not all(0 <= n <= 1 for n in numbers):
        raise ValueError(
            f'ignore is {text!r}; it must be pairs of x and y from 0 to 1: 2 for a box, 3 or more'
            ' for a polygon'
        )
    if len(numbers) == 4:
        left, top, right, bottom = numbers
        numbers = [left, top, right, top, right, bottom, left, bottom]
    return np.array(numbers).reshape(-1, 2)


def collect(
    photographs: Sequence[Photograph], folder: Path, packages: Path | None = None
) -> tuple[list[Photograph], list[str]]:
    """Writes a source in the format `masks`: images/, masks/ (0, 128 = ignore), manifest.csv.

    The folder appears when it is complete. Photographs that are not available are skipped.

    Args:
        photographs: The photographs to collect.
        folder: Output folder, new or empty.
        packages: Folder of .deb files, which are used and kept; None = download all, keep none.

    Returns:
        The photographs that were collected, and the reasons why others are missing, one line each.

    Raises:
        CollectError: A tool is missing, or no photograph could be collected.
        FileExistsError: The folder is not empty.
        OSError: A file cannot be written.
    """
    _require('dpkg-deb', 'dpkg')
    faults: list[str] = []
    collected: list[Photograph] = []
    by_package = sorted(photographs, key=lambda photograph: photograph.package)
    with atomic_folder(folder) as temporary, tqdm(total=len(photographs), unit='image') as bar:
        for part in ('images', 'masks', 'packages'):
            (temporary / part).mkdir(parents=True)
        for package, members in groupby(by_package, key=lambda photograph: photograph.package):
            bar.set_description(package)
            wanted = list(members)
            try:
                files = _read_package(package, wanted, packages or temporary / 'packages')
            except _UnusablePackageError as error:
                names = ', '.join(photograph.name for photograph in wanted)
                faults.append(f'{error}; skipped: {names}')
                bar.update(len(wanted))
                continue
            for photograph in wanted:
                try:
                    _write(temporary, photograph, files.get(photograph.path))
                    collected.append(photograph)
                except DataError as error:
                    faults.append(f'{photograph.name}: {error}')
                bar.update()
        if not collected:
            raise CollectError(f'no image could be collected; the first reason: {faults[0]}')
        shutil.rmtree(temporary / 'packages')
        _write_manifest(temporary / 'manifest.csv', collected)
    return collected, faults


class _UnusablePackageError(Exception):
    """A package cannot be downloaded or read."""


def _require(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        raise CollectError(f'{tool} is missing; on Debian and Ubuntu, the package {package} has it')


def _read_package(package: str, wanted: Iterable[Photograph], folder: Path) -> dict[str, bytes]:
    """Returns the contents of the wanted files that a package has, by path."""
    deb = _find(package, folder) or _download(package, folder)
    paths = {photograph.path for photograph in wanted}
    command = ('dpkg-deb', '--fsys-tarfile', str(deb))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout
        try:
            with tarfile.open(fileobj=process.stdout, mode='r|') as archive:
                files = dict(_members(archive, paths))
        except (tarfile.TarError, EOFError):
            raise _UnusablePackageError(f'{deb.name} is not a readable Debian package') from None
        finally:
            process.kill()
    return files


def _members(archive: tarfile.TarFile, paths: set[str]) -> Iterator[tuple[str, bytes]]:
    for member in archive:
        path = member.name.removeprefix('./')
        if path in paths and member.isreg() and (file := archive.extractfile(member)):
            yield path, file.read()


def _find(package: str, folder: Path) -> Path | None:
    return max(folder.glob(f'{package}_*.deb'), default=None)


def _download(package: str, folder: Path) -> Path:
    _require('apt-get', 'apt')
    command = ('apt-get', 'download', '--quiet', package)
    make_folder(folder)
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            timeout=DOWNLOAD_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _UnusablePackageError(
            f'the package {package} was not downloaded within {DOWNLOAD_TIMEOUT} s'
        ) from None
    deb = _find(package, folder)
    if result.returncode or deb is None:
        raise _UnusablePackageError(
            f'the package {package} cannot be downloaded; run apt-get update, '
            f'and see apt-get download {package}'
        )
    return deb


def _write(folder: Path, photograph: Photograph, data: bytes | None) -> None:
    if data is None:
        raise DataError(
            f'{photograph.package} has no {photograph.path}; version {photograph.version} had it'
        )
    if hashlib.sha256(data).hexdigest()[:32] != photograph.sha256:
        raise DataError(
            f'{photograph.package}: {photograph.path} has changed since version'
            f' {photograph.version}: its SHA-256 differs'
        )
    try:
        image = _fit(_decode(data, photograph.fill))
    except ImageError as error:
        raise DataError(f'{photograph.path}: {error}') from None
    height, width = image.shape[:2]
    mask = np.full((height, width), BACKGROUND, np.uint8)
    for polygon in photograph.ignore:
        corners = np.round(polygon * (width, height)).astype(np.int32)
        cv2.fillPoly(mask, [corners], (IGNORED,))
    # PNG would be five times as large, and JPEG with quality 95 adds no visible artefacts.
    encoded = cv2.imencode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    write_atomically(folder / 'images' / f'{photograph.name}.jpg', encoded.tobytes())
    write_image(folder / 'masks' / f'{photograph.name}.png', mask)


def _decode(data: bytes, fill: tuple[int, int, int] | None) -> NDArray[np.uint8]:
    if fill is None:
        return decode_rgb(data)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[-1] != 4 or image.dtype != np.uint8:
        raise ImageError('has no 8-bit alpha channel; its fill must be empty')
    share = image[..., 3:] / 255
    return np.round(image[..., 2::-1] * share + np.array(fill) * (1 - share)).astype(np.uint8)


def _fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scales an image down to a long side of `LONG_SIDE`; smaller images are unchanged."""
    height, width = image.shape[:2]
    scale = LONG_SIDE / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _write_manifest(path: Path, photographs: Sequence[Photograph]) -> None:
    columns = ('split', 'group', 'tags', 'package', 'licence')
    with path.open('w', newline='', encoding='utf-8') as file:
        table = csv.writer(file)
        table.writerow(['id', *columns])
        for photograph in photographs:
            table.writerow([photograph.name, *(getattr(photograph, name) for name in columns)])


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, prog='python -m training.collect')
    parser.add_argument('-o', '--out', type=Path, required=True, help='output folder, new or empty')
    parser.add_argument(
        '--manifest',
        type=Path,
        default=MANIFEST,
        help='list of the photographs (default: %(default)s)',
    )
    parser.add_argument(
        '--packages',
        type=Path,
        help='folder of .deb files, which are used and kept (default: a temporary folder)',
    )
    parsed = parser.parse_args(arguments)
    try:
        photographs = read_manifest(parsed.manifest)
        collected, faults = collect(photographs, parsed.out, parsed.packages)
    except (CollectError, DataError, OSError) as error:
        print(f'training.collect: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    for fault in faults:
        print(f'training.collect: {fault}', file=sys.stderr)
    print(f'{len(collected)} of {len(photographs)} images collected in {parsed.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
