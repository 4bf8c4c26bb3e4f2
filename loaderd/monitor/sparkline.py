"""Numbers of the last seconds as one line of text."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from loaderd.monitor.report import Report

WIDTH = 30
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*#@"


def sparkline(values: Sequence[float], highest: float, ascii_only: bool = False) -> str:
    """A character for each value, from 0 to ``highest``."""
    bars = _ASCII_BARS if ascii_only else _BARS
    top = len(bars) - 1
    scale = top / highest if highest > 0 else 0.0
    return "".join(bars[min(top, max(0, round(value * scale)))] for value in values)


class Trend:
    """Queue and rate of all streams together, in the last ``WIDTH`` reports."""

    def __init__(self) -> None:
        self._ready: deque[float] = deque(maxlen=WIDTH)
        self._rates: deque[float] = deque(maxlen=WIDTH)
        self._slots = 0

    def add(self, report: Report) -> None:
        """Adds a report."""
        self._slots = sum(one.slots for one in report.now.streams)
        self._ready.append(sum(one.ready for one in report.now.streams))
        self._rates.append(sum(one.images_per_s for one in report.rates))

    def lines(self, ascii_only: bool) -> list[str]:
        """A line for each of both."""
        ready = sparkline(self._ready, max(self._slots, *self._ready, 1), ascii_only)
        rates = sparkline(self._rates, max(*self._rates, 1.0), ascii_only)
        return [
            f"queue    {ready:<{WIDTH}}  of {self._slots} slots",
            f"image/s  {rates:<{WIDTH}}  up to {max(self._rates):.0f}",
        ]
