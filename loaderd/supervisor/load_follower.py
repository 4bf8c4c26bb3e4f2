"""Has as many workers run as the load asks for, if their number is ``auto``."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from loaderd.ipc.messages import Ack
from loaderd.setting_types import AutoCount
from loaderd.supervisor.autotune import Autotune, ReadStream
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.slots import State
from loaderd.supervisor.subscribers import Subscribers
from loaderd.supervisor.worker_processes import WorkerProcesses

log = logging.getLogger("loaderd")


class LoadFollower:
    """Looks at the load about once a second.

    Args:
        processes: the workers.
        scheduler: knows the slots.
        subscribers: know who waits.
    """

    def __init__(
        self, processes: WorkerProcesses, scheduler: Scheduler, subscribers: Subscribers
    ) -> None:
        self._processes = processes
        self._scheduler = scheduler
        self._subscribers = subscribers
        self._autotune: Autotune | None = None
        self._most = 0
        self._seen_at = 0.0
        self._busy_ns: dict[int, int] = {}
        self._took: dict[int, Ack] = {}

    def check(self, now: float) -> None:
        """Changes the number of workers, if it should."""
        wanted = self._processes.settings.workers
        if not isinstance(wanted, AutoCount):
            self._autotune = None
            return
        seconds, self._seen_at = now - self._seen_at, now
        if self._autotune is None or wanted.most != self._most:
            self._autotune, self._most = Autotune(wanted.most), wanted.most
        busy, streams = self._busy(), list(self._streams())
        count = self._autotune.update(seconds, streams, busy)
        if count != wanted:
            more = "all again, as a trainer waits" if count > wanted else "rings stay full"
            log.info("%d workers instead of %d: %s", count, wanted, more)
            self._processes.use(AutoCount(count, wanted.most))

    def _busy(self) -> float:
        """Seconds that the workers of this machine were at work since the last look."""
        before = self._busy_ns
        workers = [one for one in self._processes.workers.values() if not one.is_remote]
        self._busy_ns = {worker.id: worker.busy_ns for worker in workers}
        grown = (busy - before.get(number, 0) for number, busy in self._busy_ns.items())
        return sum(grown) / 1e9

    def _streams(self) -> Iterator[ReadStream]:
        before = self._took
        self._took = {number: one.took for number, one in self._subscribers.items()}
        for number, took in self._took.items():
            last = before.get(number)
            if last is None:
                continue  # the wait for the first batch is no lack of workers
            slots = self._scheduler.streams[self._subscribers[number].stream.id].slots
            filled = slots.count(State.READY) + slots.count(State.LEASED)
            waited = (took.waited_ns - last.waited_ns) / 1e9
            yield ReadStream(waited, took.batches - last.batches, filled, len(slots))
