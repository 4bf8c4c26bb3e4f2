"""Makes texts with file names, which may hold any bytes, safe to print and send."""

from __future__ import annotations

import os

LONGEST_PATH = 500
"""Bytes. Of a longer path the end is shown in a snapshot, so that it fits into a packet."""


def readable(path: str | bytes) -> str:
    """A file's name as one line of text, with all that cannot be printed escaped."""
    return printable(os.fsdecode(path))


def encodable(text: str) -> str:
    """A text that can be encoded as UTF-8: surrogates are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def tail(text: str, longest: int = LONGEST_PATH) -> str:
    """The end of a text that can be encoded as UTF-8, of so many bytes at most."""
    return encodable(text).encode()[-longest:].decode(errors="ignore")


def printable(text: str) -> str:
    """A text as one line that is safe for terminals and logs: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
