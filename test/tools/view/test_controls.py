# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from rock_seg_ros.node.parameters import PARAMETERS
from rock_seg_ros.perception.analysis import Settings
from rock_seg_ros.tools.view.controls import (
    CONTROLS,
    NODE_CONTROLS,
    change_setting,
    describe,
    read_setting,
)


@pytest.mark.parametrize('control', NODE_CONTROLS, ids=lambda control: control.name)
def test_each_control_is_a_live_parameter_of_the_node_with_the_same_range(control):
    parameter = PARAMETERS[control.name]
    assert parameter.metadata['live']
    assert control.kind is type(parameter.default)
    if control.kind is not bool:
        assert (control.low, control.high) == parameter.metadata['range']
        assert control.low <= parameter.default <= control.end <= control.high


@pytest.mark.parametrize('control', CONTROLS, ids=lambda control: control.name)
def test_a_changed_setting_has_the_new_value(control):
    value = control.kind(control.end)
    assert read_setting(change_setting(Settings(), control.name, value), control.name) == value


def test_threshold_0_means_the_threshold_of_the_weights():
    settings = change_setting(Settings(threshold=0.7), 'threshold', 0)
    assert settings.threshold is None
    assert read_setting(settings, 'threshold') == 0


@pytest.mark.parametrize('value', [float('nan'), float('inf'), '1', None, [], True, -1])
def test_an_invalid_value_is_rejected(value):
    with pytest.raises(ValueError, match=r'^threshold is .*; it must be '):
        change_setting(Settings(), 'threshold', value)


def test_controls_are_described_with_name_kind_range_and_value():
    (first, *_) = describe(CONTROLS, lambda name: read_setting(Settings(), name))
    assert first['name'] == 'threshold'
    assert (first['kind'], first['low'], first['end'], first['value']) == ('float', 0, 1, 0.0)
