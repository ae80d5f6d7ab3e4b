# SPDX-License-Identifier: Apache-2.0
"""Outputs that are images."""

from __future__ import annotations

from typing import Any

import cv2
from sensor_msgs.msg import CompressedImage, Image

from rock_seg_ros.node.images import fill, to_message
from rock_seg_ros.node.outputs.output import Output
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis


class Mask(Output):
    """255 rock, 0 not."""

    topic = '~/mask'
    message_type = Image
    of_rocks = False

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One mono8 Image."""
        return [to_message(analysis.mask, 'mono8', analysis.header)]


class ClassIds(Output):
    """The class id of each pixel."""

    topic = '~/class_ids'
    message_type = Image
    of_rocks = False

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One mono8 Image."""
        return [to_message(analysis.segmentation.class_ids, 'mono8', analysis.header)]


class Confidence(Output):
    """The probability of each pixel's class, 0 to 255."""

    topic = '~/confidence'
    message_type = Image
    of_rocks = False

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One mono8 Image."""
        return [to_message(analysis.segmentation.confidence, 'mono8', analysis.header)]


class Instances(Output):
    """Which rock each pixel is of: 0, or the rock's row in the rocks, counted from 1."""

    topic = '~/instances'
    message_type = Image

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One mono16 Image."""
        return [to_message(analysis.instances, 'mono16', analysis.header)]


class Overlay(Output):
    """The image with the rocks drawn on."""

    topic = '~/overlay'
    message_type = Image

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One rgb8 Image."""
        return [to_message(analysis.overlay, 'rgb8', analysis.header)]


class OverlayCompressed(Output):
    """The overlay as JPEG."""

    topic = '~/overlay/compressed'
    message_type = CompressedImage

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """One CompressedImage."""
        bgr = cv2.cvtColor(analysis.overlay, cv2.COLOR_RGB2BGR)
        done, coded = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, parameters.jpeg_quality])
        if not done:
            raise ValueError(f'JPEG cannot hold {bgr.shape[1]}×{bgr.shape[0]} pixels')
        message = CompressedImage(header=analysis.header, format='rgb8; jpeg compressed bgr8')
        fill(message, coded)
        return [message]
