# SPDX-License-Identifier: Apache-2.0
"""Command-line arguments that several commands share, and those of a training."""

from __future__ import annotations

from jsonargparse import ArgumentParser, Namespace

from rock_seg_ros.perception.inference.presets import PRESETS
from training.cases import Case
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


def add_case_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments that choose sets of labelled images, and the device."""
    parser.add_argument('--config', action='config', help='YAML file with these settings')
    parser.add_argument(
        '--cases', type=dict[str, Case], required=True, help='the sets of images by name'
    )
    parser.add_argument(
        '--only',
        nargs='+',
        type=str,
        default=[],
        help='names of the cases to use (default: all whose images exist)',
    )
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda or cuda:N')


def add_network_arguments(parser: ArgumentParser) -> None:
    """Adds the arguments that choose one network."""
    parser.add_argument(
        '--weights',
        type=str,
        default='',
        help='weights file, resnet50 or light (default: the embedded weights of the device)',
    )
    parser.add_argument(
        '--preset', choices=PRESETS, default='auto', help='trade-off of accuracy and speed'
    )
