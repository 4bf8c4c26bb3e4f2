"""Texts that hold names of files, which may hold anything."""

from __future__ import annotations

import os


def readable(path: str | bytes) -> str:
    """A file's name for people: on one line, with what no text holds escaped."""
    return printable(os.fsdecode(path))


def encodable(text: str) -> str:
    """A text as messages can carry it: what is no UTF-8 is escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(text: str) -> str:
    """One line that any terminal and any log can show: control characters are escaped."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
