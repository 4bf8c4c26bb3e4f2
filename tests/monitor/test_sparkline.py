"""Lines of small bars."""

from __future__ import annotations

from loaderd.monitor.report import derive
from loaderd.monitor.sparkline import WIDTH, Trend, sparkline
from tests.monitor.test_report import snapshot, stream


def test_bars_go_from_nothing_to_the_highest() -> None:
    assert sparkline([0, 7, 14, 99], 14) == "▁▅██"
    assert sparkline([0, 7, 14], 14, ascii_only=True) == "_+@"
    assert sparkline([0, 0], 0) == "▁▁"


def test_a_trend_has_the_last_reports_alone() -> None:
    trend = Trend()
    for ready in [0] * 5 + [8] * (WIDTH + 5):
        trend.add(derive(snapshot(stream(ready=ready, slots=8))))
    queue, rate = trend.lines(ascii_only=False)
    assert queue == f"queue    {'█' * WIDTH}  of 8 slots"
    assert rate.startswith("image/s  █")
