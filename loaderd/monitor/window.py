"""The reports on a daemon that is watched."""

from __future__ import annotations

from collections import deque

from loaderd.ipc.snapshot import Snapshot
from loaderd.monitor.report import Report, derive

JUDGED_S = 10.0
"""How far a verdict looks back, so that no single batch decides it."""


class WatchWindow:
    """Snapshots of the last seconds, and what follows from them."""

    def __init__(self) -> None:
        self._judged: deque[Snapshot] = deque()

    def add(self, now: Snapshot) -> Report:
        """The report on a snapshot: rates since the one before, or averages of the first."""
        judged = self._judged
        if judged and judged[-1].daemon.uptime_s > now.daemon.uptime_s:
            judged.clear()  # it was started again
        before = judged[-1] if judged else None
        while len(judged) > 1 and now.daemon.uptime_s - judged[1].daemon.uptime_s >= JUDGED_S:
            judged.popleft()
        report = derive(now, before, judged[0] if judged else None)
        judged.append(now)
        return report
