"""A limit on the idle streams that this process keeps open.

TensorFlow keeps the argument of ``fit`` for ever, notebooks keep the objects of a failed cell, and
tuners make hundreds of iterators. To free their rings, the least recently read streams are closed;
they are reopened at the same place if they are read again.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

KEPT = 12
"""Limit of open streams for whose batches no call waits."""


class StreamHolder(Protocol):
    """An object that keeps a stream open."""

    @property
    def idle_since(self) -> float | None:
        """When a batch was last requested; None while a call waits, or if nothing is open."""

    def rest(self) -> None:
        """Closes the stream; it is reopened by the next request."""


_open: weakref.WeakSet[StreamHolder] = weakref.WeakSet()


def note(opened: StreamHolder) -> None:
    """Registers an opened stream; closes idle ones beyond ``KEPT``."""
    _open.add(opened)
    for one in _idle()[:-KEPT]:
        if one is not opened:
            one.rest()


def close_idle() -> bool:
    """Closes the least recently read idle stream; returns whether there was one."""
    for one in _idle()[:1]:
        one.rest()
        return True
    return False


def _idle() -> list[StreamHolder]:
    """Holders of idle streams, the least recently read first."""
    since = {one: at for one in list(_open) if (at := one.idle_since) is not None}
    return sorted(since, key=since.__getitem__)


os.register_at_fork(after_in_child=_open.clear)  # they are the parent's
