"""The streams that this process has open: how many there are, and which one gives way.

TensorFlow keeps what ``fit`` was given for ever, notebooks keep what a failed cell has held, and
tuners make iterators by the hundred. What is held need not hold a ring: the streams that were not
read for longest are closed, and open again at their place if they are read once more.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

KEPT = 12
"""Streams that are open though nobody waits for a batch of them."""


class StreamHolder(Protocol):
    """Whatever has a stream open."""

    @property
    def idle_since(self) -> float | None:
        """When a batch was last asked for; None while one is awaited, or if nothing is open."""

    def rest(self) -> None:
        """Closes the stream; it opens again when it is needed."""


_open: weakref.WeakSet[StreamHolder] = weakref.WeakSet()


def note(opened: StreamHolder) -> None:
    """A stream was opened; those that are too many give way."""
    _open.add(opened)
    for one in _idle()[:-KEPT]:
        if one is not opened:
            one.rest()


def give_way() -> bool:
    """Closes the stream that was not read for longest; returns whether there was one."""
    for one in _idle()[:1]:
        one.rest()
        return True
    return False


def _idle() -> list[StreamHolder]:
    """Those of which nobody wants a batch now, the one that was not read for longest first."""
    since = [(one.idle_since, one) for one in list(_open)]
    known = [(at, one) for at, one in since if at is not None]
    return [one for _, one in sorted(known, key=lambda pair: pair[0])]


def _forked() -> None:
    """The parent's streams are none of the child's."""
    _open.clear()


os.register_at_fork(after_in_child=_forked)
