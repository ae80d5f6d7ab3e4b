# SPDX-License-Identifier: Apache-2.0
"""Checks of Python, its packages, the GPU and the weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.doctor.finding import Finding, import_or_reason, pip_install

PYTHON = (3, 11)
# Module → package on PyPI, as in setup.py. torch, torchvision and OpenCV have checks of their own.
REQUIRED = {
    'av': 'av',
    'backports.zstd': 'backports.zstd',
    'jinja2': 'Jinja2',
    'lz4': 'lz4',
    'matplotlib': 'matplotlib',
    'mcap': 'mcap',
    'numpy': 'numpy',
    'PIL': 'pillow',
    'yaml': 'PyYAML',
    'rosbags': 'rosbags',
    'safetensors': 'safetensors',
    'timm': 'timm',
    'tqdm': 'tqdm',
}
# Module → package on PyPI, and what it is for.
EXTRAS = {
    'pandas': ('pandas', 'tables'),
    'openpyxl': ('openpyxl', 'tables in .xlsx'),
    'pyarrow': ('pyarrow', 'tables in .parquet'),
    'aiohttp': ('aiohttp', 'the live view'),
    'ray': ('ray', 'jobs on a cluster'),
    'argcomplete': ('argcomplete', 'completion in the shell'),
    'pillow_heif': ('pillow-heif', 'HEIC images'),
}
NVIDIA_DRIVER = Path('/proc/driver/nvidia/version')
JETSON = Path('/etc/nv_tegra_release')
JETSON_CONTAINER = 'jetson-containers run $(autotag ros:jazzy)'
DEVICES = Path('/dev')
MIB = 2**20
TEST_SIZE = (480, 640)


def python() -> Iterator[Finding]:
    """Checks the version of the interpreter."""
    text = f'{platform.python_version()} ({sys.executable})'
    if sys.version_info >= PYTHON:
        yield Finding('Python', 'ok', text)
    else:
        yield Finding('Python', 'failed', f'{text}; 3.11 or newer is needed',
                      'make demo PYTHON=python3.12')  # fmt: skip


def required_packages() -> Iterator[Finding]:
    """Checks the packages that the node and the commands import."""
    zstd = 'backports.zstd'  # part of the standard library of Python 3.14
    names = [name for name in REQUIRED if name != zstd or sys.version_info < (3, 14)]
    reasons = {name: reason for name in names if (reason := import_or_reason(name)[1])}
    if not reasons:
        yield Finding('packages', 'ok', f'{len(names)} required packages are installed')
        return
    fix = pip_install(*(REQUIRED[name] for name in reasons))
    yield Finding('packages', 'failed', '; '.join(reasons.values()), fix)


def torch() -> Iterator[Finding]:
    """Checks torch, and that torchvision was built for it."""
    fix = JETSON_CONTAINER if JETSON.exists() else pip_install('torch', 'torchvision')
    for name in ('torch', 'torchvision.ops'):
        if reason := import_or_reason(name)[1]:
            yield Finding('torch', 'failed', reason, fix)
            return
    import torch
    import torchvision

    versions = f'{torch.__version__}, torchvision {torchvision.__version__}'
    try:
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # noqa: BLE001  (the compiled operators of another torch)
        text = f'{versions} do not match: {first_line(error)}'
        yield Finding('torch', 'failed', text, fix)
        return
    yield Finding('torch', 'ok', versions)


def cuda() -> Iterator[Finding]:
    """Checks the NVIDIA driver, whether torch can use it, and whether a GPU is visible."""
    torch, _ = import_or_reason('torch')
    if torch is None:
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        available = torch.cuda.is_available()
    if available:
        yield _gpu()
        return
    reason = next((first_line(warning.message) for warning in caught
                   if isinstance(warning.message, Warning)), '')  # fmt: skip
    if not NVIDIA_DRIVER.exists():
        yield Finding('CUDA', 'ok', 'no NVIDIA driver; the network runs on the CPU')
    elif torch.version.cuda is None:
        fix = JETSON_CONTAINER if JETSON.exists() else pip_install(
            '--force-reinstall', 'torch', 'torchvision')  # fmt: skip
        yield Finding('CUDA', 'warning', 'this torch is built without CUDA', fix)
    elif 'CUDA_VISIBLE_DEVICES' in os.environ:
        shown = os.environ['CUDA_VISIBLE_DEVICES']
        text = f'CUDA_VISIBLE_DEVICES={shown} hides the GPU'
        yield Finding('CUDA', 'warning', text, 'unset CUDA_VISIBLE_DEVICES')
    elif not any(DEVICES.glob('nvidia[0-9]*')):
        text = 'the NVIDIA driver is loaded, but no GPU is visible, as in a container without one'
        yield Finding('CUDA', 'warning', text, 'docker run --gpus all IMAGE')
    else:
        text = f'torch for CUDA {torch.version.cuda} cannot use the driver: {reason or "unknown"}'
        yield Finding('CUDA', 'warning', text, 'sudo ubuntu-drivers install')


def _gpu() -> Finding:
    import torch

    name = f'{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}'
    try:
        torch.ones(8, device='cuda').sum().item()
        free, total = torch.cuda.mem_get_info()
    except RuntimeError as error:
        text = f'{name}: {first_line(error)}'
        return Finding('CUDA', 'failed', text, 'export CUDA_VISIBLE_DEVICES=')
    return Finding('CUDA', 'ok', f'{name}, {free // MIB} of {total // MIB} MiB free')


def openvino() -> Iterator[Finding]:
    """Checks OpenVINO, the fastest backend on a CPU."""
    module, reason = import_or_reason('openvino')
    if module is None:
        text = f'{reason}; the network is slower on a CPU'
        yield Finding('OpenVINO', 'warning', text, pip_install('openvino'))
        return
    devices = ', '.join(module.Core().available_devices)
    yield Finding('OpenVINO', 'ok', f'{module.__version__}, devices: {devices}')


def onnx_runtime() -> Iterator[Finding]:
    """Checks ONNX Runtime and its execution providers."""
    module, reason = import_or_reason('onnxruntime')
    if module is None:
        text = f'{reason}; .onnx weights cannot be used'
        yield Finding('ONNX Runtime', 'warning', text, pip_install('onnxruntime'))
        return
    providers = ', '.join(
        name.removesuffix('ExecutionProvider') for name in module.get_available_providers()
    )
    yield Finding('ONNX Runtime', 'ok', f'{module.__version__}, providers: {providers}')


def opencv() -> Iterator[Finding]:
    """Checks OpenCV."""
    module, reason = import_or_reason('cv2')
    if module is None:
        yield Finding('OpenCV', 'failed', reason, pip_install('opencv-python-headless'))
        return
    yield Finding('OpenCV', 'ok', module.__version__)


def extras() -> Iterator[Finding]:
    """Checks the optional packages, without importing them."""
    for module, (package, purpose) in EXTRAS.items():
        if _is_installed(module):
            yield Finding(package, 'ok', f'{_version(package)}, for {purpose}')
        else:
            text = f'is not installed; needed for {purpose}'
            yield Finding(package, 'warning', text, pip_install(package))


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # the module is blocked
        return False


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return 'unknown version'


def weights() -> Iterator[Finding]:
    """Loads the embedded weights, and segments an image with the default network."""
    if import_or_reason('torch')[0] is None or import_or_reason('cv2')[0] is None:
        return
    import numpy as np

    from rock_seg_ros.perception.inference.segmenter import Segmenter
    from rock_seg_ros.perception.inference.weights_file import (
        EMBEDDED,
        embedded_path,
        load_weights,
    )

    for name in EMBEDDED:
        path = embedded_path(name)
        try:
            metadata = load_weights(path).metadata
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except (ValueError, OSError) as error:
            fix = f'git -C {path.parent} checkout -- {path.name}'
            yield Finding(f'weights {name}', 'failed', first_line(error), fix)
            return
        text = (
            f'{metadata.architecture}, {path.stat().st_size / MIB:.1f} MiB, SHA-256 {digest[:16]}'
        )
        yield Finding(f'weights {name}', 'ok', text)
    segmenter = Segmenter(load_weights())
    image = np.zeros((*TEST_SIZE, 3), np.uint8)
    segmenter.segment(image)
    began = time.monotonic()
    segmenter.segment(image)
    used = f'{segmenter.device}, {segmenter.backend}, {segmenter.precision}'
    milliseconds = 1000 * (time.monotonic() - began)
    yield Finding('network', 'ok', f'{milliseconds:.0f} ms for a 640×480 image on {used}')
