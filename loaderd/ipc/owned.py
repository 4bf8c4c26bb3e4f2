"""What belongs to an object and is given up when that dies, whatever strikes meanwhile.

A finalizer that is Python code (``weakref.finalize``) may be interrupted: the handler of a signal
raises between two of its steps, Python prints that and goes on, and the descriptor, the mapping or
the slot is lost. Here each step is one call of C code, in the midst of which no handler runs: the
death is noted by ``deque.append``, and what is noted is taken and given up in one ``next``. A step
that was left out is made up for by whoever comes next.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from itertools import starmap
from typing import Any


class _Watch(weakref.ref[Any]):
    """Notes that its object is dead."""

    __slots__ = ("sweeper",)
    sweeper: weakref.ref[Any]
    # Two of one object are not the same; both still in C.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


class Owned:
    """Things that belong to objects.

    Args:
        give_up: what is done with a thing when its owner has died; a function in C. In any thread,
            at any moment.
        then: called afterwards, if nothing strikes.
    """

    def __init__(
        self, give_up: Callable[..., object], then: Callable[[], None] | None = None
    ) -> None:
        self._dead: deque[_Watch] = deque()
        self._things: dict[_Watch, tuple[Any, ...]] = {}
        self._steps = starmap(give_up, map(self._things.pop, iter(self._dead.popleft, None)))
        self._then = then

    def watch(self, owner: object, *thing: Any) -> None:
        """Has ``give_up(*thing)`` called when an object has died."""
        self.sweep()
        sweeper = weakref.ref(owner, self._sweep_after)
        watch = _Watch(owner, self._dead.append)  # the later one is called first
        watch.sweeper = sweeper
        self._things[watch] = thing

    def sweep(self) -> None:
        """Gives up what was left over."""
        while self._dead:
            try:
                next(self._steps)
            except IndexError:  # another thread was faster
                return

    def _sweep_after(self, _: weakref.ref[Any]) -> None:
        self.sweep()
        if self._then is not None:
            self._then()
