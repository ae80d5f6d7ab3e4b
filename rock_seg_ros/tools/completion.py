# SPDX-License-Identifier: Apache-2.0
"""Completion of the `rock_seg` command in the shell with argcomplete.

The parsers of the subcommands take their defaults from code that imports PyTorch, which is too slow
for a key press. Their options are therefore read from `completion.json`, which docs/generate.py
writes from the same parsers.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

OPTIONS = Path(__file__).with_name('completion.json')
NO_VALUE = 0


def is_requested() -> bool:
    """Whether the shell runs the command only to complete its command line."""
    return '_ARGCOMPLETE' in os.environ


def complete() -> None:
    """Prints the completions that the shell asks for, and ends the process."""
    import argcomplete

    argcomplete.autocomplete(parser_of(json.loads(OPTIONS.read_text())))


def parser_of(commands: Mapping[str, Mapping[str, Any]]) -> argparse.ArgumentParser:
    """Builds a parser that has the options of all subcommands, but does nothing.

    Args:
        commands: What `describe` returned for each subcommand.
    """
    parser = argparse.ArgumentParser('rock_seg')
    subcommands = parser.add_subparsers()
    for name, command in commands.items():
        subcommand = subcommands.add_parser(name, help=command['help'])
        for argument in command['arguments']:
            settings: dict[str, Any] = {'help': argument['help'], 'choices': argument['choices']}
            if argument['values'] == NO_VALUE:
                settings = {'help': argument['help'], 'action': 'store_true'}
            elif argument['values'] != 1:
                settings['nargs'] = argument['values']
            subcommand.add_argument(*argument['names'], **settings)
    return parser


def describe(actions: Iterable[argparse.Action], description: str) -> dict[str, Any]:
    """Returns what completion needs to know of a subcommand, as JSON holds it.

    Args:
        actions: The arguments of its parser.
        description: What it does, in a sentence.
    """
    return {'help': description, 'arguments': [_describe(a) for a in actions if a.dest != 'help']}


def _describe(action: argparse.Action) -> dict[str, Any]:
    return {
        'names': [*action.option_strings] or [action.dest],
        'values': 1 if action.nargs is None else action.nargs,
        'choices': [str(choice) for choice in action.choices] if action.choices else None,
        'help': (action.help or '').partition(';')[0].partition(' (default')[0],
    }
