"""Signals to random workers, at short intervals."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping

from loaderd.ipc.snapshot import Snapshot
from scripts.faults.daemons import Daemon

MIXED: Mapping[signal.Signals, int] = {
    signal.SIGKILL: 70,
    signal.SIGSEGV: 10,
    signal.SIGABRT: 10,
    signal.SIGSTOP: 10,
}
"""Weights of the signals, in percent."""

DEADLY: Mapping[signal.Signals, int] = {
    number: weight for number, weight in MIXED.items() if number != signal.SIGSTOP
}
"""The same without SIGSTOP, whose length depends on ``--sample-timeout``."""


class Storm:
    """Sends signals to workers of a daemon, in a thread.

    Args:
        daemon: the daemon.
        seed: of all randomness.
        every: seconds between strikes.

    Attributes:
        struck: strikes by the signal's name.
        bad: the highest number of bad images in a snapshot; there is none in the data.
        trouble: troubles in snapshots, and how often each was seen.
    """

    def __init__(self, daemon: Daemon, seed: int, every: float) -> None:
        self.struck: Counter[str] = Counter()
        self.bad = 0
        self.trouble: Counter[str] = Counter()
        self._daemon = daemon
        self._rng = random.Random(f"storm {seed}")
        self._every = every
        self._stop = threading.Event()

    @contextlib.contextmanager
    def raging(self, kinds: Mapping[signal.Signals, int]) -> Iterator[None]:
        """Strike during the block.

        Args:
            kinds: signals and their weights; with none it only takes snapshots, at the same cost.
        """
        self._stop.clear()
        thread = threading.Thread(target=self._rage, args=(kinds,))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _rage(self, kinds: Mapping[signal.Signals, int]) -> None:
        while not self._stop.wait(self._every):
            now = self._daemon.snapshot()
            if now is None:
                continue
            self._note(now)
            if kinds and now.workers:
                (number,) = self._rng.choices(list(kinds), list(kinds.values()))
                self._strike(now.daemon.pid, self._rng.choice(now.workers).pid, number)

    def _note(self, now: Snapshot) -> None:
        self.bad = max(self.bad, now.daemon.bad)
        if now.daemon.trouble:
            self.trouble[now.daemon.trouble] += 1

    def _strike(self, daemon: int, worker: int, number: signal.Signals) -> None:
        """Send the signal, unless the pid has passed to another process meanwhile."""
        with contextlib.suppress(ProcessLookupError):
            pidfd = os.pidfd_open(worker)
            try:
                if os.getsid(worker) == daemon:
                    signal.pidfd_send_signal(pidfd, number)
                    self.struck[number.name] += 1
            finally:
                os.close(pidfd)
