"""The worker processes: started, watched and replaced.

Children come from a forkserver, a clean process with the decoders loaded, in a few
milliseconds; never from a fork of the supervisor. Each has a socket for chunks and
a pidfd, which the kernel makes readable when the process is dead and its memory is gone:
only then may others write what it was writing.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from typing import Any

import psutil

from loaderd.daemon import child
from loaderd.wire import channel
from loaderd.wire.channel import Channel
from loaderd.wire.messages import Done

log = logging.getLogger("loaderd")

Work = Callable[[socket.socket], None]

_context = multiprocessing.get_context("forkserver")

_PAUSES = (0.0, 0.1, 0.3, 1.0, 3.0)
"""Seconds before a worker is started again, by how many died in a row before they were up."""


def warm() -> None:
    """Starts the forkserver, which loads the decoders while we go on."""
    _context.set_forkserver_preload([*child.PRELOAD])
    multiprocessing.forkserver.ensure_running()


@dataclass(slots=True)
class Child:
    """A process of ours, the supervisor's end of its socket, and its pidfd."""

    process: ForkServerProcess
    line: Channel
    pidfd: int

    def kill(self) -> None:
        """Kills the process, if it still lives."""
        with contextlib.suppress(OSError):  # it is dead already
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def wait_dead(self, seconds: float) -> bool:
        """Waits until the kernel says that the process is dead."""
        return bool(select.select([self.pidfd], [], [], seconds)[0])

    def reap(self) -> int | None:
        """Frees what belongs to a dead process; returns its exit code, -N for signal N."""
        self.process.join(1.0)
        code = self.process.exitcode
        self.line.close()
        os.close(self.pidfd)
        return code


def spawn(target: Callable[..., None], *args: Any) -> Child:
    """Starts ``target(socket, *args)`` in a new process.

    Raises:
        OSError: there is no descriptor or process left, or the forkserver died over it.
    """
    ours, theirs = channel.pair()
    with theirs:
        process = _context.Process(target=target, args=(theirs, *args), daemon=True)
        try:
            process.start()
        except (OSError, EOFError) as error:
            ours.close()
            raise OSError(f"no process could be started: {error!r}") from error
    line = Channel(ours)
    line.settimeout(0)
    assert process.pid is not None
    return Child(process, line, _pidfd(process.pid))


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        # It is dead and reaped already: a pipe without writer reads as dead for ever.
        end, writer = os.pipe()
        os.close(writer)
        return end


@dataclass(slots=True)
class Worker:
    """A worker and what it has done."""

    id: int
    child: Child
    up_at: float | None = None
    attached: set[int] = field(default_factory=set)
    chunks: int = 0
    rows: int = 0
    cached: int = 0
    stage_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    busy_ns: int = 0

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.process.pid or 0

    def count(self, done: Done) -> None:
        """Keeps what a chunk took."""
        self.chunks += 1
        self.rows += done.rows
        self.cached += done.cached
        self.busy_ns += done.total
        stages = self.stage_ns
        stages[0] += done.read
        stages[1] += done.decode
        stages[2] += done.resize
        stages[3] += done.augment


class Pool:
    """As many workers as wanted, however many die.

    Args:
        wanted: number of workers.
        nice: how much they give way to other processes, 0 to 19.
        work: what a worker process runs on its end of the socket.
    """

    def __init__(self, wanted: int, nice: int = 0, work: Work = child.work) -> None:
        self.wanted = wanted
        self._nice = nice
        self._work = work
        self.workers: dict[int, Worker] = {}
        self.restarts = 0
        self._ids = 0
        self._stillborn = 0
        self._resume_at = 0.0

    def missing(self, now: float) -> int:
        """How many workers to start now."""
        return self.wanted - len(self.workers) if now >= self._resume_at else 0

    def pause(self, now: float) -> float | None:
        """Seconds until a worker that could not start may be tried again."""
        if len(self.workers) >= self.wanted or now >= self._resume_at:
            return None
        return self._resume_at - now

    def start(self) -> Worker | None:
        """Starts one worker; None if that does not work now."""
        self._ids += 1
        try:
            new = Worker(self._ids, spawn(self._work))
        except OSError as error:
            log.error("%s", error)
            self._pause()
            return None
        self.workers[new.id] = new
        with contextlib.suppress(ProcessLookupError):  # dead already, which is noticed later
            os.setpriority(os.PRIO_PROCESS, new.pid, self._nice)
        return new

    def up(self, worker: Worker) -> None:
        """The worker has said that it is ready."""
        worker.up_at = time.monotonic()
        self._stillborn = 0

    def bury(self, worker: Worker) -> bool:
        """Forgets a dead worker; returns whether it died of itself, killed by nobody."""
        del self.workers[worker.id]
        self.restarts += 1
        code = worker.child.reap()
        if worker.up_at is None:
            self._pause()
        log.warning("worker %d is dead (%s); replacing it", worker.pid, _cause(code))
        return code not in (-signal.SIGKILL, -signal.SIGTERM)

    def _pause(self) -> None:
        self._stillborn += 1
        self._resume_at = time.monotonic() + _PAUSES[min(self._stillborn, len(_PAUSES)) - 1]

    @property
    def hopeless(self) -> bool:
        """Whether no worker has ever come up, and several tries have failed."""
        return self._stillborn >= len(_PAUSES) and not any(
            worker.up_at for worker in self.workers.values()
        )

    def stop(self) -> None:
        """Kills all workers, and the forkserver, and waits until they are dead."""
        for worker in self.workers.values():
            worker.child.kill()
        for worker in self.workers.values():
            worker.child.wait_dead(1.0)
            worker.child.reap()
        self.workers.clear()
        # The forkserver would end by itself when we do, but a moment after.
        servers = psutil.Process().children()
        for server in servers:
            server.kill()
        psutil.wait_procs(servers, 1.0)


def _cause(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}"
