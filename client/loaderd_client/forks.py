"""Whether this process has forked: Keras 2's ``use_multiprocessing`` serves from children."""

from __future__ import annotations

import os

_forks = 0


def count() -> int:
    """How often this process has forked since it loaded this module."""
    return _forks


def _forked() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_parent=_forked)
