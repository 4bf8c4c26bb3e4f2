"""How many workers there should be, where the setting leaves it open: pure, no clock.

All of them while a trainer waits. Where the rings stay full, and the workers have little to do,
fewer: then the trainer's own threads are interrupted less often. It changes no byte of a batch.

A worker is given up only after ``CALM_SECONDS`` of full rings, one at a time. A trainer that waits
gets all back at once, and each time that happens soon after one was given up, it takes twice as
long until the next is, so that the number does not go up and down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

CALM_SECONDS = 15.0
"""Time of full rings before a worker is given up."""

MAX_CALM_SECONDS = 600.0

WAITED = 0.01
"""Share of a trainer's time from which it counts as waiting."""

FULL = 0.7
"""Share of a ring's slots that are ready, or with the trainer, in one that counts as full."""

BUSY = 0.6
"""Share of their time that the workers that stay may be at work."""


class ReadStream(NamedTuple):
    """One stream in the time since the last look.

    Attributes:
        waited: seconds that its trainer waited.
        batches: that the trainer took.
        filled: slots that hold a batch, ready or taken.
        slots: of the ring.
    """

    waited: float
    batches: int
    filled: int
    slots: int

    @property
    def is_full(self) -> bool:
        """Whether the workers keep up with it."""
        return self.filled >= FULL * self.slots


class Autotune:
    """The number of workers.

    Args:
        most: one for each CPU.

    Attributes:
        count: how many there should be.
    """

    def __init__(self, most: int) -> None:
        self.count = self._most = most
        self._calm = 0.0
        self._needed = CALM_SECONDS
        self._lowered_for = math.inf

    def update(self, seconds: float, streams: Iterable[ReadStream], busy: float) -> int:
        """The number after another look.

        Args:
            seconds: since the last look.
            streams: all that are open.
            busy: seconds that all workers together were at work.

        Returns:
            ``count``.
        """
        read = [one for one in streams if one.batches or one.waited]
        self._lowered_for += seconds
        if any(one.waited > WAITED * seconds or not one.is_full for one in read):
            self._raise()
        elif read:  # without a reader nothing is known
            self._calm += seconds
            if self._calm >= self._needed and self.count > self._enough(busy / seconds):
                self.count -= 1
                self._calm = self._lowered_for = 0.0
        return self.count

    def _enough(self, busy: float) -> int:
        """Workers that suffice for what so many have done."""
        return max(1, math.ceil(busy / BUSY))

    def _raise(self) -> None:
        if self.count < self._most and self._lowered_for < 2 * self._needed:
            self._needed = min(2 * self._needed, MAX_CALM_SECONDS)
        self.count, self._calm = self._most, 0.0
