"""The entries of ``loaderd`` and ``loaderd-stat``.

They load nothing themselves, so that Ctrl-C may come at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb of ``loaderd`` and returns its exit code."""
    code: int = loaded("loaderd.cli.verbs").run(argv)
    return code


def stat(argv: Sequence[str] | None = None) -> int:
    """Runs ``loaderd-stat``, which is ``loaderd stat``, and returns its exit code."""
    code: int = loaded("loaderd.cli.stat").main(argv)
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
