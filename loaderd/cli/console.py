"""Lines on stdout and stderr, flushed, with control characters escaped."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import track

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


def escape_unencodable() -> None:
    """Show characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
