# SPDX-License-Identifier: Apache-2.0
"""Compares CPU runtimes, called directly, with the backend of the package; runs are interleaved.

Each runtime gets the same network in fp32, compiled for one image size, which the package cannot
assume. `training.export` writes the ONNX file.

    python -m training.compare_runtimes --size 640x480 --output-stride 8
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rock_seg_ros.perception.errors import all_lines
from rock_seg_ros.perception.inference.model import restore
from rock_seg_ros.perception.inference.segmenter import Segmenter
from rock_seg_ros.perception.inference.weights_file import Weights, load_weights
from rock_seg_ros.tools.bench.timing import parse_size, run_interleaved
from training.weights_export import INPUT, export

Runtime = Callable[[Tensor], object]
MAX_ROUNDS = 100
OURS = 'rock_seg'


def onnx_runtime(file: Path) -> Runtime:
    """Opens an ONNX file with one thread per core."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(str(file), options, ['CPUExecutionProvider'])
    return lambda given: session.run(None, {INPUT: given.numpy()})


def openvino(file: Path, images: Tensor) -> Runtime:
    """Compiles an ONNX file for one size, for latency, in fp32."""
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore  # disables telemetry
    import openvino

    core = openvino.Core()
    graph = core.read_model(file)
    graph.reshape(list(images.shape))
    settings = {'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32'}
    request = core.compile_model(graph, 'CPU', settings).create_infer_request()
    return lambda given: request.infer(given.numpy(), share_inputs=True)


def frozen_compile(weights: Weights, output_stride: int) -> Runtime:
    """Compiles the module with frozen weights; needs a C++ compiler."""
    import torch._inductor.config

    torch._inductor.config.freezing = True
    model = restore(weights.metadata, weights.state, output_stride)
    compiled = torch.compile(model, dynamic=False)

    def run(given: Tensor) -> object:
        with torch.no_grad():
            return compiled(given)['out']

    return run


def timed(runtime: Runtime, images: Tensor) -> float:
    """Runs a runtime once and returns the time, s."""
    began = time.perf_counter()
    runtime(images)
    return time.perf_counter() - began


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(description='Compares CPU runtimes with the package.')
    parser.add_argument('--size', type=parse_size, default='640x480', metavar='WxH',
                        help='size of the image, px')  # fmt: skip
    parser.add_argument('--output-stride', type=int, default=0,
                        help='output stride of the backbone; 0 = as trained')  # fmt: skip
    parser.add_argument('--weights', default='resnet50', metavar='FILE',
                        help='weights file, or resnet50 or light')  # fmt: skip
    parser.add_argument('--seconds', type=float, default=60.0, metavar='S',
                        help='duration of the measurement, s')  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        _compare(given)
    except (ValueError, OSError) as error:
        print(f'training.compare_runtimes: {all_lines(error)}', file=sys.stderr)
        return 1
    return 0


def _compare(given: argparse.Namespace) -> None:
    """Prints the median time of each runtime, and its ratio to that of the package."""
    width, height = given.size
    weights = load_weights(given.weights)
    stride = given.output_stride or weights.metadata.output_stride
    images = torch.rand(1, 3, height, width) * 4 - 2
    ours = Segmenter(weights, 'cpu', 'fp32', output_stride=stride)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / 'network.onnx'
        export(weights, file, [], output_stride=stride)
        runtimes: dict[str, Runtime] = {
            OURS: ours._runner.logits,
            'ONNX Runtime': onnx_runtime(file),
            'OpenVINO': openvino(file, images),
            'torch.compile, frozen': frozen_compile(weights, stride),
        }
        taken = run_interleaved(
            {name: partial(timed, runtime, images) for name, runtime in runtimes.items()},
            given.seconds,
            MAX_ROUNDS,
        )
    medians = {name: float(np.median(runs)) for name, runs in taken.items()}
    print(f'{width}x{height}, output stride {stride}, fp32, {len(taken[OURS])} runs each')
    for name, seconds in medians.items():
        print(f'{name:<22} {seconds * 1e3:8.1f} ms  {seconds / medians[OURS]:.3f} of rock_seg')


if __name__ == '__main__':
    sys.exit(main())
