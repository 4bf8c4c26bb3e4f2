"""Progress of a long run, on a terminal or as lines."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 5.0
"""Seconds between lines where there is no terminal."""

console = Console(highlight=False)
"""For results, on stdout."""

progress = Console(stderr=True, highlight=False)
"""For progress of programs whose stdout is read by other programs."""


class Screen:
    """Progress: a bar on a terminal, else a line every few seconds. A context manager.

    Args:
        seconds: how long the run takes.
        console: where progress is shown.
    """

    def __init__(self, seconds: float, console: Console = console) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        self._console = console
        self._bar = Progress(*columns, console=console, transient=True)
        self._task = self._bar.add_task("", total=seconds)
        self._begin = time.monotonic()
        self._next = 0.0

    def __enter__(self) -> Screen:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, text: str) -> None:
        """Show what is going on."""
        elapsed = time.monotonic() - self._begin
        if self._console.is_terminal:
            self._bar.update(self._task, completed=elapsed, description=text)
        elif elapsed >= self._next:
            self._next = elapsed + PLAIN_EVERY
            self._console.print(f"{elapsed:4.0f} s  {text}", soft_wrap=True)
