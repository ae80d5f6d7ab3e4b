# SPDX-License-Identifier: Apache-2.0
"""The parameters of the node."""

from __future__ import annotations

from functools import partial

import pytest
import rclpy
from rclpy.parameter import Parameter

from rock_seg_ros.node.parameters import (
    PARAMETERS,
    Parameters,
    declare_parameters,
    first_not_settable,
    read_parameters,
    unknown_overrides,
)

CONTRACT = {
    'weights', 'weights_folder',
    'device', 'preset', 'precision', 'backend', 'output_stride', 'input_width',
    'input_height', 'tile', 'tile_overlap', 'image_topics', 'image_transport', 'threshold',
    'min_area', 'max_rocks', 'polygon_tolerance',
    'split_touching', 'ignore_mask', 'max_rate', 'max_pixels', 'overlay_alpha', 'jpeg_quality',
    'max_image_age', 'autostart', 'significant_bits',
    'track', 'depth_topics', 'depth_tolerance', 'depth_registered', 'rectified', 'ground_plane',
    'camera_height', 'fixed_frame',
    'camera_tilt', 'camera_roll', 'base_frame', 'obstacle_step', 'target_min_diameter',
    'target_max_diameter', 'target_min_distance', 'target_max_distance', 'target_min_score',
}  # fmt: skip
LIVE = {
    'threshold', 'min_area', 'max_rocks', 'polygon_tolerance', 'split_touching', 'max_rate',
    'max_pixels', 'overlay_alpha', 'jpeg_quality', 'max_image_age', 'significant_bits',
    'track', 'depth_tolerance', 'obstacle_step', 'target_min_diameter', 'target_max_diameter',
    'target_min_distance', 'target_max_distance', 'target_min_score',
}  # fmt: skip


@pytest.fixture
def make_node():
    context = rclpy.Context()
    rclpy.init(context=context)
    nodes = []

    def make(**values):
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(rclpy.create_node('n', context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_the_parameters_are_the_documented_ones_and_have_descriptions(make_node):
    node = make_node()
    declare_parameters(node)
    assert set(PARAMETERS) == CONTRACT
    for name, spec in PARAMETERS.items():
        descriptor = node.describe_parameter(name)
        assert len(descriptor.description) > 10
        assert descriptor.description.endswith('(live)') == (name in LIVE)
        numeric = isinstance(spec.default, int | float) and not isinstance(spec.default, bool)
        ranges = len(descriptor.integer_range) + len(descriptor.floating_point_range)
        assert bool(ranges or descriptor.additional_constraints) >= numeric
    assert read_parameters(node) == Parameters()


def test_only_live_parameters_and_weights_may_change_while_the_node_runs():
    changeable = {
        n
        for n, s in PARAMETERS.items()
        if first_not_settable([Parameter(n, value=s.default)]) is None
    }
    assert changeable == LIVE | {'weights'}
    assert first_not_settable([Parameter('use_sim_time', value=True)]) is None


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('threshold', -0.1),
        ('min_area', -1),
        ('max_rocks', 0),
        ('jpeg_quality', 101),
        ('max_rate', 'fast'),
        ('autostart', 'perhaps'),
        ('preset', 'best'),
        ('output_stride', 4),
        ('image_topics', '/front/image_raw'),
        ('image_topics', ['/front image']),
    ],
)
def test_an_invalid_initial_value_is_reported_by_name_and_the_default_is_used(
    make_node, name, value
):
    node = make_node(**{name: value})
    ((named, reason),) = declare_parameters(node).items()
    assert named == name
    assert name in reason
    assert '\n' not in reason
    assert read_parameters(node) == Parameters()
    assert node.describe_parameter(name).description.startswith(
        PARAMETERS[name].metadata['description']
    )


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('preset', 'best'),
        ('precision', 'fp8'),
        ('backend', 'tf'),
        ('image_transport', 'x'),
        ('output_stride', 4),
    ],
)
def test_an_invalid_choice_is_rejected_with_the_value_and_the_choices(make_node, name, value):
    node = make_node()
    declare_parameters(node)
    with pytest.raises(ValueError, match=f'{name} is {value!r}; it must be one of') as error:
        read_parameters(node, [Parameter(name, value=value)])
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('topics', 'reason'),
    [
        (['/front/image_raw', ''], "image_topics has '': topic name must not be empty string"),
        (['/front image'], "image_topics has '/front image': topic name must not contain"),
        (['/front/image_raw/'], 'must not end with a forward slash'),
        (['/a/image', '/b/image', '/a/image'], "image_topics has '/a/image' twice"),
    ],
)
def test_invalid_and_duplicate_image_topics_are_rejected_by_name(make_node, topics, reason):
    node = make_node()
    declare_parameters(node)
    with pytest.raises(ValueError) as error:
        read_parameters(node, [Parameter('image_topics', value=topics)])
    assert reason in str(error.value)
    assert '\n' not in str(error.value)


def test_image_topics_are_a_list_of_strings_that_is_empty_by_default(make_node):
    node = make_node()
    declare_parameters(node)
    assert node.get_parameter('image_topics').type_ == Parameter.Type.STRING_ARRAY
    assert read_parameters(node).image_topics == ()
    given = make_node(image_topics=['/front/image_raw', '/rear/image_raw'])
    declare_parameters(given)
    assert read_parameters(given).image_topics == ('/front/image_raw', '/rear/image_raw')


def test_one_of_several_cameras_may_have_no_depth(make_node):
    node = make_node(
        image_topics=['/front/image', '/rear/image'], depth_topics=['/front/depth', '']
    )
    declare_parameters(node)
    assert read_parameters(node).depth_topics == ('/front/depth', '')


def test_a_misspelled_parameter_is_reported_and_those_of_other_nodes_are_not():
    names = ['treshold', 'threshold', 'use_sim_time', 'exposure', 'qos_overrides./a.depth']
    assert unknown_overrides(names) == [
        'parameter treshold is unknown and has no effect; did you mean threshold?'
    ]
    assert unknown_overrides(PARAMETERS) == []


def test_weights_are_confined_to_weights_folder(tmp_path):
    folder = tmp_path / 'folder'
    folder.mkdir()
    (folder / 'mars.safetensors').touch()
    (tmp_path / 'secret.pth').touch()
    (folder / 'link.pth').symlink_to(tmp_path / 'secret.pth')
    confined = partial(Parameters, weights_folder=str(folder))
    for weights in ('mars.safetensors', str(folder / 'mars.safetensors')):
        assert confined(weights=weights).weights_path == str(folder / 'mars.safetensors')
    assert confined(weights='').weights_path == ''
    assert confined(weights='light').weights_path == 'light', 'an embedded name is not a file'
    for weights in (
        str(tmp_path / 'secret.pth'),
        '../secret.pth',
        'link.pth',
        '/etc/x.safetensors',
    ):
        with pytest.raises(ValueError, match='it must be a file in weights_folder') as error:
            confined(weights=weights)
        assert weights in str(error.value)
    assert Parameters(weights='../secret.pth').weights_path == '../secret.pth'


def test_weights_folder_cannot_be_set_after_the_start(make_node, tmp_path):
    node = make_node(weights_folder=str(tmp_path))
    assert declare_parameters(node) == {}
    (result,) = node.set_parameters([Parameter('weights_folder', value='')])
    assert 'read-only' in result.reason
    assert read_parameters(node).weights_folder == str(tmp_path)
