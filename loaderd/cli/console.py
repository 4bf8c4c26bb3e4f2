"""Lines on stdout and stderr, flushed, with control characters escaped."""

from __future__ import annotations

import sys

from loaderd.ipc.text import printable


def out(*lines: str) -> None:
    """Print lines on stdout."""
    for line in lines:
        print(printable(line), flush=True)


def err(line: str) -> None:
    """Print a line on stderr."""
    print(printable(line), file=sys.stderr, flush=True)


def escape_unencodable() -> None:
    """Show characters that the terminal's encoding lacks as escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
