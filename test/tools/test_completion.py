# SPDX-License-Identifier: Apache-2.0
"""Completion by the protocol of argcomplete, and in bash."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rock_seg_ros.tools.main import COMMANDS

ROOT = Path(__file__).parents[2]
MAX_CPU_TIME = 0.3  # s
SEPARATOR = '\013'
PROGRAM = 'from rock_seg_ros.entry_points import rock_seg; rock_seg()'


def complete(line, folder, program=PROGRAM):
    """Returns the completions of a command line, without a space at their end."""
    output = folder / 'completions'
    environment = os.environ | {
        'COMP_LINE': line,
        'COMP_POINT': str(len(line.encode())),
        '_ARGCOMPLETE': '1',
        '_ARGCOMPLETE_IFS': SEPARATOR,
        '_ARGCOMPLETE_STDOUT_FILENAME': str(output),
        'PYTHONPATH': str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, '-c', program], env=environment, cwd=folder, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, '')
    return {word.strip() for word in output.read_text().split(SEPARATOR)}


@pytest.mark.parametrize(
    ('line', 'offered'),
    [
        ('rock_seg do', {'doctor'}),
        ('rock_seg doctor --j', {'--json'}),
        ('rock_seg images --thr', {'--threshold'}),
        ('rock_seg images --preset ba', {'balanced'}),
        ('rock_seg images --output-stride 1', {'16'}),
        ('rock_seg bag x --outputs mask over', {'overlay', 'overlay/compressed'}),
        ('rock_seg images --input-size 640 480 --no-split', {'--no-split-touching'}),
    ],
)
def test_commands_options_and_values_are_completed(line, offered, tmp_path):
    assert complete(line, tmp_path) == offered


def test_all_commands_are_offered(tmp_path):
    assert set(COMMANDS) <= complete('rock_seg ', tmp_path)


def test_file_names_are_completed(tmp_path):
    (tmp_path / 'rocks.safetensors').touch()
    (tmp_path / 'rover').mkdir()
    assert complete('rock_seg info ro', tmp_path) == {'rocks.safetensors', 'rover/'}
    assert complete('rock_seg images --weights roc', tmp_path) == {'rocks.safetensors'}


def test_completion_is_fast_and_loads_neither_torch_nor_ros(tmp_path):
    program = (
        'import os, sys\n'
        'heavy = {"torch", "rclpy", "cv2", "numpy"}\n'
        'end = os._exit\n'
        'os._exit = lambda status: end(9 if heavy & set(sys.modules) else status)\n' + PROGRAM
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert '--threshold' in complete('rock_seg images --', tmp_path, program)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < MAX_CPU_TIME


def test_the_hook_of_the_workspace_completes_in_bash(tmp_path):
    (tmp_path / 'rock_seg').write_text(
        f'#!{sys.executable}\n# PYTHON_ARGCOMPLETE_OK\nimport sys\n'
        f'sys.path.insert(0, {str(ROOT)!r})\n{PROGRAM}\n'
    )
    (tmp_path / 'rock_seg').chmod(0o755)
    path = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ['PATH']])
    script = (
        f'source {ROOT}/resource/completion.bash\n'
        'complete -p rock_seg\n'
        'COMP_LINE="rock_seg bench --js" COMP_POINT=19 COMP_TYPE=9\n'
        'COMP_WORDS=(rock_seg bench --js) COMP_CWORD=2\n'
        '_python_argcomplete rock_seg --js bench\n'
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ['bash', '--norc', '-c', script],
        env=os.environ | {'PATH': path},
        capture_output=True,
        text=True,
        check=False,
    )
    registered, offered = done.stdout.splitlines()
    assert registered.endswith('-F _python_argcomplete rock_seg')
    assert offered.strip() == '--json'


def test_without_argcomplete_the_hook_does_nothing(tmp_path):
    done = subprocess.run(
        ['/bin/bash', '--norc', '-c', f'source {ROOT}/resource/completion.bash && echo sourced'],
        env={'PATH': str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ('sourced\n', '')
