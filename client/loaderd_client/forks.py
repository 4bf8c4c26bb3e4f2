"""What forking does to a trainer: Keras 2's ``use_multiprocessing`` serves from children."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

_forks = 0
_calls: set[weakref.WeakMethod[Callable[[], None]]] = set()


def count() -> int:
    """How often this process has forked since it loaded this module."""
    return _forks


def in_child(method: Callable[[], None]) -> None:
    """Has a method called first of all in every forked child, as long as its object lives.

    Threads are not forked: a lock that one of them held at that moment is never released
    in the child, so whoever has locks makes them anew there.
    """
    _calls.add(weakref.WeakMethod(method, _calls.discard))


def _forked() -> None:
    global _forks
    _forks += 1


def _born() -> None:
    for method in [call() for call in list(_calls)]:
        if method is not None:
            method()


os.register_at_fork(after_in_parent=_forked, after_in_child=_born)
