"""Lines for the user, on stdout and stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from loaderd.ipc.text import printable


def say(line: str) -> None:
    """One line for the user, at once."""
    print(printable(line), flush=True)


def say_all(lines: Iterable[str]) -> None:
    """Several lines for the user."""
    for line in lines:
        say(line)


def tell(line: str) -> None:
    """One line on stderr."""
    print(printable(line), file=sys.stderr, flush=True)


def survive_any_name() -> None:
    """A name that the terminal's encoding lacks is shown escaped; the command goes on."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
