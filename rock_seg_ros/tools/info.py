# SPDX-License-Identifier: Apache-2.0
"""`rock_seg info`: prints the metadata of a weights file."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rock_seg_ros.perception.inference.weights_file import load_weights

RANGES = 'activation_ranges'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg info`."""
    parser.add_argument(
        'weights', nargs='?', default='', metavar='WEIGHTS',
        help='weights file, or the embedded weights resnet50 or light (default: resnet50 on CUDA,'
        ' light on a CPU)',
    )  # fmt: skip
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(arguments: argparse.Namespace) -> int:
    """Prints the metadata, the number of parameters and the file size."""
    metadata = describe(arguments.weights)
    if arguments.json:
        print(json.dumps(metadata, ensure_ascii=False))
        return 0
    width = max(map(len, metadata))
    separator = '\n' + ' ' * (width + 2)
    for name, value in metadata.items():
        layers = f'{len(value)} layers' if name == RANGES and value else ''
        print(f'{name:<{width}}  {layers or _format_value(value, separator)}')
    return 0


def describe(path: Path | str) -> dict[str, Any]:
    """Reads the metadata of a weights file.

    Returns:
        'file', 'bytes', 'parameters' (None for an ONNX file) and the fields of `ModelMetadata`.

    Raises:
        WeightsError: The file cannot be used.
    """
    weights = load_weights(path)
    counts = [tensor.numel() for name, tensor in weights.state.items() if _is_parameter(name)]
    return {
        'file': str(weights.path),
        'bytes': weights.path.stat().st_size,
        'parameters': sum(counts) if counts else None,
        **asdict(weights.metadata),
    }


def _is_parameter(name: str) -> bool:
    return not name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))


def _format_value(value: Any, separator: str) -> str:
    """Formats a value for printing; `separator` is between the entries of a dict."""
    if isinstance(value, dict):
        return separator.join(f'{name} {number:.4g}' for name, number in value.items()) or '-'
    if isinstance(value, (tuple, list)):
        return ', '.join(map(str, value))
    return f'{value:,}' if isinstance(value, int) else str('-' if value in (None, '') else value)
