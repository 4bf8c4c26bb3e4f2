"""What is shown while it lasts."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 5.0
"""Seconds between lines where there is no terminal."""

console = Console(highlight=False)
"""Where results go."""

progress = Console(stderr=True, highlight=False)
"""Where programs whose results are read by others show how far they are."""


class Screen:
    """How far it is: a bar on a terminal, else a line now and then. A context manager.

    Args:
        seconds: that it takes.
        console: where it is shown.
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
        """What is going on now."""
        elapsed = time.monotonic() - self._begin
        if self._console.is_terminal:
            self._bar.update(self._task, completed=elapsed, description=text)
        elif elapsed >= self._next:
            self._next = elapsed + PLAIN_EVERY
            self._console.print(f"{elapsed:4.0f} s  {text}", soft_wrap=True)
