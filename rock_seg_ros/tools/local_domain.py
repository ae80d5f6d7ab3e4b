# SPDX-License-Identifier: Apache-2.0
"""ROS domains on this machine that only one demo, benchmark or test uses at a time."""

from __future__ import annotations

import itertools
import os
import socket

# 0 is the default of ROS. The DDS ports of domains above 101 are among Linux's ephemeral ports.
DOMAINS = range(1, 102)
_attempts = itertools.count()
_claimed: list[LocalDomain] = []


class LocalDomain:
    """A ROS domain that is claimed until it is released or this process ends.

    The claim is the name of an abstract Unix socket. Like DDS on loopback, such a name is limited
    to one network namespace, and the kernel frees it when the process ends.

    Attributes:
        number: ROS domain id, 1 to 101.
    """

    def __init__(self) -> None:
        """Claims a domain.

        Raises:
            OSError: All domains are claimed.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        for _ in DOMAINS:
            # Participants of an earlier claim of this process are not visible in the next domain.
            self.number = DOMAINS[(os.getpid() + 7 * next(_attempts)) % len(DOMAINS)]
            try:
                self._socket.bind(f'\0rock_seg_ros/domain/{self.number}')
            except OSError:
                continue
            return
        self._socket.close()
        raise OSError(
            f'ROS domains {DOMAINS[0]} to {DOMAINS[-1]} are all in use by other demos or benchmarks'
        )

    def release(self) -> None:
        """Lets other processes claim the domain."""
        self._socket.close()


def use_local_domain() -> None:
    """Gives this process and its children their own ROS domain, which is limited to loopback.

    Raises:
        OSError: All domains are claimed.
    """
    _claimed.append(LocalDomain())
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    os.environ['ROS_DOMAIN_ID'] = str(_claimed[-1].number)
    os.environ.pop('ROS_STATIC_PEERS', None)
