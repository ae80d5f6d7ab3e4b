# SPDX-License-Identifier: Apache-2.0
"""The visible ground in the record of an image, for the rock abundance."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rock_seg_ros.perception.analysis import Analysis
from rock_seg_ros.perception.geometry.abundance import Observation, observe
from rock_seg_ros.tools.results.results import Record


def ground_of(analysis: Analysis) -> dict[str, Any] | None:
    """Returns the visible ground and the rocks on it for JSON; None if the ground is not known."""
    if analysis.view is None:
        return None
    seen = observe(
        analysis.rocks,
        analysis.locations,
        analysis.image.shape[:2],
        analysis.view,
        min_area=analysis.settings.rocks.min_area,
        valid_mask=analysis.settings.valid_mask,
    )
    if not math.isfinite(seen.ground):
        return None
    return {
        'area_m2': float(f'{seen.ground:.6g}'),
        'smallest_m': float(f'{seen.smallest:.6g}'),
        'widths_m': [float(f'{width:.6g}') for width in seen.diameters],
    }


def observation_of(record: Record) -> Observation | None:
    """Returns what the record of an image says of the visible ground; None if it is not known."""
    ground = record.get('ground')
    if ground is None:
        return None
    widths = np.array(ground['widths_m'], np.float64)
    return Observation(
        images=1,
        pixels=record['width'] * record['height'],
        rock_pixels=sum(rock['area'] for rock in record['rocks']),
        ground=ground['area_m2'],
        diameters=widths,
        smallest=ground['smallest_m'],
        in_view=len(widths),
    )
