"""Lines on stdout and stderr, flushed, with control characters escaped."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, track

from loaderd.ipc.text import printable

T = TypeVar("T")


def out(*lines: str) -> None:
    """Print lines on stdout."""
    for line in lines:
        print(printable(line), flush=True)


def err(line: str) -> None:
    """Print a line on stderr."""
    print(printable(line), file=sys.stderr, flush=True)


def tracked(items: Iterable[T], what: str) -> Iterable[T]:
    """The same items, with a bar on stderr while they are taken if that is a terminal."""
    err = Console(stderr=True)
    return track(items, what, console=err, transient=True, disable=not err.is_terminal)


@contextlib.contextmanager
def bar(what: str) -> Iterator[Callable[[float], None]]:
    """A function that says how much of the work is done, from 0 to 1; shown as in ``tracked``."""
    err = Console(stderr=True)
    with Progress(console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=1.0)
        yield lambda done: progress.update(task, completed=done)


def escape_unencodable() -> None:
    """Show characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
