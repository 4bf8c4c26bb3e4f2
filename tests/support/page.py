"""A daemon that serves its page, and requests to it."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from tests.support.daemons import Daemon, eventually

TOKEN = "a-token-for-tests-only"


class Answer:
    """What the page's server has answered."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class LivePage:
    """The page of a daemon that was started with ``--http=0`` and the token of these tests."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        eventually(lambda: "the page is at" in daemon.log)
        found = re.search(r"http://localhost:(\d+)/\?token=(\S+)", daemon.log)
        assert found is not None
        self.port, self.token = int(found[1]), found[2]
        self.url = found[0]

    def ask(self, path: str, method: str = "GET", body: str = "", **headers: str) -> Answer:
        """A request with just these headers (``_`` for ``-``)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body or None, named)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        """A request with the token."""
        return self.ask(path, Authorization=f"Bearer {self.token}", **headers)

    def post(self, path: str, value: object, **headers: str) -> Answer:
        """A request of the page itself."""
        usual = {
            "Authorization": f"Bearer {self.token}",
            "Origin": f"http://127.0.0.1:{self.port}",
        }
        return self.ask(path, "POST", json.dumps(value), **(usual | headers))
