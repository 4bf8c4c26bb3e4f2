"""What the page's charts show: figures of the last minutes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from loaderd.monitor.report import Report, StreamRates, Work

SECONDS = 600
"""How long figures are kept."""


class StreamPoint(msgspec.Struct, frozen=True, kw_only=True):
    """One stream in one second; see ``StreamStats`` and ``StreamRates``."""

    id: int
    ready: int
    slots: int
    images_per_s: float
    waited_percent: float
    wait_p50_s: float | None
    wait_p95_s: float | None
    wait_p99_s: float | None


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One second."""

    time: float
    streams: tuple[StreamPoint, ...]
    work: Work


class Series:
    """The points of the last ``SECONDS``."""

    def __init__(self) -> None:
        self._points: deque[Point] = deque(maxlen=SECONDS)

    def add(self, report: Report) -> Point:
        """Adds a report, and returns its point."""
        rated = zip(report.now.streams, report.rates, strict=True)
        point = Point(
            time=report.now.time,
            streams=tuple(_stream(one.id, one.ready, one.slots, rates) for one, rates in rated),
            work=report.work,
        )
        self._points.append(point)
        return point

    def __iter__(self) -> Iterator[Point]:
        """All points, the oldest first."""
        return iter(self._points)


def _stream(number: int, ready: int, slots: int, rates: StreamRates) -> StreamPoint:
    return StreamPoint(
        id=number,
        ready=ready,
        slots=slots,
        images_per_s=rates.images_per_s,
        waited_percent=rates.waited_percent,
        wait_p50_s=rates.wait_p50_s,
        wait_p95_s=rates.wait_p95_s,
        wait_p99_s=rates.wait_p99_s,
    )
