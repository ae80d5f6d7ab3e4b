# SPDX-License-Identifier: Apache-2.0
"""`rock_seg doctor`: checks the installation and names the command that fixes each problem."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from rock_seg_ros.perception.errors import first_line
from rock_seg_ros.tools.doctor import dds, machine, packages, ros
from rock_seg_ros.tools.doctor.finding import Finding
from rock_seg_ros.tools.main import FAILED

Check = Callable[[], Iterable[Finding]]
CHECKS: tuple[Check, ...] = (
    packages.python,
    packages.required_packages,
    packages.torch,
    packages.cuda,
    packages.openvino,
    packages.onnx_runtime,
    packages.opencv,
    packages.weights,
    ros.ros,
    ros.messages,
    ros.optional_packages,
    dds.settings,
    dds.discovery,
    dds.shared_memory,
    packages.extras,
    machine.memory,
    machine.cores,
)
NAME_WIDTH = 17
STATE_WIDTH = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `rock_seg doctor`."""
    parser.add_argument('--json', action='store_true', help='print one JSON object')


def run(arguments: argparse.Namespace) -> int:
    """Prints the findings; returns 1 if something that the node needs is missing."""
    found = []
    for finding in findings():
        found.append(finding)
        if not arguments.json:
            print(line(finding), flush=True)
    counts = {state: sum(f.state == state for f in found) for state in ('warning', 'failed')}
    if arguments.json:
        checks = [asdict(finding) for finding in found]
        print(json.dumps({'ok': not counts['failed'], 'checks': checks}, ensure_ascii=False))
    else:
        verdict = 'the node cannot run' if counts['failed'] else 'the node can run'
        print(f'{verdict}; {counts["failed"]} failed, {counts["warning"]} warnings')
    return FAILED if counts['failed'] else 0


def findings() -> Iterator[Finding]:
    """Runs all checks. A check that raises an exception has failed."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  (a broken installation raises any exception)
            name = check.__name__.replace('_', ' ')
            text = f'{type(error).__name__}: {first_line(error)}'
            yield Finding(name, 'failed', text, 'rm -rf .venv && make demo')


def line(finding: Finding) -> str:
    """Returns a finding as a line, and below it the command that fixes it."""
    text = f'{finding.state:<{STATE_WIDTH}}{finding.name:<{NAME_WIDTH}}{finding.text}'
    if finding.fix:
        text += f'\n{"":<{STATE_WIDTH + NAME_WIDTH}}fix: {finding.fix}'
    return text
