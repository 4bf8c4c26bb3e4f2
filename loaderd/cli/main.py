"""The entries of ``loaderd`` and ``loaderd-stat``.

They load nothing themselves, so that Ctrl-C may come at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb of ``loaderd`` and return its exit code."""
    return int(loaded("loaderd.cli.verbs").run(argv))


def stat(argv: Sequence[str] | None = None) -> int:
    """Run ``loaderd-stat``, which is ``loaderd stat``, and return its exit code."""
    return int(loaded("loaderd.cli.stat").main(argv))


def loaded(module: str) -> ModuleType:
    """Import a module; Ctrl-C meanwhile ends the process at once with exit code 130.

    Nothing has to be undone yet. A KeyboardInterrupt would show a traceback, and would be lost
    if it struck in a destructor or in C code.
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
