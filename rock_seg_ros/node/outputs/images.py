# SPDX-License-Identifier: Apache-2.0
"""Outputs of type Image and CompressedImage."""

from __future__ import annotations

from typing import Any

import cv2
from sensor_msgs.msg import CompressedImage, Image

from rock_seg_ros.node.images import fill, to_message
from rock_seg_ros.node.outputs.output import Output
from rock_seg_ros.node.parameters import Parameters
from rock_seg_ros.perception.analysis import Analysis


class Mask(Output):
    """The mask: 255 rock, the rim between touching rocks included, 0 not rock."""

    topic = '~/mask'
    message_type = Image
    needs_rocks = False

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Encoding mono8."""
        return [to_message(analysis.mask, 'mono8', analysis.header)]


class ClassIds(Output):
    """The class id of each pixel."""

    topic = '~/class_ids'
    message_type = Image
    needs_rocks = False

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Encoding mono8."""
        return [to_message(analysis.segmentation.class_ids, 'mono8', analysis.header)]


class Confidence(Output):
    """The probability of each pixel's class, 0 to 255; of rock and rim together if it is rim."""

    topic = '~/confidence'
    message_type = Image
    needs_rocks = False

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Encoding mono8."""
        return [to_message(analysis.segmentation.confidence, 'mono8', analysis.header)]


class Instances(Output):
    """The rock of each pixel: 0 for none, or its row in `~/rocks`, counted from 1."""

    topic = '~/instances'
    message_type = Image

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Encoding mono16."""
        return [to_message(analysis.instances, 'mono16', analysis.header)]


class Overlay(Output):
    """The image in which the rocks are tinted, outlined and numbered."""

    topic = '~/overlay'
    message_type = Image

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """Encoding rgb8."""
        return [to_message(analysis.overlay, 'rgb8', analysis.header)]


class OverlayCompressed(Output):
    """The overlay, compressed."""

    topic = '~/overlay/compressed'
    message_type = CompressedImage

    @classmethod
    def messages(cls, analysis: Analysis, parameters: Parameters) -> list[Any]:
        """JPEG with the quality `jpeg_quality`."""
        bgr = cv2.cvtColor(analysis.overlay, cv2.COLOR_RGB2BGR)
        quality = [cv2.IMWRITE_JPEG_QUALITY, parameters.jpeg_quality]
        success, encoded = cv2.imencode('.jpg', bgr, quality)
        if not success:
            raise ValueError(f'JPEG does not support {bgr.shape[1]}×{bgr.shape[0]} pixels')
        message = CompressedImage(header=analysis.header, format='rgb8; jpeg compressed bgr8')
        fill(message, encoded)
        return [message]
