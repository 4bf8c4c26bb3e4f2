"""Reports as rows of numbers, for ``loaderd stat --watch`` into a pipe or a log."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from loaderd import formatting
from loaderd.ipc.text import printable
from loaderd.monitor.report import Report

HEADER_EVERY = 20
"""Rows after which the header is repeated."""

HEADER = (
    "    time streams   queue  batch/s  image/s waited  cpu read decode resize augment idle workers"
    " errors  bad input-bound"
)
_ROW = (
    "{:>8} {:>7} {:>7} {:>8} {:>8} {:>6} {:>4} {:>4} {:>6} {:>6} {:>7} {:>4} {:>7} "
    "{:>6} {:>4} {:>11}"
)


def renderer() -> Callable[[Report], list[str]]:
    """Return a function that renders one report after the other.

    It returns lines: a row for each report, before it the header where that is due, and a note
    where trouble, or storage that does not answer, begins or ends.
    """
    numbers, trouble, silent = itertools.count(), "", ""

    def render(report: Report) -> list[str]:
        nonlocal trouble, silent
        lines = []
        paths = ", ".join(sorted({storage.path for storage in report.now.storage}))
        if paths != silent:
            silent = paths
            lines.append(f"storage does not answer: {paths}" if paths else "storage answers again")
        if report.now.daemon.trouble != trouble:
            trouble = report.now.daemon.trouble
            lines.append(f"TROUBLE  {trouble}" if trouble else "the trouble is over")
        if next(numbers) % HEADER_EVERY == 0:
            lines.append(HEADER)
        return [*map(printable, lines), row(report)]

    return render


def row(report: Report) -> str:
    """One line with the sums over all streams; ``waited`` is of the program that waits most."""
    now, work, waited = report.now, report.work, report.verdict.waited_percent
    parts = (work.read, work.decode, work.resize, work.augment, work.idle)
    return _ROW.format(
        _clock(now.time),
        f"{len(now.streams)}",
        f"{sum(s.ready for s in now.streams)}/{sum(s.slots for s in now.streams)}",
        formatting.rate(sum(rates.batches_per_s for rates in report.rates)),
        formatting.rate(sum(rates.images_per_s for rates in report.rates)),
        "-" if waited is None else f"{waited:.1f}%",
        f"{now.host.cpu_percent:.0f}%",
        *(f"{part:.0f}%" for part in parts),
        f"{len(now.workers)}/{now.workers_wanted}",
        f"{sum(stream.errors for stream in now.streams)}",
        f"{now.daemon.bad}",
        "-" if waited is None else report.verdict.bound,
    )


def _clock(seconds: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "?"
