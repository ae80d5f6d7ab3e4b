# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pytest

from rock_seg_ros.perception.figures import SHOWN_WIDTH, jpeg, new_axes, render, svg


def content(uri: str) -> tuple[str, bytes]:
    kind, _, coded = uri.removeprefix('data:').partition(';base64,')
    return kind, base64.b64decode(coded)


def test_a_plot_is_a_reproducible_svg_with_its_labels() -> None:
    def plot() -> str:
        figure, axes = new_axes('rocks', 'time (s)', 'number')
        axes.plot([0, 1], [2, 3])
        return svg(figure)

    kind, drawn = content(plot())
    assert kind == 'image/svg+xml'
    assert all(label in drawn for label in (b'rocks', b'time (s)', b'number'))
    assert plot() == plot()


@pytest.mark.parametrize(('width', 'shown'), [(100, 100), (2 * SHOWN_WIDTH, SHOWN_WIDTH)])
def test_an_image_is_embedded_as_jpeg_of_limited_width(width: int, shown: int) -> None:
    image = np.full((60, width, 3), (200, 100, 0), np.uint8)
    kind, coded = content(jpeg(image))
    assert kind == 'image/jpeg'
    decoded = cv2.imdecode(np.frombuffer(coded, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape[1] == shown
    np.testing.assert_allclose(decoded[5, 5], (0, 100, 200), atol=4)


def test_values_in_a_template_are_escaped(tmp_path: Path) -> None:
    template = tmp_path / 'page.html.jinja'
    template.write_text('<p>{{ name }}</p>')
    assert render(template, name='<b>') == '<p>&lt;b&gt;</p>'


def test_a_missing_value_of_a_template_is_an_error(tmp_path: Path) -> None:
    template = tmp_path / 'page.html.jinja'
    template.write_text('{{ name }}')
    with pytest.raises(jinja2.UndefinedError):
        render(template)
