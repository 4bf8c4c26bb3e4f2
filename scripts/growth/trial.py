"""One run: a daemon, two trainers that train, and one that makes and drops flows beside them.

::

    daemon ── trainers begin ── flows are made: sample, sample, … ── all end ── at rest ── gone
                                         │                                         │
                                         └── judged for growth          rests looked for
"""

from __future__ import annotations

import argparse
import signal
import time
from collections import Counter
from pathlib import Path

import msgspec

from scripts.faults import census, command, flows, history
from scripts.faults.clients import Client
from scripts.faults.daemons import Daemon
from scripts.faults.history import Verdict
from scripts.faults.screen import Screen, progress
from scripts.growth import gauges, judge
from scripts.growth.allowances import allowances
from scripts.growth.gauges import Sample
from scripts.growth.judge import Row
from scripts.growth.maker import Line
from scripts.growth.sources import draw_images
from scripts.growth.uses import USES

MAKER = "flows"
SAMPLES = 600
"""Samples in a run that is long enough."""

MIN_PAUSE = 0.25
"""Seconds between two samples, at least."""

BEGIN_SECONDS = 180.0
"""Importing Keras takes long on a busy machine."""

MAX_SILENT = 90.0
"""Seconds without a flow after which the maker counts as hanging."""

LAST_SECONDS = 3.0
"""Seconds for which the maker is sampled after the last flow."""

LATE_FACTOR = 3
"""How many times as long as planned the maker may take."""

REST_SECONDS = 15.0
MAX_KEPT = 50


def kept(flows: int) -> int:
    """Things of each sort that the maker keeps: the bound is reached within the warm-up."""
    return max(1, min(MAX_KEPT, flows // 4 // len(USES)))


class MakerLog:
    """What the maker has done so far.

    Attributes:
        flows: how many it has made.
        uses: how often a flow was used.
        slowest: the longest use.
        errors: errors of uses, and how often each came.
        heard: when the log has last grown, by ``time.monotonic``.
    """

    def __init__(self, path: Path) -> None:
        self.flows = self.uses = 0
        self.slowest = Line(0, "", 0.0)
        self.errors: Counter[str] = Counter()
        self.heard = time.monotonic()
        self._path = path
        self._read = 0

    def read(self) -> None:
        """Reads what is new."""
        with open(self._path, "rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        for text in whole.splitlines():
            self._note(msgspec.json.decode(text, type=Line))
        if whole:
            self._read += len(whole) + 1
            self.heard = time.monotonic()

    def _note(self, line: Line) -> None:
        self.flows, self.uses = line.flows, self.uses + 1
        self.slowest = max(self.slowest, line, key=lambda one: one.seconds)
        if line.error:
            self.errors[f"{line.what}: {line.error}"] += 1


class Trial:
    """One run of all parts; :mod:`scripts.growth.report` makes its table.

    Args:
        args: the command line.
        folder: where sockets, caches and logs lie.
        data: the photos that the two trainers train with.

    Attributes:
        args: the command line.
        seconds: how long the flows took.
        made: what the maker has done.
        samples: all of them.
        rows: what was judged.
        verdict: on the batches that the two trainers got.
        findings: what is wrong, one sentence each.
        grown: what has grown.
    """

    def __init__(self, args: argparse.Namespace, folder: Path, data: str) -> None:
        self.args, self._folder, self._data = args, folder, data
        self.seconds = 0.0
        self.daemon = Daemon(folder, f"--workers={args.workers}", f"--cache-dir={folder}/cache")
        self.trainers: list[Client] = []
        self.made = MakerLog(folder / f"{MAKER}.history")
        self.samples: list[Sample] = []
        self.rows: list[Row] = []
        self.verdict: Verdict | None = None
        self.findings: list[str] = []
        self.grown: list[str] = []
        self._maker: Client | None = None
        self._names = census.names()

    def run(self) -> None:
        """Run all parts; nothing is left running, whatever happens."""
        try:
            with Screen(60 * self.args.minutes, progress) as screen:
                self._begin(screen)
                self._watch(screen)
            self._end()
        finally:
            self._kill()
        self._judge()

    # -- the parts -------------------------------------------------------------------

    def _begin(self, screen: Screen) -> None:
        self.daemon.start()
        screen.show("trainers begin")
        for which in flows.WHICH:
            words = "scripts.faults.trainer", self.args.trainers, which, self._data
            self.trainers.append(self._client(which, *words))
        images, scratch = self._folder / "images", self._folder / "scratch"
        draw_images(images)
        scratch.mkdir()
        for trainer in self.trainers:
            if not trainer.await_first(BEGIN_SECONDS):
                self.findings.append(f"{trainer.name} got no batch")
        words = str(images), str(scratch), str(self.args.flows), str(60 * self.args.minutes)
        keeps = str(kept(self.args.flows))
        self._maker = self._client(MAKER, "scripts.growth.maker", *words, keeps)

    def _client(self, name: str, *words: str) -> Client:
        return Client(name, self._folder, self.daemon.path, *words)

    def _watch(self, screen: Screen) -> None:
        """Samples while flows are made, and a little longer."""
        assert self._maker is not None
        seconds = 60 * self.args.minutes
        latest = time.monotonic() + BEGIN_SECONDS + LATE_FACTOR * seconds
        begin = end = 0.0
        while not end or time.monotonic() < end:
            self._look()
            now = time.monotonic()
            if self.made.flows:
                begin = begin or now
                self.seconds = now - begin
                self._sample(self._maker)
            if self.made.flows >= self.args.flows:
                end = end or now + LAST_SECONDS
            elif why := self._why_no_further(self._maker, now, latest):
                self._give_up(self._maker, why)
                return
            screen.show(self._status())
            time.sleep(max(MIN_PAUSE, seconds / SAMPLES))

    def _why_no_further(self, maker: Client, now: float, latest: float) -> str:
        """Why no more flows are to be expected; empty if all goes well."""
        silent = now - self.made.heard
        if silent > (MAX_SILENT if self.made.flows else BEGIN_SECONDS):
            return f"no flow was made for {silent:.0f} s"
        if now > latest:
            return "it took too long"
        return "" if maker.running and not self.daemon.ended else "the maker or the daemon ended"

    def _look(self) -> None:
        self.made.read()
        for trainer in self.trainers:
            before = len(trainer.findings)
            trainer.look()
            if len(trainer.findings) > before:
                self._note_where(trainer)

    def _note_where(self, client: Client) -> None:
        """Keeps what the daemon says, and has the client print its stacks into its log."""
        with open(self._folder / "snapshot.json", "wb") as file:
            file.write(msgspec.json.encode(self.daemon.snapshot()))
        client.signal(signal.SIGUSR1)
        time.sleep(1.0)

    def _sample(self, maker: Client) -> None:
        readings = gauges.of_daemon(self.daemon.pid, self.daemon.snapshot())
        for client in (maker, *self.trainers):
            reading = gauges.of_client(client.session)
            if reading is not None:
                readings[client.name] = reading
        self.samples.append(Sample(round(self.seconds, 2), self.made.flows, readings))
        with open(self._folder / "samples.jsonl", "ab") as file:
            file.write(msgspec.json.encode(self.samples[-1]) + b"\n")

    def _status(self) -> str:
        made, batches = self.made, sum(trainer.batches for trainer in self.trainers)
        return f"{made.flows} of {self.args.flows} flows, {batches} batches to the two trainers"

    def _give_up(self, maker: Client, why: str) -> None:
        self.findings.append(f"{why}; {self.made.flows} of {self.args.flows} flows were made")
        self._note_where(maker)
        maker.kill()

    def _end(self) -> None:
        assert self._maker is not None
        for client in (self._maker, *self.trainers):
            client.ask_to_end()
        for client in (self._maker, *self.trainers):
            client.await_end()
        if not census.eventually(self._rests, REST_SECONDS):
            self.findings.append("streams or rings are left though all clients have ended")
        self.daemon.stop()
        self._look_for_remains()

    def _rests(self) -> bool:
        now = self.daemon.snapshot()
        return now is not None and not now.streams and not now.host.ring_bytes

    def _look_for_remains(self) -> None:
        """Find processes and segments that should be gone by now."""
        assert self._maker is not None
        clients = (self._maker, *self.trainers)
        sessions = {*self.daemon.sessions, *(client.session for client in clients)}
        if not census.eventually(lambda: census.names() <= self._names, REST_SECONDS):
            self.findings.append(f"shared memory is left: {sorted(census.names() - self._names)}")
        if not census.eventually(lambda: not census.members(sessions), REST_SECONDS):
            self.findings.append(f"processes {census.members(sessions)} are left")

    def _kill(self) -> None:
        """Kill what is left, which is nothing unless something went wrong."""
        with command.ignored_signals():
            for client in filter(None, (self._maker, *self.trainers)):
                client.kill()
            self.daemon.kill()

    def _judge(self) -> None:
        assert self._maker is not None
        for client in (self._maker, *self.trainers):
            self.findings += client.findings
        self.findings += self.daemon.findings
        self.findings += [f"{text} ({times} times)" for text, times in self.made.errors.items()]
        if self.daemon.tracebacks:
            self.findings.append(f"the daemon's log holds {self.daemon.tracebacks} tracebacks")
        if self.made.flows < self.args.flows:
            self.findings.append(f"only {self.made.flows} flows were made")
        self.verdict = history.judge_files([str(trainer.history) for trainer in self.trainers])
        self.findings += self.verdict.findings
        self.rows = judge.rows(self.samples, allowances(self.args.workers))
        self.grown = list(judge.grown(self.rows))
