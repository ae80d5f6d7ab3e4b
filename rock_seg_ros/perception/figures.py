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
# Okabe and Ito's, which colour-blind people tell apart too.
BLUE, ORANGE, GREY = '#0072b2', '#d55e00', '#999999'
STYLE: Any = {
    'font.size': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'svg.fonttype': 'none',  # letters as letters, a quarter of the size
    'font.sans-serif': ['DejaVu Sans'],  # each label repeats the list
    'svg.hashsalt': '0',  # so that the same figures make the same file
}
SHOWN_WIDTH = 480
SHARED = Path(__file__).parent
JPEG_QUALITY = 80


def new_axes(title: str, x: str, y: str, size: tuple[float, float] = SIZE) -> tuple[Figure, Axes]:
    """Makes a figure with one field; `x` and `y` are labels, `size` is in inches."""
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
    rounded = re.sub(rb'(\d\.\d\d)\d+', rb'\1', file.getvalue())  # a hundredth of a point is enough
    return data_uri(rounded, 'image/svg+xml')


def jpeg(image: NDArray[Any]) -> str:
    """Returns H×W×3 uint8 RGB, made smaller if it is wide, as the data URI of a JPEG."""
    height, width = image.shape[:2]
    if width > SHOWN_WIDTH:
        size = (SHOWN_WIDTH, max(1, round(height * SHOWN_WIDTH / width)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', turned, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return data_uri(encoded.tobytes(), 'image/jpeg')


def data_uri(content: bytes, kind: str) -> str:
    """Returns content as a URI that holds it; `kind` is its media type, as 'image/jpeg'."""
    return f'data:{kind};base64,{base64.b64encode(content).decode()}'


def render(template: Path, **values: Any) -> str:
    """Fills a Jinja template for HTML; a value that is missing is an error.

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
