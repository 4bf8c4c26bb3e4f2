"""The streams that this process has open: how many there are, and which one gives way.

TensorFlow keeps what ``fit`` was given for ever, notebooks keep what a failed cell has held, and
tuners make iterators by the hundred. What is held need not hold a ring: the streams that were not
read for longest are closed, and open again at their place if they are read once more.
"""

from __future__ import annotations

import os
import weakref

from loaderd_client.stream import Stream

KEPT = 12
"""Streams that are open though nobody waits for a batch of them."""

_open: weakref.WeakSet[Stream] = weakref.WeakSet()


def note(stream: Stream) -> None:
    """A stream was opened; those that are too many give way."""
    _open.add(stream)
    for one in _idle()[:-KEPT]:
        if one is not stream:
            one.close()


def give_way() -> bool:
    """Closes the stream that was not read for longest; returns whether there was one."""
    for one in _idle()[:1]:
        one.close()
        return True
    return False


def _idle() -> list[Stream]:
    """Those of which nobody wants a batch now, the one that was not read for longest first."""
    living = [one for one in list(_open) if not one.ended and one.idle]
    return sorted(living, key=lambda one: one.used_at)


def _forked() -> None:
    """The parent's streams are none of the child's."""
    _open.clear()


os.register_at_fork(after_in_child=_forked)
