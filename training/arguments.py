# SPDX-License-Identifier: Apache-2.0
"""Reads command line and configuration file of a training into a `TrainingConfig`."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from training.config import TrainingConfig


def argument_parser(program: str, description: str) -> ArgumentParser:
    """Returns a parser that reads the settings from a file and from options.

    Args:
        program: Name of the command.
        description: Description of the command.
    """
    parser = ArgumentParser(description=description, prog=program)
    parser.add_argument('--config', action='config', help='YAML file with the settings below')
    parser.add_class_arguments(TrainingConfig, as_group=False)
    return parser


def to_config(parser: ArgumentParser, parsed: Namespace) -> TrainingConfig:
    """Converts parsed arguments to a configuration.

    Raises:
        ValueError: A setting is invalid.
    """
    parsed.pop('config')
    return TrainingConfig(**parser.instantiate(parsed).as_dict())


def read_config(file: str) -> TrainingConfig:
    """Reads a configuration file; an invalid file ends the program with exit status 2.

    Raises:
        ValueError: A setting is invalid.
    """
    parser = argument_parser('config', '')
    return to_config(parser, parser.parse_args(['--config', file]))
