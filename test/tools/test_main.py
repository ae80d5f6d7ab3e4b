# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rock_seg_ros.tools import main as command_line
from rock_seg_ros.tools.main import COMMANDS, UsageError, main


@pytest.fixture
def command(monkeypatch):
    """Adds a command `try` that runs a function."""

    def add(run):
        module = SimpleNamespace(
            add_arguments=lambda parser: parser.add_argument('--number', type=int, default=0),
            run=run,
        )
        monkeypatch.setitem(COMMANDS, 'try', ('try', 'for tests'))
        monkeypatch.setitem(sys.modules, 'rock_seg_ros.tools.try', module)

    return add


def raising(error):
    def run(arguments):
        raise error

    return run


@pytest.mark.parametrize('name', COMMANDS)
def test_each_listed_command_has_a_module_and_help(name, capsys):
    importlib.import_module(f'rock_seg_ros.tools.{name}')
    assert main([name, '--help']) == 0
    assert f'usage: rock_seg {name}' in capsys.readouterr().out


def test_help_lists_all_commands_without_loading_torch_or_ros():
    check = (
        'import sys; from rock_seg_ros.tools.main import main; status = main(["--help"]);'
        'print({"torch", "rclpy", "cv2"} & set(sys.modules), status)'
    )
    output = subprocess.run([sys.executable, '-c', check], capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == 'set() 0'
    assert all(f'  {name}' in output for name in COMMANDS)


@pytest.mark.parametrize('arguments', [[], ['nonsense'], ['try', '--number', 'x'], ['try', '-q']])
def test_a_usage_error_is_status_2_with_the_usage(arguments, command, capsys):
    command(lambda _: 0)
    assert main(arguments) == 2
    assert 'usage: rock_seg' in capsys.readouterr().err


def test_the_status_of_the_command_is_returned_and_its_arguments_are_parsed(command):
    command(lambda arguments: arguments.number)
    assert main(['try', '--number', '1']) == 1
    assert main(['try']) == 0


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (ValueError('x.pth: holds no state dict\nmore'), 'x.pth: holds no state dict'),
        (FileNotFoundError(2, 'No such file', 'a.png'), 'a.png: No such file'),
        (ImportError('no', name='rclpy'), 'missing dependency: rclpy'),
    ],
)
def test_an_error_is_one_line_and_status_1(error, message, command, capsys):
    command(raising(error))
    assert main(['try']) == 1
    assert capsys.readouterr().err == f'rock_seg try: {message}\n'


def test_arguments_that_exclude_each_other_are_status_2(command, capsys):
    command(raising(UsageError('no')))
    assert main(['try']) == 2
    assert capsys.readouterr().err == 'rock_seg try: no\n'


def test_ctrl_c_is_status_130_without_a_message(command, capsys):
    command(raising(KeyboardInterrupt()))
    assert main(['try']) == 130
    assert capsys.readouterr().err == ''


def test_ctrl_c_while_a_command_is_loaded_ends_the_process_without_a_message():
    check = (
        'import importlib, os, signal\n'
        'import rock_seg_ros.tools.main as m\n'
        'm.importlib.import_module = lambda _: os.kill(os.getpid(), signal.SIGINT)\n'
        'm.main(["info"])\n'
    )
    done = subprocess.run([sys.executable, '-c', check], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, '')


def test_the_previous_handler_of_ctrl_c_is_restored(command):
    before = command_line.signal.getsignal(command_line.signal.SIGINT)
    command(lambda _: 0)
    main(['try'])
    assert command_line.signal.getsignal(command_line.signal.SIGINT) is before


def test_an_error_line_is_short_and_has_no_control_characters(command, capsys):
    command(raising(FileNotFoundError(2, 'No such file or directory', 'a\x1b[2J' + 5000 * 'b')))
    assert main(['try']) == 1
    error = capsys.readouterr().err
    assert error.startswith('rock_seg try: a?[2Jbbb')
    assert error.endswith('bbb: No such file or directory\n')
    assert len(error) < 500


def test_a_name_that_cannot_be_printed_is_not_an_error(command, capsys):
    command(lambda arguments: print('stone\udcff.png') or 0)
    assert main(['try']) == 0
    assert 'stone' in capsys.readouterr().out


DECODE = """
import sys
from types import SimpleNamespace
from rock_seg_ros.tools.main import COMMANDS, main

def run(arguments):
    from rock_seg_ros.perception.image_io.decoding import decode_rgb
    decode_rgb(bytes.fromhex(sys.argv[1]))

COMMANDS['try'] = 'try', 'for tests'
sys.modules['rock_seg_ros.tools.try'] = SimpleNamespace(add_arguments=lambda _: None, run=run)
sys.exit(main(['try']))
"""


def test_an_invalid_image_is_an_error_of_one_line_without_messages_of_opencv(monkeypatch):
    monkeypatch.delenv('OPENCV_LOG_LEVEL', raising=False)
    whole = cv2.imencode('.png', np.arange(999, dtype=np.uint8).reshape(9, 37, 3))[1].tobytes()
    tiff = cv2.imencode('.tiff', np.zeros((9, 9, 3), np.float32))[1].tobytes()
    for bad in (whole[: len(whole) // 2], tiff[:60] + tiff[200:]):
        done = subprocess.run(
            [sys.executable, '-c', DECODE, bad.hex()], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith('rock_seg try: does not decode')
