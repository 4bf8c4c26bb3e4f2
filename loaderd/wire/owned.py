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
from operator import attrgetter
from typing import Any


class _Watch(weakref.ref[Any]):
    """Notes that its object is dead, and holds what belonged to it."""

    __slots__ = ("args", "sweeper")
    args: tuple[Any, ...]
    sweeper: weakref.ref[Any]


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
        args = map(attrgetter("args"), iter(self._dead.popleft, None))
        self._steps = starmap(give_up, args)
        self._watches: dict[tuple[Any, ...], _Watch] = {}
        self._then = then

    def watch(self, owner: object, *args: Any) -> None:
        """Has ``give_up(*args)`` called when an object has died; no other one has the same."""
        self.sweep()
        sweeper = weakref.ref(owner, self._sweep_after)
        watch = _Watch(owner, self._dead.append)  # the later one is called first
        watch.args, watch.sweeper = args, sweeper
        self._watches[args] = watch  # in place of one that is over: nobody else could have these

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
