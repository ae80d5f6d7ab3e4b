# SPDX-License-Identifier: Apache-2.0
"""Writes the parts of the documentation that repeat the code: `python docs/generate.py`.

A part stands between the lines `<!-- generated: NAME -->` and `<!-- end -->` of a page.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
import inspect
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
COMPLETION = ROOT / 'rock_seg_ros' / 'tools' / 'completion.json'
BLOCK = re.compile(r'(<!-- generated: (\w+) -->\n).*?(<!-- end -->)', re.DOTALL)

LOGGED = ('warning', 'error', 'fatal', '_log_once')
# Files whose functions return or name what is logged elsewhere.
RETURNING = ('rock_seg_ros/node/camera.py', 'rock_seg_ros/node/camera_geometry.py')
GROUP_FILE = 'Path to a configuration file.'  # jsonargparse's option for a group of options
DEVICE = 'Device, backend or precision is not available'

# Published only where vision_msgs is installed, which the documentation does not depend on.
VISION = {'~/detections': 'vision_msgs/Detection2DArray'}
FIELDS = {
    'x': 'm, position of the middle of the visible surface, optical frame',
    'y': 'm',
    'z': 'm',
    'u': 'px, centroid',
    'v': 'px',
    'width': 'px, bounding box',
    'height': 'px',
    'area': 'px, number of pixels',
    'diameter': 'm, diameter of a disc with the area of the silhouette',
    'score': 'mean confidence of the pixels, 0 to 1',
    'extent_x': 'm, size along the axes of the optical frame',
    'extent_y': 'm',
    'extent_z': 'm',
    'height_above_ground': 'm, height of the top above the ground around the rock',
    'distance': 'm, distance from the camera',
    'class_id': 'class id, see `~/label_info`',
    'target': '1 for the rock that `~/target` names, else 0',
    'id': 'track id',
}


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    lines = [list(header), ['---'] * len(list(header)), *map(list, rows)]
    cells = ([cell.replace('|', r'\|') for cell in line] for line in lines)
    return ''.join(f'| {" | ".join(line)} |\n' for line in cells)


def sentence(text: str | None) -> str:
    """Returns a docstring or help text as one line of Markdown."""
    line = ' '.join(inspect.cleandoc(text or '').split())
    return line.replace('<', '&lt;').replace('*', r'\*')


def value(default: Any) -> str:
    """Returns a default value as YAML has it."""
    if default in ('', ()):
        return 'empty'
    return f'`{str(default).lower() if isinstance(default, bool) else default}`'


def parameters() -> str:
    """The parameters of the node."""
    from rock_seg_ros.node.parameters import PARAMETERS

    def row(name: str, spec: Any) -> list[str]:
        about = spec.metadata
        limits = ', '.join(f'`{choice}`' for choice in about['choices'])
        if about['range']:
            low, high = about['range']
            limits = f'{low:g} to {high:g}' if isinstance(high, float) else f'{low} to {high}'
        marks = {'live': about['live'], 'read at start': about['read_only']}
        marked = ''.join(f'<br>*{mark}*' for mark, holds in marks.items() if holds)
        cells = f'`{name}`{marked}', value(spec.default), limits, sentence(about['description'])
        return list(cells)

    header = ('parameter', 'default', 'range', 'description')
    return table(header, (row(name, spec) for name, spec in PARAMETERS.items()))


def outputs() -> str:
    """The topics that the node publishes for each image."""
    from rock_seg_ros.node.outputs import OUTPUTS
    from rock_seg_ros.node.outputs.vision import Detections

    def row(output: Any) -> list[str]:
        message = output.message_type
        kind = VISION.get(output.topic) or f'{message.__module__.split(".")[0]}/{message.__name__}'
        what = f'{sentence(output.__doc__)} {sentence(output.messages.__doc__)}'
        return [f'`{output.topic}`<br>{kind}', str(output.depth), what]

    listed = [output for output in OUTPUTS if output is not Detections]
    listed.insert(-1, Detections)  # the rocks go out last
    return table(('topic and type', 'queue depth', 'description'), map(row, listed))


def rock_fields() -> str:
    """The fields of a point of `~/rocks`."""
    from rock_seg_ros.node.outputs.clouds import ROCK_POINT

    names = ROCK_POINT.names or ()
    rows = ([f'`{name}`', ROCK_POINT[name].name, FIELDS[name]] for name in names)
    return table(('field', 'type', 'unit and meaning'), rows)


class _FoundError(Exception):
    """Carries a command's parser out of its `main`."""


def parser_of(main: Callable[[], Any], *arguments: str) -> argparse.ArgumentParser:
    """Returns the parser that a command's `main` reads its arguments with."""
    from jsonargparse import ArgumentParser

    def stop(parser: Any, *_: Any, **__: Any) -> Any:
        raise _FoundError(parser)

    kinds = argparse.ArgumentParser, ArgumentParser
    with (
        patch.object(kinds[0], 'parse_args', stop),
        patch.object(kinds[1], 'parse_args', stop),
        patch.object(sys, 'argv', list(arguments)),
    ):
        try:
            main()
        except _FoundError as found:
            return found.args[0]
    raise TypeError(f'{main} reads no arguments')


def options(parser: argparse.ArgumentParser) -> str:
    """Returns a command's description and a table of its arguments."""

    def row(action: argparse.Action) -> list[str]:
        names = ', '.join(f'`{name}`' for name in action.option_strings)
        dest = action.metavar or action.dest.upper()
        names = names or f'`{dest if isinstance(dest, str) else " ".join(dest)}`'
        text = '' if action.help == argparse.SUPPRESS else sentence(_help(parser, action))
        choices = [str(choice) for choice in action.choices or ()]
        if 0 < len(choices) < 20 and not all(choice in text for choice in choices):
            text += f' One of {", ".join(f"`{choice}`" for choice in choices)}.'
        if action.required and action.option_strings:
            text = f'*Required.* {text}'
        return [names, text.strip()]

    shown = [a for a in parser._actions if a.help != argparse.SUPPRESS and a.dest != 'help']
    shown = [a for a in shown if a.dest != 'print_config' and a.help != GROUP_FILE]
    text = inspect.cleandoc(parser.description or '')
    text = f'{text[:1].upper()}{text[1:].removesuffix(".")}.\n\n' if text else ''
    return text + table(('argument', 'description'), map(row, shown))


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """Returns the help of an argument, with its default if it has one to show."""
    text = (action.help or '') % {**vars(action), 'prog': parser.prog} if action.help else ''
    default = action.default
    shown = isinstance(default, (int, float, str, list, tuple)) and default not in ('', [], ())
    if shown and default is not False and 'default' not in text and default != argparse.SUPPRESS:
        spoken = ' '.join(map(str, default)) if isinstance(default, (list, tuple)) else default
        text = f'{text} (default: {spoken})'
    return text.replace(f'{ROOT}/', '')  # a default that is a path in the checkout


def commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The subcommands of `rock_seg`."""
    from rock_seg_ros.tools.main import COMMANDS, main

    for name in COMMANDS:
        yield f'rock_seg {name}', parser_of(main, 'rock_seg', name)


def training_commands() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The commands of `training`: its modules that run as programs."""
    for file in sorted((ROOT / 'training').glob('*.py')):
        if "__name__ == '__main__'" in file.read_text():
            module = f'training.{file.stem}'
            main = importlib.import_module(module).main
            yield f'python -m {module}', parser_of(main, module)


def sections(found: Iterable[tuple[str, argparse.ArgumentParser]]) -> str:
    """Returns a section for each command."""
    return '\n'.join(f'### {name}\n\n{options(parser)}' for name, parser in found)


def launch_arguments() -> str:
    """The arguments of the launch file."""
    text = (ROOT / 'launch' / 'seg.launch.py').read_text()
    wanted = dict(re.findall(r"^    '(\w+)': (?:\(\w+, )?[\"'](.+?)[\"']\)?,$", text, re.MULTILINE))
    more = r"^        \('(\w+)', .+?, '([^']+)'(?: \+ NOT_GIVEN)?\),$"
    wanted |= dict(re.findall(more, text, re.MULTILINE))
    rows = ([f'`{name}`', sentence(about)] for name, about in wanted.items())
    return table(('argument', 'description'), rows)


# The heading of the page on troubleshooting that explains the messages of a file or folder. The
# first one that fits counts.
ENTRIES = {
    'launch/': 'The launch file reports an error',
    'rock_seg_ros/node/images.py': 'Images are rejected',
    'rock_seg_ros/node/camera.py': 'No images arrive',
    'rock_seg_ros/node/camera_geometry.py': 'Metres are NaN',
    'rock_seg_ros/node/transforms.py': 'Metres are NaN',
    'rock_seg_ros/node/processing.py': 'Processing of an image fails',
    'rock_seg_ros/node/worker.py': 'Processing of an image fails',
    'rock_seg_ros/node/outputs/': 'Processing of an image fails',
    'rock_seg_ros/node/': 'The node stays unconfigured',
    'rock_seg_ros/perception/geometry/scale.py': 'An image has no scale',
    'rock_seg_ros/perception/geometry/': 'Metres are NaN',
    'rock_seg_ros/perception/image_io/depth.py': 'Metres are NaN',
    'rock_seg_ros/perception/image_io/': 'Images are rejected',
    'rock_seg_ros/perception/inference/backends/': DEVICE,
    'rock_seg_ros/perception/inference/presets.py': DEVICE,
    'rock_seg_ros/perception/inference/segmentation.py': 'Images are rejected',
    'rock_seg_ros/perception/inference/segmenter.py': DEVICE,
    'rock_seg_ros/perception/inference/tiling.py': DEVICE,
    'rock_seg_ros/perception/inference/': 'Weights are rejected',
    'rock_seg_ros/': 'A command fails',
    'training/': 'Training reports an error',
}


# The same for the exception or channel of a message, in one file or ('') in any.
SOURCE_ENTRIES = {
    ('', 'InvalidImageError'): 'Images are rejected',
    ('', 'SizeError'): 'Images are rejected',
    ('', 'DeviceError'): DEVICE,
    ('rock_seg_ros/node/seg_node.py', 'reply'): 'A service call is not successful',
    ('rock_seg_ros/node/seg_node.py', 'log'): 'Processing of an image fails',
    ('rock_seg_ros/node/lifecycle.py', 'log'): 'A service call is not successful',
}


def words(node: ast.expr) -> list[str]:
    """Returns the texts that an expression may give, with the values in it in capitals."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    if isinstance(node, ast.IfExp):
        return words(node.body) + words(node.orelse)
    if not isinstance(node, ast.JoinedStr):
        return []
    text = ''
    for part in node.values:
        if isinstance(part, ast.FormattedValue):
            inner = part.value
            name = getattr(inner, 'attr', getattr(inner, 'id', 'value'))
            text += name.strip('_').upper()
        else:
            text += ''.join(words(part))
    return [text]


def texts_in(node: ast.AST, name: str) -> tuple[str, list[list[str]]]:
    """Returns the source of a message (an exception, 'log', 'reply') and its parts' variants."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return getattr(node.exc.func, 'id', ''), list(map(words, node.exc.args))
    if isinstance(node, ast.Call) and getattr(node.func, 'attr', name_of(node.func)) in LOGGED:
        return 'log', list(map(words, node.args))
    if isinstance(node, ast.Assign) and getattr(node.targets[0], 'attr', '') == 'message':
        return 'reply', [words(node.value)]
    if name in RETURNING and isinstance(node, (ast.Assign, ast.Return)) and node.value:
        return 'log', [words(node.value)]
    return '', []


def name_of(node: ast.expr) -> str:
    """Returns the name that an expression is, '' for another one."""
    return node.id if isinstance(node, ast.Name) else ''


def messages() -> str:
    """The messages of the software, below the entry that explains them."""
    found: dict[str, set[str]] = {}
    for folder in ('launch', 'rock_seg_ros', 'training'):
        for file in sorted((ROOT / folder).rglob('*.py')):
            name = file.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(file.read_text())):
                by, variants = texts_in(node, name)
                path = next(entry for start, entry in ENTRIES.items() if name.startswith(start))
                entry = SOURCE_ENTRIES.get((name, by)) or SOURCE_ENTRIES.get(('', by)) or path
                for part in itertools.product(*filter(None, variants)):
                    text = ': '.join(part).replace('`', '')
                    if re.search(r'\b[a-z]{2,}\b.*\s', text):
                        found.setdefault(entry, set()).add(text)
    parts = []
    for entry, texts in sorted(found.items()):
        listed = ''.join(f'- `{text}`\n' for text in sorted(texts, key=str.lower))
        parts.append(f'## {entry}\n\n[What to do](troubleshooting.md#{slug(entry)}).\n\n{listed}')
    return '\n'.join(parts)


def slug(heading: str) -> str:
    """Returns the anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r'[^\w\s-]', '', heading).strip().lower().replace(' ', '-')


SECTION = re.compile(
    r'^(Args|Attributes|Returns|Raises|Example):\n((?:(?: .*)?\n?)+)', re.MULTILINE
)


EXAMPLE = re.compile(r'((?:^>>> .*\n(?:(?!>>> ).+\n)*)+)', re.MULTILINE)


def docstring(thing: Any) -> str:
    """Returns a docstring in Google's style as Markdown."""

    def section(found: re.Match[str]) -> str:
        body = inspect.cleandoc(found[2])
        if found[1] in ('Returns', 'Example'):
            return f'**{found[1]}:** {body}\n\n'
        items = re.split(r'\n(?=\S)', body)
        title = found[1].replace('Args', 'Arguments')
        lines = (re.sub(r'^(\w+): ', r'`\1`: ', ' '.join(item.split())) for item in items)
        return f'**{title}**\n\n' + ''.join(f'- {line}\n' for line in lines) + '\n'

    text = SECTION.sub(section, inspect.cleandoc(thing.__doc__ or '') + '\n')
    return EXAMPLE.sub(r'```pycon\n\1```\n', text)


def signature(name: str, thing: Any) -> str:
    """Returns a code block with the parameters of a function, without `self`."""
    found = inspect.signature(thing)
    shown = [str(p).replace("'", '', 2) for p in found.parameters.values() if p.name != 'self']
    inner = ', '.join(shown)
    if len(inner) > 60:
        inner = ''.join(f'\n    {parameter},' for parameter in shown) + '\n'
    result = found.return_annotation
    returns = f' -> {result}' if result not in (inspect.Parameter.empty, 'None') else ''
    return f'```python\n{name}({inner}){returns}\n```\n\n'


def members(cls: type) -> Iterator[str]:
    """Describes the public properties and methods of a class."""
    for name, member in vars(cls).items():
        if name.startswith('_'):
            continue
        if isinstance(member, (property, functools.cached_property)):
            yield f'#### {name}\n\n{docstring(member)}'
        elif inspect.isfunction(member):
            heading = f'#### {name}()\n\n'
            yield heading + signature(name, member) + docstring(member)


def python_api() -> str:
    """The public classes and functions of the package."""
    import rock_seg_ros

    parts = []
    first = ('RockSegmenter', 'SegmentationResult')
    for name in sorted(rock_seg_ros.__all__, key=lambda name: (name not in first, name)):
        thing = getattr(rock_seg_ros, name)
        parts.append(f'### {name}\n\n')
        if dataclasses.is_dataclass(thing):
            parts.append(docstring(thing))
        elif inspect.isclass(thing):
            made = signature(name, thing) + docstring(thing.__init__)
            parts += [
                docstring(thing),
                *([made] if len(inspect.signature(thing).parameters) > 1 else []),
            ]
            parts += members(thing)
        else:
            parts.append(signature(name, thing) + docstring(thing))
    return ''.join(f'{part.rstrip()}\n\n' for part in parts)


def metadata() -> str:
    """The fields of the metadata of weights."""
    from rock_seg_ros.perception.inference.metadata import ModelMetadata

    text = docstring(ModelMetadata)
    return text[text.index('- ') :]


BLOCKS: dict[str, Callable[[], str]] = {
    'parameters': parameters,
    'outputs': outputs,
    'rock_fields': rock_fields,
    'launch_arguments': launch_arguments,
    'messages': messages,
    'metadata': metadata,
    'python_api': python_api,
    'commands': lambda: sections(commands()),
    'training_commands': lambda: sections(training_commands()),
}


@functools.cache
def block(name: str) -> str:
    """Returns a generated part."""
    return BLOCKS[name]()


def completion() -> str:
    """The options of the subcommands, for completion in the shell."""
    from rock_seg_ros.tools.completion import describe
    from rock_seg_ros.tools.main import COMMANDS

    described = {
        name.split()[-1]: describe(parser._actions, COMMANDS[name.split()[-1]][1])
        for name, parser in commands()
    }
    return json.dumps(described).replace('{"names"', '\n{"names"') + '\n'


def pages() -> dict[Path, str]:
    """Returns each page that has generated parts, and the options for completion."""
    found = {COMPLETION: completion()}
    for page in sorted(DOCS.glob('*.md')):
        text = page.read_text()
        if BLOCK.search(text):
            found[page] = BLOCK.sub(lambda m: f'{m[1]}{block(m[2])}{m[3]}', text)
    return found


def main() -> None:
    """Writes the pages."""
    for page, text in pages().items():
        page.write_text(text)


if __name__ == '__main__':
    sys.path.insert(0, str(ROOT))
    main()
