"""A report as the answer of a monitoring plugin, such as Nagios, Icinga and Checkmk run.

One line of text with performance data behind a bar, and an exit code; see the Monitoring Plugins
Development Guidelines.
"""

from __future__ import annotations

from typing import NamedTuple

from loaderd import formatting
from loaderd.ipc.text import printable
from loaderd.monitor.report import Report

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


class Limits(NamedTuple):
    """Percent of its time that a program may wait.

    Attributes:
        warn: from which on it is a warning.
        crit: from which on it is critical.
    """

    warn: float
    crit: float


def checked(report: Report, limits: Limits) -> tuple[int, str]:
    """The exit code, and the line.

    Args:
        report: over the time that is judged.
        limits: of the program that waits most.
    """
    code, text = _judged(report, limits)
    return code, f"{answer(code, text)} | {_data(report, limits)}"


def answer(code: int, text: str) -> str:
    """The line without performance data."""
    return f"LOADERD {_NAMES[code]} - {printable(text).replace('|', '/')}"


def _judged(report: Report, limits: Limits) -> tuple[int, str]:
    now, waited = report.now, report.verdict.waited_percent
    if now.daemon.trouble:
        return CRITICAL, now.daemon.trouble
    if not now.workers:
        return CRITICAL, "no worker is up"
    if now.storage or waited is None:
        return CRITICAL if now.storage else OK, report.verdict.text
    text = f"training waits {waited:.1f}% of the time"
    if waited >= limits.crit:
        return CRITICAL, text
    return (WARNING if waited >= limits.warn else OK), text


def _data(report: Report, limits: Limits) -> str:
    now, waited = report.now, report.verdict.waited_percent
    shown = "U" if waited is None else f"{waited:.1f}%"
    images = sum(rates.images_per_s for rates in report.rates)
    ready, slots = (sum(getattr(one, name) for one in now.streams) for name in ("ready", "slots"))
    return (
        f"waited={shown};{limits.warn:g};{limits.crit:g};0;100 "
        f"images_per_s={formatting.rate(images)};;;0 ready={ready};;;0;{slots} "
        f"workers={len(now.workers)};;;0;{now.workers_wanted} bad={now.daemon.bad}c"
    )
