"""Mutual exclusion that survives exceptions raised by signal handlers.

``KeyboardInterrupt``, or any other exception of a signal handler, may be raised between any two
bytecodes: between taking a lock and the ``try`` that releases it, or within its ``finally``. A lock
lost in this way blocks every thread for ever. Here the owner is recorded, and an owner that has
left is detected by the next caller.

Owners are calls of our own functions. Such a call makes a :class:`Caller` and keeps it in a local
variable named ``me``. It has left when no frame on its thread's stack has that variable: after any
exception, also while a traceback keeps the frame alive, after the thread's end, and in a forked
child for the threads that were not forked.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from time import sleep
from typing import TypeVar

from loaderd.errors import LoaderdError

_Result = TypeVar("_Result")

_PACKAGE = __name__.partition(".")[0]
_FIRST_PAUSE = 20e-6
_MAX_PAUSE = 1e-3
_UNTIL_LOOK = 5e-3
"""Seconds in which an owner of a short step is only waited for. To look for it is dear, and may
hang in CPython 3.11, if it begins a collection whose callbacks switch threads (its issue 106883).
"""


class Caller:
    """One call of a function of ours; to be kept in a local variable named ``me``."""

    __slots__ = ("thread",)

    def __init__(self) -> None:
        self.thread = threading.get_ident()

    @property
    def left(self) -> bool:
        """Whether the call has ended; costs some microseconds."""
        frame = sys._current_frames().get(self.thread)
        while frame is not None:
            ours = frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE
            if ours and frame.f_locals.get("me") is self:
                return False
            frame = frame.f_back
        return True


class _Turn:
    """One ownership, in a linked list of turns. Each step is a single atomic dict operation.

    Entry ``0`` is the owner, the first to set it; ``1`` is the next turn. A turn that is over stays
    over, so several callers may detect that its owner has left.
    """

    __slots__ = ("entries", "over")

    def __init__(self) -> None:
        self.entries: dict[int, Caller | _Turn] = {}
        self.over = False


class Claim:
    """A resource that one call owns at a time.

    Attributes:
        torn: whether an owner has left without releasing it: its work may be half done.
    """

    __slots__ = ("_turn", "torn")

    def __init__(self) -> None:
        self._turn = _Turn()
        self.torn = False

    def take(self, me: Caller, *, looks: bool = True) -> Caller | None:
        """Takes it, if it is free or its owner has left.

        Args:
            me: the call that takes it.
            looks: whether to look if an owner in another thread has left.

        Returns:
            None if ``me`` owns it now, else the owner.
        """
        turn = self._turn
        while True:
            owner = turn.entries.setdefault(0, me)
            assert isinstance(owner, Caller)
            if owner is me and not turn.over:
                self._turn = turn
                return None
            if not turn.over:
                # A thread makes one call at a time: another one of our own thread has left.
                if owner.thread != me.thread and not (looks and owner.left):
                    return owner
                if not turn.over:  # checked again: it may have released it and left since
                    self.torn = True
                    turn.over = True
            following = turn.entries.setdefault(1, _Turn())
            assert isinstance(following, _Turn)
            turn = following

    def give_back(self) -> None:
        """Releases it; to be called by the owner only."""
        # The next owner sets `_turn`: set here, it might overwrite a later one's.
        self._turn.over = True


class Guard(Claim):
    """Mutual exclusion of short steps that do not block."""

    __slots__ = ()

    @property
    def is_ours(self) -> bool:
        """Whether a call of this thread owns it."""
        owner = self._turn.entries.get(0)
        here = threading.get_ident()
        return isinstance(owner, Caller) and owner.thread == here and not self._turn.over

    def enter(self, me: Caller) -> None:
        """Waits until ``me`` owns it; ``give_back`` must follow."""
        pause, waited, last = _FIRST_PAUSE, 0.0, me
        while (owner := self.take(me, looks=waited > _UNTIL_LOOK)) is not None:
            waited = waited + pause if owner is last else pause
            last = owner
            sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)

    def run(
        self,
        step: Callable[[], _Result],
        me: Caller | None = None,
        mend: Callable[[], None] | None = None,
    ) -> _Result:
        """Runs a step as its owner. Any exception but a ``LoaderdError`` leaves it torn.

        Args:
            step: what to run.
            me: the call that runs it; None for this one.
            mend: called before the step, if it is torn.
        """
        me = me or Caller()
        self.enter(me)
        if mend is not None and self.torn:
            mend()
        try:
            result = step()
        except LoaderdError:
            self.give_back()
            raise
        self.give_back()
        return result
