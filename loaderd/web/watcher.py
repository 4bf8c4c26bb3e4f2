"""Watches a daemon, once a second, for all viewers together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from loaderd import formatting
from loaderd.errors import LoaderdError
from loaderd.ipc import dial
from loaderd.monitor import json_lines
from loaderd.monitor.report import Report
from loaderd.monitor.window import WatchWindow
from loaderd.web.series import Series

INTERVAL = 1.0
MAX_VIEWERS = 16
_QUEUED = 4
"""Events that a viewer may be behind; one that reads no faster misses some."""

Event = tuple[str, str]
"""Name and data, as JSON on one line."""


class Watcher:
    """The present report, and who is told of it.

    Args:
        socket: the daemon's.

    Attributes:
        report: of the last second; None while no daemon answers.
        trouble: why none does.
    """

    def __init__(self, socket: str) -> None:
        self.report: Report | None = None
        self.trouble = "the daemon has not answered yet"
        self._socket = socket
        self._window = WatchWindow()
        self._series = Series()
        self._viewers: set[asyncio.Queue[Event]] = set()

    async def run(self) -> None:
        """Watches until it is cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._look()
            due = max(due + INTERVAL, loop.time())
            await asyncio.sleep(due - loop.time())

    async def _look(self) -> None:
        try:
            now = await asyncio.to_thread(dial.observe, self._socket, dial.SOON)
        except LoaderdError as error:
            self.report, self.trouble = None, str(error)
            self._tell("gone", formatting.as_json({"trouble": self.trouble}))
            return
        report = self._window.add(now)
        self.report, self.trouble = report, ""
        point = self._series.add(report)
        if self._viewers:
            shown = json_lines.render(report)
            self._tell("report", f'{{"point": {formatting.as_json(point)}, "report": {shown}}}')

    def _tell(self, name: str, data: str) -> None:
        for queue in self._viewers:
            with contextlib.suppress(asyncio.QueueFull):
                queue.put_nowait((name, data))

    @property
    def is_full(self) -> bool:
        """Whether there are as many viewers as may be."""
        return len(self._viewers) >= MAX_VIEWERS

    @contextlib.contextmanager
    def viewing(self) -> Iterator[asyncio.Queue[Event]]:
        """Events for one more viewer: first all points that are kept, then each second."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_QUEUED)
        points = ", ".join(map(formatting.as_json, self._series))
        queue.put_nowait(("history", f"[{points}]"))
        self._viewers.add(queue)
        try:
            yield queue
        finally:
            self._viewers.discard(queue)
