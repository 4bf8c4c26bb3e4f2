"""A report as one row of numbers, for ``loaderd-stat --watch`` into a pipe or a log."""

from __future__ import annotations

import time

from loaderd import formatting
from loaderd.monitor.report import Report

HEADER_EVERY = 20
"""Rows after which the header comes again."""

_COLUMNS = (
    ("time", 8),
    ("streams", 7),
    ("queue", 7),
    ("batch/s", 8),
    ("image/s", 8),
    ("waited", 6),
    ("cpu", 4),
    ("read", 4),
    ("decode", 6),
    ("resize", 6),
    ("augment", 7),
    ("idle", 4),
    ("workers", 7),
    ("errors", 6),
    ("bad", 4),
    ("input-bound", 11),
)


def header() -> str:
    """The names of the columns."""
    return _line([name for name, _ in _COLUMNS])


def row(report: Report) -> str:
    """All streams together in one line; ``waited`` is of the program that waits most."""
    now, work, waited = report.now, report.work, report.verdict.waited_percent
    cells = (
        _clock(now.time),
        f"{len(now.streams)}",
        f"{sum(s.ready for s in now.streams)}/{sum(s.slots for s in now.streams)}",
        formatting.rate(sum(rates.batches_per_s for rates in report.rates)),
        formatting.rate(sum(rates.images_per_s for rates in report.rates)),
        "-" if waited is None else f"{waited:.1f}%",
        f"{now.host.cpu_percent:.0f}%",
        *(f"{part:.0f}%" for part in (work.read, work.decode, work.resize, work.augment)),
        f"{work.idle:.0f}%",
        f"{len(now.workers)}/{now.workers_wanted}",
        f"{sum(stream.errors for stream in now.streams)}",
        f"{now.daemon.bad}",
        "-" if waited is None else report.verdict.bound,
    )
    return _line(cells)


def _line(cells: tuple[str, ...] | list[str]) -> str:
    return " ".join(
        cell.rjust(width) for cell, (_, width) in zip(cells, _COLUMNS, strict=True)
    ).rstrip()


def _clock(seconds: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(seconds))
    except (ValueError, OverflowError, OSError):
        return "?"
