"""The client's view of the daemon's run, and the decision when to replace it.

The daemon makes batches ahead of the trainer (``loaderd.ipc.prefetch.Run``). The run follows
trainers that read forwards, backwards or by a stride, whole epochs or parts of them, once or
repeatedly. For random access nothing is made ahead, as it would not be read. There is no I/O.
"""

from __future__ import annotations

from loaderd.ipc.prefetch import ROUND, Place, Run, in_time, waits_for_request

_JUMPS = 2
"""Unpredicted requests after which nothing is made ahead."""

_STEPS = 2
"""Equal strides after which a run begins again."""

_SURE_STEPS = 4
"""Equal strides that count as a pattern, and not as threads that overtook one another."""


class ReadAhead:
    """The run of one stream, and the batches taken of it.

    Args:
        batches: batches in an epoch.
        run: the run that the daemon was given.
        slots: slots of the ring.
        may_run: whether anything may be made ahead.
    """

    def __init__(self, batches: int, run: Run, slots: int, may_run: bool = True) -> None:
        self._batches = batches
        self._run = run
        self._slots = slots
        self._may_run = may_run
        self._last: Place | None = None
        self._first = run.first
        self._taken: set[Place] = set()
        self._count = 0
        self._lost: set[Place] = set()
        self._left = False
        self._jumps = 0
        self._stride = 0
        self._steps = 0

    @property
    def shape(self) -> Run:
        """The run (end, step, stride) without a start."""
        return self._run.at(None)

    def window(self, place: Place) -> set[Place]:
        """``place`` and the untaken places that follow it in the run, one for each slot."""
        places: set[Place] = set()
        for _ in range(self._slots + len(self._taken)):
            if len(places) == self._slots:
                break
            if place not in self._taken:
                places.add(place)
            place = self._run.after(place)
        return places

    @property
    def _next(self) -> Place | None:
        """The run's next place; None if nothing more of it is made."""
        return None if self._left else self._run.next

    def comes(self, place: Place) -> bool:
        """Whether the daemon makes this batch next, without a request."""
        if waits_for_request(self._batches, self._count):
            return False
        return place == self._next and place not in self._lost

    def expects(self, place: Place) -> bool:
        """Whether the run makes this batch soon, and the trainer has not taken it.

        Batches that were being made when the run was replaced are not expected.
        """
        first, run = self._next, self._run
        if first is None or place in self._taken:
            return False
        steps, rest = divmod(place[1] - first[1], run.stride)
        if place[0] == first[0] and not rest and 0 <= steps < self._slots and run.reads(place[1]):
            return True  # the usual case; the window costs ten times as much
        return place in self.window(first)

    def ask(self, place: Place) -> Run | None:
        """The new run after a request for this batch; None if the run stays.

        To be called once for each batch that does not come next in the run.
        """
        last = self._last
        stride = self._strode(place)
        near = self._next is not None and place in self.window(self._next)
        if stride == 1 or self._steps >= (_SURE_STEPS if near else _STEPS):
            return self._go_on(place, stride)
        begins = place[1] in (0, self._run.first)
        if begins and (last is None or self._run.next is not None):
            return self._begin(place)
        if near:
            return None  # another thread has overtaken this one
        self._jumps += 1
        makes_in_vain = self._left or self._jumps >= _JUMPS
        return self._aim(self._run.at(None)) if makes_in_vain else None

    def _strode(self, place: Place) -> int:
        """Updates and returns the stride from the last batch taken; 0 in another epoch."""
        last = self._last
        stride = place[1] - last[1] if last is not None and place[0] == last[0] else 0
        self._steps = self._steps + 1 if stride == self._stride and stride else min(1, abs(stride))
        self._stride = stride
        return stride

    def _go_on(self, place: Place, stride: int) -> Run | None:
        """The run of a trainer that continues from the last batch taken, by ``stride``."""
        if self._run.next is None and self._steps < _STEPS:
            return None
        run = Run(place, self._run.end, self._run.step, self._first, stride)
        if stride != self._run.stride or not (run.reads(place[1]) and run.reads(run.first)):
            run = Run(place, self._batches if stride > 0 else -1, run.step, self._first, stride)
        return self._aim(run)

    def _begin(self, place: Place) -> Run | None:
        """The run of a pass that begins here; assumed to be like the pass before."""
        last, run = self._last, self._run
        if last is not None and place[0] > last[0] and not self._jumps:
            end = last[1] + (1 if run.stride > 0 else -1)
            step = place[0] - last[0]
            goes_on = step < ROUND or step % ROUND == 0  # other epochs, or the same one again
            if goes_on and Run(None, end, 1, 0, run.stride).reads(place[1]):
                return self._aim(Run(place, end, step, place[1], run.stride))
        return self._aim(run.at(place))

    def _aim(self, run: Run) -> Run | None:
        if not self._may_run:
            return None
        if run == self._run and not self._left and run.next not in self._lost:
            return None
        self._run = run
        self._left = False
        self._jumps = 0
        self._taken.clear()
        self._lost.clear()
        return run

    def lost(self, place: Place) -> None:
        """Notes a batch that was discarded unread; the run does not make it again."""
        self._lost.add(place)

    def took(self, place: Place) -> None:
        """Notes a batch that the trainer took."""
        if self._last is None or place[0] != self._last[0]:
            self._first = place[1]
            self._forget_before(place)
        if self.comes(place):
            self._jumps = 0
        self._taken.add(place)
        self._count += 1
        self._last = place
        while self._run.next in self._taken:
            assert self._run.next is not None
            self._run = self._run.at(self._run.after(self._run.next))

    def _forget_before(self, place: Place) -> None:
        """Drops earlier epochs; a run that is still in one of them makes nothing more."""
        first = in_time((place[0], 0))
        self._taken = {one for one in self._taken if in_time(one) >= first}
        self._lost = {one for one in self._lost if in_time(one) >= first}
        if self._run.next is not None and in_time(self._run.next) < first:
            self._left = True
