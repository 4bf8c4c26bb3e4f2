"""``loaderd``: the entry, which loads nothing itself.

The forkserver runs the file that a program was started by again in every child, and the
script ``loaderd`` imports this module: what stood here would be loaded by every worker.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns its exit code."""
    from loaderd.cli import command

    return command.run(argv)
