"""Where a subscriber is in its stream: which batch is made for it next; pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Set
from dataclasses import dataclass, field

from loaderd.ipc.prefetch import Place, Run, waits_for_request

COLD = 2
"""Batches that are made ahead for a client that has taken none: TensorFlow looks at two."""


@dataclass(slots=True)
class Cursor:
    """What one subscriber wants next, and how far it has come.

    ``made`` is the set of places that lie in FILLING or READY slots of the stream.
    """

    batches: int
    """Batches of an epoch."""
    run: Run
    """Where the run goes on; if there is none, only what is wanted is made."""
    want: deque[Place] = field(default_factory=deque)
    """Wanted out of turn, before the run goes on."""
    taken: int = 0
    """Batches that it has taken."""
    missing: int = 0
    """Batches, not cut into chunks yet, that it needs before those that are ready."""

    def count_missing(self, made: Set[Place], slots: int, cutting: bool) -> None:
        """Follows a change of what is wanted, or of the run.

        Args:
            made: see above.
            slots: the ring's.
            cutting: whether a batch is being cut into chunks.
        """
        self.missing = len(self.want) + self._gap(made, slots) + cutting

    def _gap(self, made: Set[Place], slots: int) -> int:
        """Batches that the run has to make until it comes to those that are there already."""
        place = self.run.next
        if place is None:
            return 0
        for count in range(slots):
            if place in made:
                return count
            place = self.run.after(place)
        return 0  # all that is there comes before the run, as it does if nothing is out of turn

    def one_less_missing(self) -> None:
        """A batch is cut into chunks, or given up."""
        self.missing = max(0, self.missing - 1)

    def next_place(self, made: Set[Place]) -> Place | None:
        """The batch to begin next: wanted out of turn, else the next of the run, if any."""
        if self._rests(made):
            return None
        while self.want:
            place = self.want.popleft()
            if place not in made:
                if place == self.run.next:
                    self._pass(place)
                return place
            self.one_less_missing()
        next_one = self.run.next
        if next_one is None:
            return None
        while next_one in made:
            next_one = self.run.after(next_one)
        self._pass(next_one)
        return next_one

    def _pass(self, place: Place) -> None:
        self.run = self.run.at(self.run.after(place))

    def _rests(self, made: Set[Place]) -> bool:
        """Whether enough is made for a client that may read no further, and wants nothing else."""
        waits = waits_for_request(self.batches, self.taken) or self.is_cold(made)
        return self.run.next is not None and waits and all(place in made for place in self.want)

    def is_cold(self, made: Set[Place]) -> bool:
        """Whether enough is made for those who have taken nothing."""
        return not self.taken and len(made) >= min(COLD, self.batches)
