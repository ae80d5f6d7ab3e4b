# SPDX-License-Identifier: Apache-2.0
"""Access control of the page: checks of the Host and Origin headers and of the token."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from urllib.parse import quote, urlsplit

from aiohttp import web

from rock_seg_ros.tools.main import UsageError

LOOPBACK_NAMES = ('localhost', '127.0.0.1', '::1')
HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}
FOREIGN_HOST = 'This name of the host is not allowed. Open the address that rock_seg view printed.'
FOREIGN_ORIGIN = 'Requests of other pages are not allowed.'
WRONG_TOKEN = 'The token is missing or wrong. Open the address that rock_seg view printed.'


class Access:
    """The rules for requests.

    Attributes:
        host: Name or address that the server is bound to.
        token: What each viewer must know; empty = nothing.
    """

    def __init__(self, host: str, token: str | None = None) -> None:
        """Creates a token if one is needed and none is given.

        Args:
            host: Name or address that the server is bound to.
            token: The token; None = a new one if others than this machine can connect.

        Raises:
            UsageError: The token is empty, although others can connect.
        """
        self.host = host
        self._local = is_loopback(host)
        if token is None:
            token = '' if self._local else secrets.token_urlsafe(16)
        elif not token and not self._local:
            raise UsageError(f'--token is empty; --host {host} needs one, or leave --token out')
        self.token = token
        own = socket.gethostname().lower()
        self._names = {*LOOPBACK_NAMES, host.lower()}
        if not self._local:
            self._names.update((own, f'{own}.local'))

    def check(self, request: web.BaseRequest) -> None:
        """Rejects a request that does not come from a viewer.

        Raises:
            HTTPForbidden: The Host or Origin header names a foreign site.
            HTTPUnauthorized: The token is missing or wrong.
        """
        if not self._allows_host(request.headers.get('Host', '')):
            raise web.HTTPForbidden(text=FOREIGN_HOST)
        origin = request.headers.get('Origin')
        if origin is not None and origin.lower() != f'http://{request.headers["Host"].lower()}':
            raise web.HTTPForbidden(text=FOREIGN_ORIGIN)
        if self.token and not self._knows_token(request):
            raise web.HTTPUnauthorized(text=WRONG_TOKEN)

    def _allows_host(self, header: str) -> bool:
        """Returns whether a Host header names this machine (protection from DNS rebinding).

        An address cannot be rebound to another machine as a name can. Where the server listens
        for others, every address is allowed, because a container does not know its own.
        """
        try:
            name = (urlsplit(f'//{header}').hostname or '').lower()
        except ValueError:
            return False
        return name in self._names or (not self._local and _is_address(name))

    def _knows_token(self, request: web.BaseRequest) -> bool:
        given = (
            request.query.get('token'),
            request.cookies.get(self.cookie(request)),
            request.headers.get('Authorization', '').removeprefix('Bearer '),
        )
        return any(
            hmac.compare_digest(token.encode('utf-8', 'replace'), self.token.encode())
            for token in given
            if token
        )

    @staticmethod
    def cookie(request: web.BaseRequest) -> str:
        """Returns the name of the cookie with the token; browsers share cookies between ports."""
        return f'rock_seg_view_{request.url.port}'

    def url(self, port: int) -> str:
        """Returns the address of the page, with the token."""
        host = self.host
        if _is_address(host) and ipaddress.ip_address(host).is_unspecified:
            host = _own_address(host)
        host = f'[{host}]' if ':' in host else host
        token = quote(self.token, safe='')
        return f'http://{host}:{port}/' + (f'?token={token}' if token else '')


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can connect to an address or name."""
    if _is_address(host):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == 'localhost'


def listen(host: str, port: int) -> socket.socket:
    """Binds a socket.

    Args:
        host: Name or address.
        port: TCP port; 0 = a free one.

    Raises:
        UsageError: It cannot be bound; the message is one line with the reason.
    """
    try:
        family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = str(getattr(error, 'strerror', None) or error).partition(' (')[0]
        raise UsageError(
            f'{host} port {port}: {reason}; choose others with --host and --port'
        ) from None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own_address(unspecified: str) -> str:
    """Returns the address of this machine in the network; its name if there is none."""
    family = socket.AF_INET6 if ':' in unspecified else socket.AF_INET
    target = '2001:db8::1' if family == socket.AF_INET6 else '192.0.2.1'  # reserved, unreachable
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))  # sends nothing, but selects the interface
        except OSError:
            return socket.gethostname()
        return str(probe.getsockname()[0])
