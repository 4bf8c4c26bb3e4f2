"""``loaderd``: the entry, which loads nothing itself, so that Ctrl-C may come at any time."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    code: int = loaded("loaderd.cli.command").run(argv)
    return code


def loaded(module: str) -> ModuleType:
    """A module of ours; Ctrl-C while it loads ends the process at once, without a word.

    Nothing has begun that would have to be undone. An exception would end in a traceback,
    and be lost where a destructor or C code meets it.
    """
    import importlib
    import os
    import signal

    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # a shell has its background jobs ignore Ctrl-C
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        return importlib.import_module(module)
    finally:
        signal.signal(signal.SIGINT, usual)
