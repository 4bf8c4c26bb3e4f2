"""Releases an object's resources when it dies, even if a signal handler raises meanwhile.

A finalizer in Python code (``weakref.finalize``) can be interrupted: a signal handler raises
between two steps, Python prints the exception, and the descriptor, mapping or slot leaks. Here each
step is one call of C code, within which no handler runs: ``deque.append`` records the death, and
one ``next`` pops the record and releases the resource. The next sweep catches up on a skipped step.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from itertools import starmap
from typing import Any


class _Watch(weakref.ref[Any]):
    """A weak reference; its callback records that the object is dead."""

    __slots__ = ("sweeper",)
    sweeper: weakref.ref[Any]
    # Two references to one object must differ; both methods are C code.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Owned:
    """Resources that are released when their owners die.

    Args:
        give_up: releases a resource; a C function, called in any thread at any time.
        then: called afterwards, unless a signal handler raises.
    """

    def __init__(
        self, give_up: Callable[..., object], then: Callable[[], None] | None = None
    ) -> None:
        self._dead: deque[_Watch] = deque()
        self._things: dict[_Watch, tuple[Any, ...]] = {}
        self._steps = starmap(give_up, map(self._things.pop, iter(self._dead.popleft, None)))
        self._then = then

    def watch(self, owner: object, *thing: Any) -> None:
        """Calls ``give_up(*thing)`` once ``owner`` has died."""
        self.sweep()
        sweeper = weakref.ref(owner, self._sweep_after)
        watch = _Watch(owner, self._dead.append)  # the later one is called first
        watch.sweeper = sweeper
        self._things[watch] = thing

    def sweep(self) -> None:
        """Releases the resources of all recorded deaths."""
        while self._dead:
            try:
                next(self._steps)
            except IndexError:  # another thread was faster
                return

    def _sweep_after(self, _: weakref.ref[Any]) -> None:
        self.sweep()
        if self._then is not None:
            self._then()
