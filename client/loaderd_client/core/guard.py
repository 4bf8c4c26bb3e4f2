"""Ownership that survives Ctrl-C.

``KeyboardInterrupt``, or whatever else a signal handler raises, may strike between any two
bytecodes: between taking a lock and the block that would give it back, or within that block's
end. A lock that is lost so blocks everybody for ever. Here whoever owns a thing is known, and
an owner that has left is found out by the next one who wants it.

Owners are calls of our own functions. Such a call makes a :class:`Caller` and keeps it in a local
variable named ``me``. It has left when no frame on its thread's stack has that variable: that is
so after any exception, also while a traceback keeps the frame alive, after the thread's end, and
in a forked child for the threads that were not forked.
"""

from __future__ import annotations

import sys
import threading
from time import sleep

_PACKAGE = __name__.partition(".")[0]
_FIRST_PAUSE = 20e-6
_LONGEST_PAUSE = 1e-3


class Caller:
    """One call of a function of ours, to be kept in a local variable named ``me``."""

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
    """One ownership. Steps are single operations of a dict, which nothing can interrupt.

    ``0`` is the owner, the first who says so; ``1`` is the turn that follows. A turn that is over
    stays over, so it does no harm if several find out that its owner has left.
    """

    __slots__ = ("over", "said")

    def __init__(self) -> None:
        self.said: dict[int, Caller | _Turn] = {}
        self.over = False


class Claim:
    """A thing that one call owns at a time.

    Attributes:
        torn: whether an owner has left without giving it back: what it was about may be half done.
    """

    __slots__ = ("_turn", "torn")

    def __init__(self) -> None:
        self._turn = _Turn()
        self.torn = False

    def take(self, me: Caller) -> Caller | None:
        """Takes it, if nobody has it or its owner has left.

        Returns:
            None if it is ours now, else its owner.
        """
        turn = self._turn
        while True:
            owner = turn.said.setdefault(0, me)
            assert isinstance(owner, Caller)
            if owner is me and not turn.over:
                self._turn = turn
                return None
            if not turn.over:
                # A thread makes one call at a time: another one of our own thread has left.
                if owner.thread != me.thread and not owner.left:
                    return owner
                if not turn.over:  # looked at once more: it may have given it back and left since
                    self.torn = True
                    turn.over = True
            following = turn.said.setdefault(1, _Turn())
            assert isinstance(following, _Turn)
            turn = following

    def give_back(self) -> None:
        """Gives it back; only the owner may."""
        # Who comes next notes his own turn: if we did, it might be a later one's already.
        self._turn.over = True


class Guard(Claim):
    """Mutual exclusion of short steps, none of which waits for anything."""

    __slots__ = ()

    @property
    def is_ours(self) -> bool:
        """Whether a call of this thread is within."""
        owner = self._turn.said.get(0)
        here = threading.get_ident()
        return isinstance(owner, Caller) and owner.thread == here and not self._turn.over

    def enter(self, me: Caller) -> None:
        """Waits until it is ours; ``give_back`` must follow."""
        pause = _FIRST_PAUSE
        while self.take(me) is not None:
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
