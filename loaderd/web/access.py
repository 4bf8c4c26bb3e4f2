"""Who may see the page.

Any user of the host can reach its loopback, and any page in a browser can send requests there. So
a request needs the token, its ``Host`` must be a name of this server (else a foreign name that was
rebound to this address could read it), and what changes anything must come from the page itself.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

import psutil

TOKEN_VARIABLE = "LOADERD_WEB_TOKEN"  # its name
MIN_TOKEN = 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANY = ("0.0.0.0", "::", "")  # compared, not bound


class Access:
    """The rules of one server.

    Args:
        token: the secret in the URL.
        host: that the server listens at.
    """

    def __init__(self, token: str, host: str) -> None:
        self._token = token
        self._hosts = frozenset(_names(host))
        # Not the token: a cookie that leaks names no URL.
        self.cookie = hashlib.blake2b(token.encode(), person=b"loaderd-cookie").hexdigest()

    def has_token(self, given: str | None) -> bool:
        """Whether this is the token; compared in constant time."""
        return _is_same(given, self._token)

    def has_cookie(self, given: str | None) -> bool:
        """Whether this is the cookie that the token was exchanged for."""
        return _is_same(given, self.cookie)

    def is_ours(self, host: str | None) -> bool:
        """Whether a ``Host`` header names this server; a port of any tunnel is allowed."""
        try:
            name = urlsplit(f"//{host}").hostname if host else None
        except ValueError:
            return False
        return name is not None and name.lower() in self._hosts

    def is_from_page(self, origin: str | None, host: str | None) -> bool:
        """Whether an ``Origin`` header is that of a page from this ``Host``."""
        return bool(host) and origin in (f"http://{host}", f"https://{host}")


def _is_same(given: str | None, wanted: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), wanted.encode())


def _names(host: str) -> Iterable[str]:
    yield from _LOOPBACK
    if host not in _ANY:
        yield host.lower()
        return
    for name in (socket.gethostname(), socket.getfqdn()):
        yield name.lower()
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family in (socket.AF_INET, socket.AF_INET6):
                yield one.address.partition("%")[0].lower()
