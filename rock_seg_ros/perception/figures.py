# SPDX-License-Identifier: Apache-2.0
"""Plots and images as data URIs, for reports of one HTML file."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import cv2
import jinja2
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

SIZE = (4.2, 3.4)
# Colours of Okabe and Ito, which colour-blind people can distinguish.
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#999999'
STYLE: Any = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'svg.fonttype': 'none',  # text instead of outlines, a quarter of the size
    'font.sans-serif': ['DejaVu Sans'],  # each label repeats the list
    'svg.hashsalt': '0',  # equal figures give equal files
}
SHOWN_WIDTH = 480
SHARED = Path(__file__).parent
JPEG_QUALITY = 80


def new_axes(title: str, x: str, y: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """Creates a figure with one plot; `x` and `y` are labels, `size` is in inches."""
    with mpl.rc_context(STYLE):
        figure = Figure(size, layout='constrained')
        axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    return figure, axes


def svg(figure: Figure) -> str:
    """Returns a figure as the data URI of an SVG."""
    file = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(file, format='svg', metadata={'Date': None})
    rounded = re.sub(rb'(\d\.\d\d)\d+', rb'\1', file.getvalue())  # 0.01 points are enough
    return data_uri(rounded, 'image/svg+xml')


def jpeg(image: NDArray[Any]) -> str:
    """Returns H×W×3 uint8 RGB, at most `SHOWN_WIDTH` px wide, as the data URI of a JPEG."""
    height, width = image.shape[:2]
    if width > SHOWN_WIDTH:
        size = (SHOWN_WIDTH, max(1, round(height * SHOWN_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', turned, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data_uri(encoded.tobytes(), 'image/jpeg')


def data_uri(content: bytes, kind: str) -> str:
    """Returns content as a data URI; `kind` is its media type, such as 'image/jpeg'."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def render(template: Path, **values: Any) -> str:
    """Renders a Jinja template of an HTML page; a missing value is an error.

    It may include templates of this folder, such as `metadata.html.jinja`, a table of `metadata`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, SHARED]),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(**values)
