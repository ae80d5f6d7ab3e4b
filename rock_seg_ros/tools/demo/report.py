# SPDX-License-Identifier: Apache-2.0
"""Writes the results of the demo: overlays, a contact sheet, a summary and a table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rock_seg_ros.tools.demo.drive import Drive, Sample, decode
from rock_seg_ros.tools.image_results import write_image, write_json

CELL = (480, 360)
COLUMNS = 3
CAPTION_HEIGHT = 24
TRUTH = (60, 255, 60)
SHEET_FRAMES = 5


def overlap(mask: NDArray[np.uint8], truth: NDArray[np.uint8]) -> tuple[int, int]:
    """Counts the pixels of intersection and union of two H×W masks, in which 0 is not rock.

    Raises:
        ValueError: The sizes differ.
    """
    if mask.shape != truth.shape:
        raise ValueError(f'the mask has the shape {mask.shape}, but the label {truth.shape}')
    intersection = np.count_nonzero((mask > 0) & (truth > 0))
    union = np.count_nonzero((mask > 0) | (truth > 0))
    return int(intersection), int(union)


def pooled_iou(overlaps: Iterable[tuple[int, int]]) -> float:
    """Returns the IoU over all pixels of several images, from their intersections and unions."""
    pairs = list(overlaps)
    return sum(i for i, _ in pairs) / max(1, sum(u for _, u in pairs))


def outline_truth(overlay: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draws the contours of a label (H×W, 0 is not rock) onto a copy of an H×W×3 RGB image."""
    canvas = overlay.copy()
    contours, _ = cv2.findContours(truth, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, TRUTH, 1)
    return canvas


def contact_sheet(cells: Sequence[tuple[str, NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Arranges images with captions in a grid.

    Args:
        cells: Caption and H×W×3 uint8 RGB image of each cell.

    Returns:
        H×W×3 uint8 RGB.
    """
    width, height = CELL
    rows = -(-len(cells) // COLUMNS)
    sheet = np.zeros((rows * (height + CAPTION_HEIGHT), COLUMNS * width, 3), np.uint8)
    for number, (caption, image) in enumerate(cells):
        row, column = divmod(number, COLUMNS)
        scale = min(width / image.shape[1], height / image.shape[0])
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        top, left = row * (height + CAPTION_HEIGHT), column * width
        below = top + CAPTION_HEIGHT
        sheet[below : below + size[1], left : left + size[0]] = cv2.resize(
            image, size, interpolation=cv2.INTER_AREA
        )
        origin = (left + 6, below - 7)
        cv2.putText(
            sheet, caption, origin, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA
        )
    return sheet


def write_report(
    output: Path, drive: Drive, samples: list[Sample], seconds: float
) -> dict[str, Any]:
    """Writes overlays, contact sheet and summary; returns the summary."""
    for number, result in enumerate(drive.results.values()):
        overlay = bytes(result.messages['overlay/compressed'].data)
        (output / f'overlay_{number:03d}.jpg').write_bytes(overlay)
    for sample in samples:
        overlay = bytes(sample.result.messages['overlay/compressed'].data)
        (output / f'overlay_sample_{sample.name}.jpg').write_bytes(overlay)
    summary = summarize(drive, samples, seconds)
    write_image(output / 'contact_sheet.jpg', contact_sheet(sheet_cells(drive, samples, summary)))
    write_json(output / 'summary.json', summary)
    return summary


def summarize(drive: Drive, samples: list[Sample], seconds: float) -> dict[str, Any]:
    """Returns the content of summary.json.

    Frames are those of the drive: 'frames_in' is counted by the node from publication sequence
    numbers, and 'frames_out' is the number of masks that arrived. Latencies are measured by the
    node from receipt to publication, over the warm-up and the drive.
    """
    return {
        'frames_in': drive.counts['frames in'],
        'frames_out': len(drive.results),
        'frames_dropped': drive.counts['frames dropped'],
        'latency_ms': {
            name: float(drive.diagnostics[f'latency total {name} ms']) for name in ('p50', 'p95')
        },
        'rocks_per_frame': statistics.fmean(result.rocks for result in drive.results.values()),
        'iou': pooled_iou(overlap(sample.result.mask, sample.truth) for sample in samples),
        'iou_by_image': {
            sample.name: pooled_iou([overlap(sample.result.mask, sample.truth)])
            for sample in samples
        },
        'frames_played': drive.played,
        'frames_rejected': drive.counts['frames rejected'],
        'frames_refused': drive.counts['frames rejected'],  # deprecated name of the key
        'frames_failed': drive.counts['frames failed'],
        'play_rate': drive.rate,
        'seconds_per_image': seconds,
        **{name: drive.diagnostics.get(name) for name in ('device', 'precision', 'weights')},
    }


def sheet_cells(
    drive: Drive, samples: list[Sample], summary: dict[str, Any]
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Returns captions and images: a selection of the drive, then the samples with their labels."""
    stamps = list(drive.results)
    chosen = np.linspace(0, len(stamps) - 1, min(SHEET_FRAMES, len(stamps))).round().astype(int)
    start = stamps[0][0] + stamps[0][1] * 1e-9
    cells = []
    for index in chosen:
        stamp, result = stamps[index], drive.results[stamps[index]]
        caption = f'drive, {stamp[0] + stamp[1] * 1e-9 - start:.1f} s: {result.rocks} rocks'
        cells.append((caption, decode(result.messages['overlay/compressed'])))
    for sample in samples:
        overlay = decode(sample.result.messages['overlay/compressed'])
        iou = summary['iou_by_image'][sample.name]
        caption = f'{sample.name}: IoU {iou:.2f} (label in green)'
        cells.append((caption, outline_truth(overlay, sample.truth)))
    return cells


def table(summary: Mapping[str, Any]) -> str:
    """Returns the summary as a table in text."""
    latency = summary['latency_ms']
    lines = [
        ('play rate', f'{summary["play_rate"]:.2f}'),
        ('frames played', str(summary['frames_played'])),
        ('frames in', str(summary['frames_in'])),
        ('frames out', str(summary['frames_out'])),
        ('frames dropped', str(summary['frames_dropped'])),
        ('latency p50', f'{latency["p50"]:.0f} ms'),
        ('latency p95', f'{latency["p95"]:.0f} ms'),
        ('rocks per frame', f'{summary["rocks_per_frame"]:.1f}'),
        *((f'IoU {name}', f'{iou:.3f}') for name, iou in summary['iou_by_image'].items()),
        ('IoU', f'{summary["iou"]:.3f}'),
    ]
    width = max(len(name) for name, _ in lines)
    return '\n'.join(f'{name:<{width}}  {value:>8}' for name, value in lines)
