"""Feeds rubbish to a supervisor in this process, by seed.

    python -m tests.fuzz.protocol --frames 1000000 --seed 1
    python -m tests.fuzz.protocol --seed 1 --session 4711

The supervisor is the real one, on its loop, with a real worker and real openers; the peers
are called back by the same loop, so that a run depends on little but its seed. A finding
names the sessions that were alive, which ``--session`` says again, one at a time.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import psutil

from loaderd import config
from loaderd.ipc import segment
from loaderd.supervisor.children import ForkServer
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.supervisor import Supervisor
from tests.fuzz.frames import Descriptors
from tests.fuzz.peer import Peer, peers
from tests.support.photos import write_photo

MAX_GROWTH = 64 * 2**20
"""Bytes of memory that a run may take more than it had after its first tenth."""

SETTLE_SECONDS = 1.0


class Faults(logging.Handler):
    """What the daemon logs as an error: no client shall be able to cause one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(logging.Formatter().format(record))


class Run:
    """One run.

    Args:
        crowd: the peers.
        frames: how many frames they send.
        supervisor: the daemon.
        faults: what it has logged.
        loop: its loop.
    """

    def __init__(
        self, crowd: list[Peer], frames: int, supervisor: Supervisor, faults: Faults, loop: Loop
    ) -> None:
        self.findings: list[str] = []
        self._crowd, self._frames, self._supervisor = crowd, frames, supervisor
        self._faults = faults
        self._loop = loop
        self._descriptors = 0
        self._memory = 0
        self._began = self._told = self._now = time.monotonic()
        self._settled_at: float | None = None
        self._stopped = False

    @property
    def sent(self) -> int:
        return sum(peer.sent for peer in self._crowd)

    def begin(self) -> None:
        """The worker is up: peers may come."""
        self._descriptors = _descriptors()
        self._began = time.monotonic()
        self._always = os.eventfd(1)  # readable at every turn
        self._loop.watch(self._always, self._turn)

    def _turn(self) -> None:
        if self._settled_at is not None:
            self._settle(self._settled_at)
            return
        going = [peer.step() for peer in self._crowd]
        self._collect()
        self._tell()
        if not any(going) or self.sent >= self._frames:
            for peer in self._crowd:
                peer.close()
            self._settled_at = time.monotonic() + SETTLE_SECONDS

    def _collect(self) -> None:
        for text in self._faults.texts:
            self.findings.append(f"after frame {self.sent}: {text}\n{self._alive()}")
        self._faults.texts.clear()

    def _alive(self) -> str:
        sessions = [peer.session for peer in self._crowd if peer.session is not None]
        return "\n".join(
            f"  session {session.name}, its last frames: "
            + "; ".join(f"{frame.data[:60]!r}+{len(frame.fds)}" for frame in [*session.said][-4:])
            for session in sessions
        )

    def _tell(self) -> None:
        if not self._memory and self.sent >= self._frames // 10:
            self._memory = _memory()
        self._now = time.monotonic()
        if self._now > self._told + 5:
            self._told = self._now
            print(f"{self.sent:>9} frames, {self.rate:.0f}/s, {self.streams} streams", flush=True)

    @property
    def rate(self) -> float:
        return self.sent / (self._now - self._began)

    @property
    def streams(self) -> int:
        return sum(peer.streams for peer in self._crowd)

    def _settle(self, until: float) -> None:
        """Everybody is gone: nothing of them may be left."""
        if time.monotonic() < until:
            return
        if not self._stopped:
            self._stopped = True
            self._supervisor._streams.stop()  # one is kept for those who come next
            self._settled_at = time.monotonic() + SETTLE_SECONDS
            return
        self._loop.forget(self._always)
        os.close(self._always)
        gc.collect()
        if _descriptors() != self._descriptors:
            self.findings.append(f"{_descriptors()} descriptors, not {self._descriptors}")
        if self._memory and _memory() - self._memory > MAX_GROWTH:
            self.findings.append(f"{_memory():,} bytes of memory, not {self._memory:,}")
        self._collect()
        self._supervisor.drain()
        self._supervisor.drain()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def _memory() -> int:
    return int(psutil.Process().memory_info().rss)


def run(folder: str, frames: int, seed: int, session: str = "") -> Run:
    """Runs a supervisor until it has got so many frames."""
    flags = {"name": "fuzz", "socket": f"{folder}/fuzz.sock", "workers": "1", "memory": "64M"}
    settings = config.load({**flags, "cache_dir": folder, "user_code": "no"}, {})
    faults = Faults()
    log = logging.getLogger("loaderd")
    log.addHandler(faults)
    log.propagate = False
    photos = Path(folder, "photos", "cat")
    photos.mkdir(parents=True)
    for number in range(10):
        write_photo(photos / f"{number}.jpg", number, (16, 16))
    with (
        Descriptors(photos.parent) as fds,
        Loop() as loop,
        ForkServer(loop) as forks,
        Listener(loop, settings.socket) as listener,
    ):
        segment.prepare()
        supervisor = Supervisor(settings, loop, forks, listener, lambda: going.begin())
        going = Run(peers(settings.socket, seed, fds, session), frames, supervisor, faults, loop)
        try:
            supervisor.run()
        except Exception:
            going.findings.append(f"after frame {going.sent}: {traceback.format_exc()}")
    return going


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Feeds rubbish to a supervisor, by seed.")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--session", default="", help="only this one, as a finding names it")
    args = parser.parse_args(words)
    with tempfile.TemporaryDirectory(prefix="ld-") as folder:
        done = run(folder, args.frames, args.seed, args.session)
    print(f"{done.sent} frames, {done.rate:.0f}/s, {done.streams} streams, seed {args.seed}")
    for finding in done.findings:
        print(f"FINDING, seed {args.seed}: {finding}")
    return bool(done.findings)


if __name__ == "__main__":
    sys.exit(main())
