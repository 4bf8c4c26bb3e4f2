"""Answers for Nagios and its like."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from loaderd.ipc.snapshot import Snapshot
from loaderd.monitor.check import CRITICAL, OK, WARNING, Limits, checked
from loaderd.monitor.report import Report, derive
from tests.monitor.test_report import snapshot, stream

LIMITS = Limits(5, 20)


def waiting(percent: float, **changes: Any) -> Report:
    """A report of ten seconds in which the trainer waited."""
    before: Snapshot = snapshot(stream(waited_s=0.0, age_s=100.0), uptime_s=100.0)
    now = snapshot(stream(waited_s=percent / 10, age_s=110.0, batches=1600), uptime_s=110.0)
    return derive(msgspec.structs.replace(now, **changes), before)


@pytest.mark.parametrize(
    ("percent", "code", "name"),
    [(1, OK, "OK"), (5, WARNING, "WARNING"), (21, CRITICAL, "CRITICAL")],
)
def test_the_code_follows_from_the_share_of_time_waited(
    percent: float, code: int, name: str
) -> None:
    found, line = checked(waiting(percent), LIMITS)
    assert found == code
    assert line.startswith(f"LOADERD {name} - training waits {percent:.1f}% of the time | ")
    assert f"waited={percent:.1f}%;5;20;0;100 " in line


def test_without_a_reader_all_is_well() -> None:
    assert checked(derive(snapshot()), LIMITS)[0] == OK


def test_without_workers_it_is_critical() -> None:
    assert checked(waiting(0, workers=()), LIMITS)[0] == CRITICAL


def test_a_text_cannot_pass_for_performance_data() -> None:
    code, line = checked(derive(snapshot(trouble="a | b\nc")), LIMITS)
    assert code == CRITICAL
    assert line.count("|") == 1
    assert "\n" not in line
