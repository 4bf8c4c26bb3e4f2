"""A report as one JSON object on one line, for programs."""

from __future__ import annotations

import msgspec

from loaderd import formatting
from loaderd.monitor.report import Report


def render(report: Report) -> str:
    """The snapshot's own fields, each stream with its rates, and the rest of the report."""
    table = msgspec.to_builtins(report.now)
    for stream, rates in zip(table["streams"], report.rates, strict=True):
        stream.update(msgspec.to_builtins(rates))
    for remote, link in zip(table["remote"], report.remote_rates, strict=True):
        remote.update(msgspec.to_builtins(link))
    rest = {"interval_s": report.interval_s, "work_percent": report.work, "verdict": report.verdict}
    return formatting.as_json(table | rest)
