# SPDX-License-Identifier: Apache-2.0
"""Starting from torchvision's weights, where the machine has or can get them."""

from __future__ import annotations

import logging
import pickle
import re
import socket
from http.client import HTTPException

from torchvision.models.segmentation import DeepLabV3_ResNet50_Weights

from rock_seg_ros.perception.model import DeepLabV3

DOWNLOAD_TIMEOUT = 20.0


def load_pretrained(model: DeepLabV3) -> bool:
    """Copies every tensor of torchvision's COCO weights that fits; random ones stay otherwise.

    The ASPP of torchvision's head becomes the skip decoder's; class scores never fit and stay
    random.

    Returns:
        Whether the weights could be had; without them a line in the log says so.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        state = DeepLabV3_ResNet50_Weights.DEFAULT.get_state_dict(progress=True, check_hash=True)
    except (OSError, HTTPException, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        logging.getLogger(__name__).warning(
            "training starts from random weights: torchvision's cannot be had (%s)", error
        )
        return False
    finally:
        socket.setdefaulttimeout(before)
    own = model.state_dict()
    if model.decoder == 'skip':
        state = {
            re.sub(r'^classifier\.0\.', 'classifier.aspp.', name): tensor
            for name, tensor in state.items()
        }
    fitting = {n: t for n, t in state.items() if n in own and own[n].shape == t.shape}
    model.load_state_dict({**own, **fitting})
    return True
