# SPDX-License-Identifier: Apache-2.0
"""A training's command line and configuration file, read into a `TrainingConfig`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from training.config import TrainingConfig


def argument_parser(program: str, description: str) -> ArgumentParser:
    """Returns a parser of every setting, from a file or one by one.

    Args:
        program: Name of the command.
        description: What it does.
    """
    parser = ArgumentParser(description=description, prog=program)
    parser.add_argument('--config', action='config', help='YAML file with the settings below')
    parser.add_class_arguments(TrainingConfig, as_group=False)
    return parser


def to_config(parser: ArgumentParser, parsed: Namespace) -> TrainingConfig:
    """Turns what was parsed into a configuration.

    Raises:
        ValueError: A setting is not legal.
    """
    parsed.pop('config')
    return TrainingConfig(**parser.instantiate(parsed).as_dict())


def read_config(file: str) -> TrainingConfig:
    """Reads a configuration file, with a bad one ending the program with status 2.

    Raises:
        ValueError: A setting is not legal.
    """
    parser = argument_parser('config', '')
    return to_config(parser, parser.parse_args(['--config', file]))
