"""One run: a daemon under a storm, with trainers, a misbehaver and a reference.

::

    daemon ── fresh ── measured kills ── at rest ── storm, restarts, clients ── at rest ── gone
               │                          │                                      │         │
               └── compared with ─────────┴──────────────────────────────────────┘         │
                                                   histories judged, remains looked for ───┘
"""

from __future__ import annotations

import argparse
import itertools
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loaderd_client.core.session import Session
from scripts.faults import census, command, flows, history, pace
from scripts.faults.census import Census
from scripts.faults.clients import Client
from scripts.faults.daemons import Daemon
from scripts.faults.history import Verdict
from scripts.faults.pace import Pace
from scripts.faults.screen import Screen
from scripts.faults.storm import MIXED, Storm

SAMPLE_TIMEOUT = 2
REST_SECONDS = 15.0
"""Seconds within which a daemon without clients must hold no more than a fresh one."""

BEGIN_SECONDS = 180.0
"""Importing Keras takes long on a busy machine."""

REFERENCE_SHARE = 0.2
MIN_REFERENCE = 3.0


class Trial:
    """One run of all parts; :mod:`scripts.faults.figures` makes its table.

    Args:
        args: the command line.
        folder: where sockets and logs lie.
        data: the photos.

    Attributes:
        args: the command line.
        daemon: what is tried.
        storm: what kills its workers.
        trainers: the clients that must lose nothing.
        others: the misbehaver, and the reference.
        pace: throughput under kills.
        verdict: of the histories.
        acts: how many the misbehaver has done.
        fresh: what the daemon held before anything happened.
        final: the same when all was over.
        left: processes that should have ended, and have not.
        left_names: named segments that still exist.
        used: bytes of shared memory on the machine, before and after.
        findings: what is wrong, without the figures that are out of bounds.
    """

    def __init__(self, args: argparse.Namespace, folder: Path, data: str) -> None:
        self.args, self._folder, self._data = args, folder, data
        self.seconds = 60.0 * args.minutes
        flags = f"--workers={args.workers}", f"--sample-timeout={SAMPLE_TIMEOUT}"
        self.daemon = Daemon(folder, *flags)
        self.storm = Storm(self.daemon, args.seed, args.every)
        self.trainers: list[Client] = []
        self.others: list[Client] = []
        self.pace = Pace([])
        self.verdict: Verdict | None = None
        self.acts = 0
        self.fresh = self.final = Census(0, 0, 0)
        self.left: list[int] = []
        self.left_names: list[str] = []
        self.findings: list[str] = []
        self._names = census.names()
        self.used = [census.used()]

    def run(self) -> None:
        """Run all parts; nothing is left running, whatever happens."""
        try:
            with Screen(self.seconds) as screen:
                self._begin()
                self._measure(screen)
                self._storm(screen)
            self._end()
            self._read_reference()
            self.final = self._at_rest("in the end")
            self.daemon.stop()
            self._look_for_remains()
        finally:
            self._kill()
        self._judge()

    # -- the parts -------------------------------------------------------------------

    def _begin(self) -> None:
        """Start the daemon and read one batch, so that all is loaded."""
        self.daemon.start()
        with Session(self.daemon.path) as session:
            session.open(pace.a_spec(self._data), 4).take((0, 0))
        self._await(self.daemon.is_complete, "the daemon's workers are not up")
        time.sleep(1.0)  # what was needed to open the stream is gone
        self.fresh = census.take(self.daemon.pid)

    def _measure(self, screen: Screen) -> None:
        if not self.args.least:
            return
        path, data = self.daemon.path, self._data
        for one in pace.measure(path, data, self.storm, self.seconds):
            self.pace.rounds.append(one)
            rate = f"{one.ratio:.2f} of {one.undisturbed:.0f} images/s"
            screen.show(f"{self.storm.struck.total()} strikes, {rate}")
        self._at_rest("after the measured kills")

    def _storm(self, screen: Screen) -> None:
        self._start_clients(screen)
        end = time.monotonic() + self.seconds - 2 * len(self.pace.rounds) * pace.half(self.seconds)
        restarts = _restarts(self.args.restart_every)
        numbers = itertools.cycle((signal.SIGTERM, signal.SIGKILL))
        with self.storm.raging(MIXED):
            while time.monotonic() < end:
                time.sleep(0.1)
                self._watch()
                if next(restarts):
                    self.daemon.restart(next(numbers))
                screen.show(_status(self))

    def _start_clients(self, screen: Screen) -> None:
        screen.show("trainers begin")
        words = "scripts.faults.trainer", self.args.trainers
        for which in flows.WHICH:
            self.trainers.append(self._client(which, *words, which, self._data))
        for trainer in self.trainers:
            self._await(trainer.await_first, f"{trainer.name} got no batch", BEGIN_SECONDS)
        words = "scripts.faults.misbehaver", str(self.args.seed)
        self.others.append(self._client("misbehaver", *words, self._data))

    def _client(self, name: str, *words: str) -> Client:
        return Client(name, self._folder, self.daemon.path, *words)

    def _watch(self) -> None:
        for trainer in self.trainers:
            trainer.look()
        for other in self.others:
            other.look(trains=False)
        if self.daemon.ended:
            self.daemon.start_again()

    def _end(self) -> None:
        """End all clients."""
        for client in self.clients:
            client.ask_to_end()
        for client in self.clients:
            client.await_end()
        words = self.others[0].last_words
        self.acts = int(words) if words.isdecimal() else 0

    def _read_reference(self) -> None:
        seconds = max(MIN_REFERENCE, REFERENCE_SHARE * self.seconds)
        words = "scripts.faults.reference", self._data, str(seconds)
        reference = self._client("reference", *words, *(str(t.history) for t in self.trainers))
        self.others.append(reference)
        reference.await_end(seconds + BEGIN_SECONDS)

    def _at_rest(self, when: str) -> Census:
        """What a daemon without clients holds; more than a fresh one is a finding."""
        found = self.fresh

        def rests() -> bool:
            nonlocal found
            found = census.take(self.daemon.pid)
            return self.daemon.is_complete() and found.within(self.fresh)

        if not census.eventually(rests, REST_SECONDS):
            self.findings.append(f"{when} the daemon holds {found}, a fresh one {self.fresh}")
        return found

    def _kill(self) -> None:
        """Kill what is left, which is nothing unless something went wrong."""
        with command.ignored_signals():
            for client in self.clients:
                client.kill()
            self.daemon.kill()

    def _judge(self) -> None:
        files = [str(trainer.history) for trainer in self.trainers]
        self.verdict = history.judge_files(files, [str(self.others[-1].history)])
        self.findings += self.verdict.findings

    @property
    def clients(self) -> list[Client]:
        """All clients."""
        return [*self.trainers, *self.others]

    def _look_for_remains(self) -> None:
        """Find processes and segments that should be gone by now."""
        sessions = {*self.daemon.sessions, *(client.session for client in self.clients)}
        census.eventually(lambda: census.names() <= self._names, REST_SECONDS)
        census.eventually(lambda: not census.members(sessions), REST_SECONDS)
        self.left_names = sorted(census.names() - self._names)
        self.left = census.members(sessions)
        self.used.append(census.used())

    def _await(self, what: Any, otherwise: str, seconds: float | None = None) -> None:
        so = what(seconds) if seconds else census.eventually(what, REST_SECONDS)
        if not so:
            self.findings.append(otherwise)


def _restarts(every: float) -> Iterator[bool]:
    """Yield whether ``every`` seconds have passed since it last yielded True; 0 is never."""
    due = time.monotonic() + every
    while True:
        now = bool(every) and time.monotonic() >= due
        if now:
            due = time.monotonic() + every
        yield now


def _status(trial: Trial) -> str:
    """How far it is, in one line."""
    batches = sum(trainer.batches for trainer in trial.trainers)
    strikes, restarts = trial.storm.struck.total(), sum(trial.daemon.ends.values())
    return (
        f"{batches} batches, {strikes} strikes, {restarts} restarts, "
        f"longest wait {_longest_wait(trial):.1f} s"
    )


def _longest_wait(trial: Trial) -> float:
    return max(trainer.longest_silence for trainer in trial.trainers)
