# SPDX-License-Identifier: Apache-2.0
"""What every test process shares: DDS on loopback with a domain of its own, and small inputs."""

from __future__ import annotations

import os

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
