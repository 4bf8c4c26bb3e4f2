"""What forking does to a trainer: Keras 2's ``use_multiprocessing`` serves from children."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Locked(Protocol):
    """Something with locks."""

    def _renew_locks(self) -> None: ...


_forks = 0
_locked: weakref.WeakSet[Locked] = weakref.WeakSet()


def count() -> int:
    """How often this process has forked since it loaded this module."""
    return _forks


def renew_in_child(one: Locked) -> None:
    """Has its locks made anew first of all in every forked child.

    Threads are not forked: a lock that one of them held at that moment is never released
    in the child, so whoever has locks makes them anew there.
    """
    _locked.add(one)


def _forked() -> None:
    global _forks
    _forks += 1


def _born() -> None:
    for one in list(_locked):
        one._renew_locks()


os.register_at_fork(after_in_parent=_forked, after_in_child=_born)
