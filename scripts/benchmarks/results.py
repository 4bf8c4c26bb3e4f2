"""Results: what is kept in ``results.json``, and the ratios that follow from it."""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import psutil

from loaderd.machine import cpus
from scripts.benchmarks.workloads import MUSTS, PEERS, WORKLOADS, Must


class Measured(msgspec.Struct):
    """What was measured of one program.

    Attributes:
        date: of the measurement.
        command: what was run.
        rates: images a second in each round.
        failed: why there are no rates.
    """

    date: str
    command: str
    rates: list[float] = []
    failed: str = ""


_Kind = TypeVar("_Kind", bound=Measured)


class Entry(Measured):
    """One peer in one workload.

    Attributes:
        ours: what loaderd reached in the same rounds.
        looks: what the batches look like.
    """

    ours: list[float] = []
    looks: dict[str, object] = {}


class LoopEntry(Measured):
    """One loop of ``scripts/bench hand-over``.

    Attributes:
        first_s: seconds from the making of the loader to its first batch.
    """

    first_s: float = 0.0


class Results(msgspec.Struct):
    """All that is known of one machine.

    Attributes:
        machine: what it is.
        datasets: what the workloads read.
        entries: by workload and peer.
        packages: by environment; the repository's own is ``""``.
        first_batch_s: from the call of ``flow_from_directory``, with a warm daemon.
        first_batch_date: when that was measured.
        loops: of ``scripts/bench hand-over``.
        shared: of ``scripts/bench share``.
    """

    machine: dict[str, str]
    datasets: dict[str, dict[str, int | str]] = {}
    entries: dict[str, dict[str, Entry]] = {}
    packages: dict[str, dict[str, str]] = {}
    first_batch_s: float | None = None
    first_batch_date: str = ""
    loops: dict[str, LoopEntry] = {}
    shared: dict[str, Measured] = {}


class Ratio(NamedTuple):
    """Ours over another's, round by round."""

    median: float
    low: float
    high: float


class Verdict(NamedTuple):
    """What became of a must."""

    must: Must
    peer: str
    ratio: Ratio | None

    @property
    def is_met(self) -> bool:
        """Whether the median reaches it."""
        return self.ratio is not None and self.ratio.median >= self.must.least


def begun(kind: type[_Kind]) -> _Kind:
    """What this command measures today; without rates so far."""
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return kind(date=today, command=shlex.join(["scripts/bench", *sys.argv[1:]]))


def load(path: Path) -> Results:
    """Former results of this machine, or none: another machine's are no comparison."""
    here = machine()
    if path.exists():
        found = msgspec.json.decode(path.read_bytes(), type=Results)
        if all(found.machine.get(key) == here[key] for key in ("cpu", "cpus")):
            found.machine = here
            return found
    return Results(machine=here)


def save(path: Path, results: Results) -> None:
    """Writes all of it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    unfinished.replace(path)


def machine() -> dict[str, str]:
    """What this machine is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return {
        "cpu": model,
        "cpus": str(cpus()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": os.uname().release,
        "python": platform.python_version(),
    }


def ratio(entry: Entry) -> Ratio | None:
    """Ours over the peer's, in the rounds that both have."""
    # Ours may have failed in a later round: then there are fewer of them.
    ratios = [ours / theirs for ours, theirs in zip(entry.ours, entry.rates, strict=False)]
    if not ratios:
        return None
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def ratio_of(ours: Measured | None, theirs: Measured) -> Ratio | None:
    """One over another, in the rounds that both have."""
    return ratio(Entry("", "", rates=theirs.rates, ours=ours.rates)) if ours else None


def verdicts(results: Results) -> list[Verdict]:
    """Every must, with what was measured."""
    return [_verdict(results, must) for must in MUSTS if must.workload in WORKLOADS]


def _verdict(results: Results, must: Must) -> Verdict:
    entries = results.entries.get(must.workload, {})
    names = [
        name
        for name in entries
        if must.against in (name, PEERS[name].group) and entries[name].rates
    ]
    if not names:
        return Verdict(must, must.against, None)
    best = max(names, key=lambda name: statistics.median(entries[name].rates))
    return Verdict(must, best, ratio(entries[best]))
