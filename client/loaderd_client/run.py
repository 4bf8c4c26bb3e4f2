"""What the daemon makes by itself: the run of batches from where it was last aimed.

The daemon makes batch after batch ahead of the trainer. This is the client's view of it:
a batch that is next in the run comes unasked, any other must be planned. Pure.
"""

from __future__ import annotations

from loaderd.wire.messages import Place


class Run:
    """The run of one stream, and what was taken of it.

    Args:
        batches: batches in an epoch.
        start: the first batch; None if the daemon makes nothing by itself.
    """

    def __init__(self, batches: int, start: Place | None) -> None:
        self._batches = batches
        self._next = start
        self._last: Place | None = None
        self._taken: set[Place] = set()
        self._lost: set[Place] = set()

    def after(self, place: Place) -> Place:
        """The batch that follows."""
        epoch, position = place
        return (epoch, position + 1) if position + 1 < self._batches else (epoch + 1, 0)

    def window(self, place: Place, length: int) -> set[Place]:
        """``place`` and the batches that follow it, ``length`` in all."""
        places = {place}
        for _ in range(length - 1):
            place = self.after(place)
            places.add(place)
        return places

    def comes(self, place: Place) -> bool:
        """Whether the daemon makes this batch next, without being asked."""
        return place == self._next and place not in self._lost

    def follows(self, place: Place) -> bool:
        """Whether the trainer reads on from the batch that it took last."""
        return self._last is not None and place == self.after(self._last)

    def stale(self, place: Place) -> bool:
        """Whether the trainer has had this batch since the run was aimed."""
        return place in self._taken

    def aim(self, place: Place) -> None:
        """The run goes on from ``place``."""
        self._next = place
        self._taken.clear()
        self._lost.clear()

    def lost(self, place: Place) -> None:
        """A batch was given up unread; it does not come again by itself."""
        self._lost.add(place)

    def took(self, place: Place) -> None:
        """The trainer took a batch."""
        if self._last is not None and place[0] > self._last[0]:
            self._forget_before(place[0])
        self._taken.add(place)
        self._last = place
        while self._next in self._taken:
            self._next = self.after(self._next)

    def _forget_before(self, epoch: int) -> None:
        """Keeps nothing of older epochs: if the run was left there, nothing comes by itself."""
        self._taken = {one for one in self._taken if one[0] >= epoch}
        self._lost = {one for one in self._lost if one[0] >= epoch}
        if self._next is not None and self._next[0] < epoch:
            self._next = None
