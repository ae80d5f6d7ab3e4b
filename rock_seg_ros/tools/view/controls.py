# SPDX-License-Identifier: Apache-2.0
"""The settings that the page changes while images are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from rock_seg_ros.perception.analysis import Settings


@dataclass(frozen=True)
class Control:
    """A setting with the name and the range of the node's parameter.

    Attributes:
        name: Name of the node's parameter.
        label: Label on the page.
        kind: float, int or bool.
        low: Minimum.
        high: Maximum.
        end: End of the slider.
        step: Step of the slider.
    """

    name: str
    label: str
    kind: type = bool
    low: float = 0
    high: float = 1
    end: float = 1
    step: float = 1

    def convert(self, value: Any) -> Any:
        """Converts a value to the type of this control.

        Raises:
            ValueError: The value is of another type or not finite.
        """
        if self.kind is bool:
            if isinstance(value, bool):
                return value
            raise ValueError(f'{self.name} is {value!r}; it must be true or false')
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or self.kind(value) != value:
            kind = 'a whole number' if self.kind is int else 'a number'
            raise ValueError(f'{self.name} is {value!r}; it must be {kind}')
        return self.kind(value)

    def check(self, value: Any) -> Any:
        """Converts a value to the type of this control, and checks its range.

        Raises:
            ValueError: The value is invalid.
        """
        value = self.convert(value)
        if not self.low <= value <= self.high:
            raise ValueError(f'{self.name} is {value}; it must be {self.low} to {self.high}')
        return value


# Settings of the analysis, which all sources have.
CONTROLS = (
    Control('threshold', 'Threshold (0 = as trained)', float, 0, 1, 1, 0.01),
    Control('min_area', 'Minimum area, px', int, 0, 1_000_000, 2000, 10),
    Control('max_rocks', 'Maximum number of rocks', int, 1, 1000, 300, 1),
    Control('polygon_tolerance', 'Polygon tolerance, px', float, 0, 100, 10, 0.1),
    Control('overlay_alpha', 'Opacity of the tint', float, 0, 1, 1, 0.05),
    Control('split_touching', 'Separate touching rocks'),
    Control('track', 'Track rocks'),
)
# Settings that only the node has.
NODE_CONTROLS = (
    *CONTROLS,
    Control('max_rate', 'Maximum rate, Hz (0 = unlimited)', float, 0, 1000, 60, 1),
    Control('jpeg_quality', 'JPEG quality of the node', int, 1, 100, 100, 1),
)
_OF_SETTINGS = ('overlay_alpha', 'track')


def describe(controls: Iterable[Control], value: Callable[[str], Any]) -> list[dict[str, Any]]:
    """Returns the controls with their values, as JSON for the page."""
    return [
        {
            'name': control.name,
            'label': control.label,
            'kind': control.kind.__name__,
            'low': control.low,
            'end': control.end,
            'step': control.step,
            'value': value(control.name),
        }
        for control in controls
    ]


def read_setting(settings: Settings, name: str) -> Any:
    """Returns the value of a control in `CONTROLS`."""
    if name == 'threshold':
        return settings.threshold or 0.0
    return getattr(settings if name in _OF_SETTINGS else settings.rocks, name)


def change_setting(settings: Settings, name: str, value: Any) -> Settings:
    """Returns settings in which the value of a control is changed.

    Raises:
        ValueError: There is no such control, or the value is invalid.
    """
    value = find_control(CONTROLS, name).check(value)
    if name == 'threshold':
        return replace(settings, threshold=value or None)
    if name in _OF_SETTINGS:
        return replace(settings, **{name: value})
    return replace(settings, rocks=replace(settings.rocks, **{name: value}))


def find_control(controls: Iterable[Control], name: str) -> Control:
    """Returns the control with a name.

    Raises:
        ValueError: There is none.
    """
    for control in controls:
        if control.name == name:
            return control
    raise ValueError(f'{name} cannot be changed here')
