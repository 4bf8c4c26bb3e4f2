"""Judge the batches that trainers got, by the logs that ``LOADERD_HISTORY`` names.

A log has one line of JSON for every batch that a trainer got (see
:mod:`scripts.faults.batch_log`). A run is what one sequence delivered of one spec: a sequence
whose iterator is reset in mid-epoch goes on with another seed, and begins another run. The rules:

1. Epochs: a run begins with epoch 0 and leaves none out. In each process they only ascend.
2. No gap: an epoch that is followed by a later one holds every position. Within an epoch the
   positions may come in any order. A run may end anywhere.
3. Nothing twice: Keras looks at ``ds[0]`` and ``ds[1]`` before its first pass to learn their
   shapes, so positions 0 and 1 of a run's first epoch may come once more each. Nothing else
   comes again, except with ``--again``, where passes are left early or begun anew.
4. The same bytes: lines of equal spec, epoch and position have the same sum, in all runs,
   processes and logs, whatever was killed.
5. Only the last line of a log may be torn: its client was killed while it wrote.

In a log that was read to compare (``--reference``), runs may begin with any epoch.

usage: python -m scripts.faults.history [--again] [--reference FILE] FILE...
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

LOOKED_AT = (0, 1)
"""Positions that Keras reads before its first pass, and then again."""

MAX_SHOWN = 40
"""Findings that are printed; the others are counted."""


class Line(msgspec.Struct, frozen=True):
    """A batch that was delivered; see :mod:`scripts.faults.batch_log`."""

    pid: int
    stream: str
    spec: str
    epoch: int
    position: int
    attempt: int
    batches: int
    sha256: str


Run = tuple[str, str]
"""What one sequence (its stream) delivered of one spec."""

Place = tuple[str, int, int]
"""(spec, epoch, position): what decides about the bytes."""


@dataclass(frozen=True)
class Verdict:
    """What the logs show.

    Attributes:
        streams: runs.
        batches: lines.
        epochs: how many were delivered whole.
        again: batches that came once more.
        retried: batches of which a worker died.
        compared: batches whose bytes were compared with another delivery of them.
        torn: incomplete last lines.
        findings: what is wrong, one sentence each.
    """

    streams: int
    batches: int
    epochs: int
    again: int
    retried: int
    compared: int
    torn: int
    findings: tuple[str, ...]

    def __str__(self) -> str:
        count = len(self.findings)
        judged = (
            "nothing lost, nothing twice, no byte changed"
            if not count
            else f"{count} finding" + "s" * (count > 1)
        )
        return (
            f"verdict: {judged}; {self.batches} batches in {self.streams} streams, {self.epochs} "
            f"whole epochs, {self.again} looked at again, {self.retried} tried again, "
            f"{self.compared} compared"
        )


def judge(
    *logs: Iterable[bytes], references: Sequence[Iterable[bytes]] = (), again: bool = False
) -> Verdict:
    """Read logs and find what is wrong in them.

    Args:
        logs: the lines of each, with the newlines that end them.
        references: logs that were read to compare.
        again: whether passes are left early or begun anew, so that all may come again.
    """
    case = _Case(again)
    for number, log in enumerate([*logs, *references]):
        for where, text in enumerate(log, 1):
            case.read(text, f"log {number + 1}, line {where}", reference=number >= len(logs))
    return case.verdict()


@dataclass
class _Epoch:
    """The deliveries of one epoch of a run."""

    batches: int
    came: Counter[int] = field(default_factory=Counter)

    def missing(self) -> list[int]:
        return [position for position in range(self.batches) if not self.came[position]]


class _Case:
    """The lines that were read so far, and what is wrong in them."""

    def __init__(self, again: bool) -> None:
        self._again = again
        self._epochs: defaultdict[Run, dict[int, _Epoch]] = defaultdict(dict)
        self._latest: dict[tuple[Run, int], int] = {}
        self._sums: dict[Place, tuple[str, Run]] = {}
        self._references: set[Run] = set()
        self._counts: Counter[str] = Counter()
        self._findings: list[str] = []

    def read(self, text: bytes, where: str, *, reference: bool) -> None:
        try:
            line = msgspec.json.decode(text, type=Line)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._unreadable(text, where)
            return
        run = (line.stream, line.spec)
        if reference:
            self._references.add(run)
        self._counts["batches"] += 1
        self._counts["retried"] += line.attempt > 0
        self._follow(run, line)
        self._keep(run, line)
        self._compare(run, line)

    def _unreadable(self, text: bytes, where: str) -> None:
        if text.endswith(b"\n"):
            self._findings.append(f"{where} cannot be read: {text[:60]!r}")
        else:  # what is appended to it later makes it one that ends, and a finding
            self._counts["torn"] += 1

    def _follow(self, run: Run, line: Line) -> None:
        """Rule 1, for one process: forked children go on side by side."""
        latest = self._latest.get((run, line.pid), line.epoch)
        if line.epoch < latest:
            self._find(run, f"went back from epoch {latest} to {_place(line)}")
        self._latest[run, line.pid] = max(latest, line.epoch)

    def _keep(self, run: Run, line: Line) -> None:
        epoch = self._epochs[run].setdefault(line.epoch, _Epoch(line.batches))
        if line.batches != epoch.batches:
            self._find(run, f"has {epoch.batches} batches and, at {_place(line)}, {line.batches}")
        if line.epoch < 0 or not 0 <= line.position < line.batches:
            self._find(run, f"delivered {_place(line)}, which is no place")
            return
        self._counts["again"] += epoch.came[line.position] > 0
        epoch.came[line.position] += 1

    def _compare(self, run: Run, line: Line) -> None:
        """Rule 4."""
        place = (line.spec, line.epoch, line.position)
        known, first = self._sums.setdefault(place, (line.sha256, run))
        if known != line.sha256:
            other = "it" if first == run else f"stream {first[0]}"
            self._find(run, f"delivered {_place(line)} with other bytes than {other} before")
        self._counts["compared"] += first != run

    def verdict(self) -> Verdict:
        for run, epochs in self._epochs.items():
            self._findings += self._order(run, sorted(epochs))
            self._findings += self._gaps(run, epochs)
            self._findings += self._twice(run, epochs)
        counts = self._counts
        return Verdict(
            streams=len(self._epochs),
            batches=counts["batches"],
            epochs=sum(not e.missing() for run in self._epochs.values() for e in run.values()),
            again=counts["again"],
            retried=counts["retried"],
            compared=counts["compared"],
            torn=counts["torn"],
            findings=tuple(self._findings),
        )

    def _order(self, run: Run, epochs: list[int]) -> Iterator[str]:
        """Rule 1, for the whole run."""
        if epochs[0] > 0 and run not in self._references:
            yield f"stream {run[0]} begins with epoch {epochs[0]}"
        for before, after in pairwise(epochs):
            if after != before + 1:
                yield f"stream {run[0]} went from epoch {before} to {after}"

    def _gaps(self, run: Run, epochs: dict[int, _Epoch]) -> Iterator[str]:
        """Rule 2."""
        for number, epoch in sorted(epochs.items()):
            missing = epoch.missing()
            if missing and number != max(epochs):
                yield f"stream {run[0]} lacks positions {missing} of epoch {number}"

    def _twice(self, run: Run, epochs: dict[int, _Epoch]) -> Iterator[str]:
        """Rule 3."""
        for number, epoch in sorted(epochs.items()):
            for position, times in sorted(epoch.came.items()):
                looked_at = number == min(epochs) and position in LOOKED_AT
                if times > 1 + looked_at and not self._again:
                    yield f"stream {run[0]} delivered {(number, position)} {times} times"

    def _find(self, run: Run, what: str) -> None:
        self._findings.append(f"stream {run[0]} {what}")


def _place(line: Line) -> tuple[int, int]:
    return line.epoch, line.position


def judge_files(
    files: Sequence[str], references: Sequence[str] = (), *, again: bool = False
) -> Verdict:
    """Judge files.

    Args:
        files: the logs.
        references: logs that were read to compare.
        again: see :func:`judge`.
    """
    with ExitStack() as stack:
        logs, others = (
            [stack.enter_context(open(name, "rb")) for name in names]
            for names in (files, references)
        )
        return judge(*logs, references=others, again=again)


def show(findings: Sequence[str]) -> None:
    """Print findings, one a line."""
    for finding in findings[:MAX_SHOWN]:
        print(f"finding: {finding}")
    if len(findings) > MAX_SHOWN:
        print(f"finding: and {len(findings) - MAX_SHOWN} more")


def main() -> int:
    """Judge the files that are named."""
    parser = argparse.ArgumentParser(
        "history", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="logs, one for each LOADERD_HISTORY"
    )
    parser.add_argument("--reference", metavar="FILE", action="append", default=[],
                        help="a log that was read to compare; its runs begin anywhere")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="passes are left early or begun anew")
    args = parser.parse_args()
    try:
        verdict = judge_files(args.files, args.reference, again=args.again)
    except OSError as error:
        sys.exit(f"history: {error}")
    show(verdict.findings)
    print(verdict)
    return 1 if verdict.findings else 0


if __name__ == "__main__":
    sys.exit(main())
