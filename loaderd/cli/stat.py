"""``loaderd-stat``: the entry, which loads nothing itself, as that of ``loaderd``."""

from __future__ import annotations

from collections.abc import Sequence

from loaderd.cli.main import loaded


def main(argv: Sequence[str] | None = None) -> int:
    """Shows the daemon once or until Ctrl-C, and returns the exit code."""
    code: int = loaded("loaderd.cli.show").run(argv)
    return code
