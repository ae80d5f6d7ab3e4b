# SPDX-License-Identifier: Apache-2.0
"""The networks. Each is a file here and an entry of `NETWORKS`."""

from rock_seg_ros.perception.inference.networks import efficientnet, resnet
from rock_seg_ros.perception.inference.networks.base import DeepLabV3, Network

# Architecture as in the metadata of weights → the network.
NETWORKS: dict[str, Network] = {
    network.architecture: network for network in (*resnet.NETWORKS, *efficientnet.NETWORKS)
}
BACKBONES = tuple(network.backbone for network in NETWORKS.values())
OUTPUT_STRIDES = tuple(sorted({s for network in NETWORKS.values() for s in network.output_strides}))

__all__ = ['BACKBONES', 'NETWORKS', 'OUTPUT_STRIDES', 'DeepLabV3', 'Network', 'network_of']


def network_of(backbone: str) -> Network:
    """Returns the network of a backbone.

    Raises:
        ValueError: The backbone is unknown.
    """
    for network in NETWORKS.values():
        if network.backbone == backbone:
            return network
    raise ValueError(f'backbone must be {" or ".join(map(repr, BACKBONES))}, not {backbone!r}')
