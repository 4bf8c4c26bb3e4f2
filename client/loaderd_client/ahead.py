"""What the daemon makes without being asked, and when it is told to go on elsewhere.

The daemon makes batch after batch ahead of the trainer (``loaderd.wire.run.Run``). This is the
client's view of it. Trainers that read on in order, whole epochs or parts of them, once or again
and again, never wait for what they ask; for those that jump about nothing is made ahead, as it
would not be read. Pure.
"""

from __future__ import annotations

from loaderd.wire.run import Place, Run, in_time

_JUMPS = 2
"""After so many requests that nothing has led to, nothing is made ahead."""

_STEPS = 2
"""After so many that follow one another, something is again."""


class ReadAhead:
    """The run of one stream, and what was taken of it.

    Args:
        batches: batches in an epoch.
        run: what the daemon was told to make.
        slots: batches that there is room for.
        may_run: whether anything may be made ahead at all.
    """

    def __init__(self, batches: int, run: Run, slots: int, may_run: bool = True) -> None:
        self._batches = batches
        self._run = run
        self._slots = slots
        self._may_run = may_run
        self._last: Place | None = None
        self._taken: set[Place] = set()
        self._lost: set[Place] = set()
        self._jumps = 0
        self._steps = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Positions of a pass, and from pass to pass so many epochs."""
        return (self._run.end, self._run.step)

    def window(self, place: Place) -> set[Place]:
        """``place`` and those that follow it, as many as there is room for."""
        places = {place}
        while len(places) < self._slots:
            place = self._run.after(place)
            if place in places:
                break
            places.add(place)
        return places

    def comes(self, place: Place) -> bool:
        """Whether the daemon makes this batch next, without being asked."""
        return place == self._run.next and place not in self._lost

    def stale(self, place: Place) -> bool:
        """Whether the trainer has had this batch since the run was told to go on here."""
        return place in self._taken

    def ask(self, place: Place) -> Run | None:
        """The run from now on, as this batch is asked for; None if it stays as it is.

        To be called once for each batch that does not come by itself.
        """
        last, is_off = self._last, self._run.next is None
        if last is not None and place == (last[0], last[1] + 1):
            return self._go_on(place)
        if place[1] == 0 and (last is None or not is_off):
            return self._begin(place)
        if self._run.next is not None and place in self.window(self._run.next):
            return None  # another thread has swapped places with this one
        self._steps = 0
        self._jumps += 1
        return self._aim(self._run.at(None)) if self._jumps >= _JUMPS else None

    def _go_on(self, place: Place) -> Run | None:
        """The trainer reads on from the batch that it took last."""
        self._steps += 1
        if self._run.next is None and self._steps < _STEPS:
            return None
        end = self._run.end if place[1] < self._run.end else self._batches
        return self._aim(Run(place, end, self._run.step))

    def _begin(self, place: Place) -> Run | None:
        """The trainer begins a pass: it may well be like the one before."""
        last = self._last
        if last is not None and place[0] > last[0] and not self._jumps:
            return self._aim(Run(place, last[1] + 1, place[0] - last[0]))
        return self._aim(self._run.at(place))

    def _aim(self, run: Run) -> Run | None:
        if not self._may_run or (run == self._run and run.next not in self._lost):
            return None
        self._run = run
        self._jumps = 0
        self._taken.clear()
        self._lost.clear()
        return run

    def lost(self, place: Place) -> None:
        """A batch was given up unread; it does not come again by itself."""
        self._lost.add(place)

    def took(self, place: Place) -> None:
        """The trainer took a batch."""
        if self._last is not None and place[0] != self._last[0]:
            self._forget_before(place)
        if self.comes(place):
            self._jumps = 0
        self._taken.add(place)
        self._last = place
        while self._run.next in self._taken:
            assert self._run.next is not None
            self._run = self._run.at(self._run.after(self._run.next))

    def _forget_before(self, place: Place) -> None:
        """Keeps nothing of earlier epochs: if the run was left there, nothing comes by itself."""
        first = in_time((place[0], 0))
        self._taken = {one for one in self._taken if in_time(one) >= first}
        self._lost = {one for one in self._lost if in_time(one) >= first}
        if self._run.next is not None and in_time(self._run.next) < first:
            self._lost.add(self._run.next)
