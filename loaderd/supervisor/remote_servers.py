"""The gateways of a daemon: one for every few workers of other machines, as they come.

A gateway copies what its workers render, which takes about a tenth of a CPU for each of them.
Another one is started when the workers of all that there are have joined.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from loaderd.setting_types import WorkerRange
from loaderd.supervisor.children import Child, ForkServer
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.remote_server import RemoteServer

WORKERS_EACH = 8
"""Of a gateway."""


class RemoteServers:
    """Where the workers of other machines come from.

    Args:
        loop: waits for what gateways say.
        forks: reaps them with the fork server.
        address: of the cluster.
        wanted: how many workers there may be.

    Attributes:
        began_at: when the first gateways were started.
    """

    def __init__(self, loop: Loop, forks: ForkServer, address: str, wanted: WorkerRange) -> None:
        self._loop = loop
        self._forks = forks
        self._address = address
        self._wanted = wanted
        self._servers: list[RemoteServer] = []
        self.began_at = time.monotonic()
        for _ in range(max(1, -(-wanted.least // WORKERS_EACH))):
            self._add()

    @property
    def connected(self) -> bool:
        """Whether any gateway has joined the cluster."""
        return any(server.connected for server in self._servers)

    @property
    def trouble(self) -> str:
        """Why none has; empty if one has, or is about to."""
        return "" if self.connected else next((s.trouble for s in self._servers if s.trouble), "")

    def missing(self, there: int, up: int) -> int:
        """How many workers to ask for.

        Args:
            there: those that were asked for, and have not ended.
            up: those that have joined.
        """
        joined = [server for server in self._servers if server.connected]
        room = WORKERS_EACH * len(joined)
        if len(joined) == len(self._servers) and up >= room and room < self._wanted.most:
            self._add()
        return max(0, min(room, self._wanted.most) - there)

    def spawn(self, target: Callable[..., None], *args: Any, revocable: bool = False) -> Child:
        """A worker, by the gateway that has the fewest; see :meth:`ChildServer.spawn`.

        Raises:
            OSError: it could not be asked for.
        """
        joined = [server for server in self._servers if server.connected] or self._servers
        least = min(joined, key=lambda server: server.count)
        return least.spawn(target, *args, revocable=revocable)

    def _add(self) -> None:
        server = RemoteServer(self._loop, self._address, tells=not self._servers)
        self._servers.append(server)
        self._forks.others.append(server)
        server.begin()
