"""The worker processes: started, watched and replaced."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import replace

from loaderd.config import Settings
from loaderd.errors import NoCluster, RequestRefused
from loaderd.forkserver import entries
from loaderd.ipc.messages import WorkerReady
from loaderd.setting_types import MAX_WORKERS
from loaderd.supervisor.actions import Death
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.remote_servers import RemoteServers
from loaderd.supervisor.start_pauses import StartPauses
from loaderd.supervisor.worker import Worker, cause_of, death_of

log = logging.getLogger("loaderd")

Work = Callable[[socket.socket, Settings], None]

SLOW_SECONDS = 1.0
"""A chunk that takes longer is slow: what is queued behind it goes to other workers."""

LINGER_SECONDS = 3.0
"""Workers that stand in for others stay for so long after those are back."""

JOINED_SECONDS = 25.0
"""The time in which the least number of remote workers must have joined when a daemon starts: less
than who starts it waits for its answer."""

LAST_WORDS_SECONDS = 0.5
"""The time a worker has to write its stack to the log before it is killed."""


class WorkerProcesses:
    """Starts and counts worker processes, so that as many run as the settings ask for.

    Args:
        settings: how many workers there are, and what they may do.
        forks: where they come from.
        work: what a worker process runs on its end of the socket.
        remotes: where those of other machines come from; None for none.

    Attributes:
        workers: all that there are.
        remote: those of other machines; some may wait for a place.
        restarts: how many were replaced.
        trouble: why the last one was not up; empty if it was.
    """

    def __init__(
        self,
        settings: Settings,
        forks: ForkServer,
        work: Work = entries.work,
        remotes: RemoteServers | None = None,
    ) -> None:
        self.settings = settings
        self._forks = forks
        self._work = work
        self._remotes = remotes
        self.workers: dict[int, Worker] = {}
        self.remote: dict[int, Worker] = {}
        self._local: dict[int, Worker] = {}
        self._remote_up = 0
        self.restarts = 0
        self.trouble = ""
        self._stand_ins = 0
        self._needed_at = 0.0
        self._ids = 0
        self._pauses = StartPauses()
        self._remote_pauses = StartPauses()
        self._told: set[str] = set()
        self._leaving: set[int] = set()
        self._to_renew: deque[int] = deque()
        self._renewing = 0

    def stand_in(self, waiting: int, now: float) -> None:
        """Has one more worker for each that waits for storage; twice the workers at most."""
        needed = min(waiting, self.settings.workers)
        if needed >= self._stand_ins or now - self._needed_at > LINGER_SECONDS:
            self._stand_ins = needed
            self._needed_at = now

    @property
    def remote_trouble(self) -> str:
        """Why there are no workers of other machines; empty if there are, or may be."""
        return "" if self._remotes is None else self._remotes.trouble

    @property
    def surplus(self) -> int:
        """How many workers there are beyond those that are needed; negative if some are missing."""
        return len(self._local) - self.settings.workers - self._stand_ins

    def surplus_workers(self, waiting: Container[int]) -> list[int]:
        """Workers to retire, as those that they stood in for are back: the last that came first.

        Args:
            waiting: workers that wait for storage, and stay.
        """
        self._leaving &= self.workers.keys()
        leave: list[int] = []
        for worker in reversed(self._local.values()):
            if self.surplus <= len(self._leaving):
                break
            busy = worker.id in waiting or worker.id in self._leaving
            if worker.up_at is not None and not busy:
                self._leaving.add(worker.id)
                leave.append(worker.id)
        return leave

    def renew(self, settings: Settings) -> None:
        """Has all workers replaced, one by one, by workers with these settings."""
        log.info("replacing %d workers one by one", len(self.workers))
        self.settings = settings
        for worker in self.remote.values():
            if worker.up_at is None:  # it waits for a place, with the old settings
                worker.child.kill()
        self._to_renew = deque(self.workers)

    def set_count(self, count: int) -> None:
        """Sets how many workers there are, until ``renew``.

        Raises:
            RequestRefused: as many are not allowed.
        """
        if not 1 <= count <= MAX_WORKERS:
            raise RequestRefused(f"{count} workers are not allowed: from 1 to {MAX_WORKERS} are")
        log.info("%d workers instead of %d", count, self.settings.workers)
        self.use(count)

    def use(self, count: int) -> None:
        """Has so many workers run."""
        self.settings = replace(self.settings, workers=count)

    def next_to_renew(self) -> int | None:
        """The worker to retire next, once all others are up; None if there is none now."""
        up = sum(worker.up_at is not None for worker in self._local.values())
        if up < self.settings.workers or self._renewing in self.workers:
            return None
        while self._to_renew:
            worker = self.workers.get(self._to_renew.popleft())
            if worker is not None and worker.up_at is not None:
                self._renewing = worker.id
                return worker.id
        return None

    def missing(self, now: float) -> int:
        """How many workers to start now."""
        return -self.surplus if now >= self._pauses.resume_at else 0

    def missing_remote(self, now: float) -> int:
        """How many workers to ask the cluster for now; it keeps them until it has a place."""
        if self._remotes is None or now < self._remote_pauses.resume_at:
            return 0
        return self._remotes.missing(len(self.remote), self._remote_up)

    @property
    def is_any_up(self) -> bool:
        """Whether any worker of this machine is."""
        return any(worker.up_at is not None for worker in self._local.values())

    def remotes_are_there(self) -> bool:
        """Whether as many workers of other machines have joined as must at the daemon's start.

        Raises:
            NoCluster: they will not; the text says why.
        """
        remotes = self._remotes
        assert remotes is not None, "there are none to wait for"
        if remotes.trouble:
            raise NoCluster(remotes.trouble)
        least, up = self.settings.ray_workers.least, self._remote_up
        if not remotes.connected or up >= least:
            return remotes.connected
        if time.monotonic() - remotes.began_at > JOINED_SECONDS:
            causes = "; ".join(sorted(self._told)) or "the cluster has no free CPUs for more"
            raise NoCluster(
                f"--ray-workers: {up} of {least} workers have joined within "
                f"{JOINED_SECONDS:g} s: {causes}"
            )
        return False

    def next_start(self, now: float) -> float:
        """When a missing worker may be started; infinite if there is nothing to wait for."""
        resume_at = self._pauses.resume_at
        return resume_at if self.surplus < 0 and now < resume_at else math.inf

    def start(self, remote: bool = False) -> Worker | None:
        """Starts one worker, here or on another machine; returns None if that fails."""
        self._ids += 1
        forks = self._remotes if remote and self._remotes is not None else self._forks
        try:
            started = forks.spawn(self._work, self.settings, revocable=True)
        except OSError as error:
            log.error("%s", error)
            if remote:
                self._remote_pauses.note_failure()
                return None
            self.trouble = str(error)
            self._pauses.note_failure()
            return None
        new = Worker(self._ids, started, time.monotonic(), self.settings.sample_timeout)
        new.is_remote = remote
        self.workers[new.id] = (self.remote if remote else self._local)[new.id] = new
        return new

    def up(self, worker: Worker, said: WorkerReady) -> None:
        """Notes that a worker is ready."""
        self._remote_up += worker.is_remote and worker.up_at is None
        worker.up_at = worker.heard_at = time.monotonic()
        if worker.is_remote:
            worker.host, worker.remote_pid = said.host, said.pid
            self._remote_pauses.note_success()
            log.info("%s has joined", worker.label)
            return
        self._pauses.note_success()
        self.trouble = ""

    def reap(self, worker: Worker, attaching: bool) -> tuple[Death, str]:
        """Forgets a dead worker.

        Args:
            worker: the worker.
            attaching: whether it was attaching the stream of its chunk in hand.

        Returns:
            How it died, and the same as text.
        """
        del self.workers[worker.id], (self.remote if worker.is_remote else self._local)[worker.id]
        self._remote_up -= worker.is_remote and worker.up_at is not None
        code = worker.child.code
        cause = worker.exit_reason or worker.child.trouble or cause_of(code)
        worker.child.close()
        if worker.is_remote and worker.up_at is None:
            self._note_absent(cause)
            return Death.KILLED, cause
        self.restarts += not worker.dismissed
        if worker.dismissed:
            log.info("%s is dismissed", worker.label)
        else:
            log.warning("%s is dead (%s); replacing it", worker.label, cause)
        if worker.up_at is None:
            self.trouble = f"a worker died before it was up ({cause})"
            self._pauses.note_failure()
        return death_of(worker, code, attaching), cause

    def _note_absent(self, cause: str) -> None:
        """A worker of another machine has not come up: the same cause is logged once."""
        if cause not in self._told:
            self._told.add(cause)
            log.warning("a worker of the cluster has not come up: %s", cause)
        self._remote_pauses.note_failure()

    @property
    def start_exhausted(self) -> bool:
        """Whether no worker is up, and several tries to start one have failed."""
        return self._pauses.exhausted and not any(worker.up_at for worker in self.workers.values())
