"""What the daemon makes ahead: batch after batch, epoch after epoch; pure.

Both ends know it: the daemon goes on by it, and the client knows by it which batches come
without being asked for.
"""

from __future__ import annotations

import msgspec

Place = tuple[int, int]
"""(epoch, position): one batch of a stream."""

ROUND = 2**32
"""What is added to an epoch's number each time that its batches are read again.

``epoch % ROUND`` decides the order of the samples. All of the number decides what is drawn: a
batch that is read again has the same samples, and other random parameters.
"""


def in_time(place: Place) -> tuple[int, int, int]:
    """Sorts places as a trainer comes to them."""
    epoch, position = place
    return (epoch % ROUND, epoch // ROUND, position)


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Batches that are made without being asked for.

    Attributes:
        next: the first; None if there are none.
        end: where a pass over an epoch ends: the first position that is not read.
        step: what the next pass adds to the epoch: 1, or ``ROUND`` where it reads the same
            epoch again.
        first: the position that a pass begins at.
        stride: from position to position within a pass; below 0 for one that goes backwards.
    """

    next: Place | None
    end: int
    step: int = 1
    first: int = 0
    stride: int = 1

    def within(self, batches: int) -> Run:
        """The same in an epoch of so many batches."""
        return self if self.end <= batches else msgspec.structs.replace(self, end=batches)

    def reads(self, position: int) -> bool:
        """Whether a pass has not ended yet at a position."""
        return position < self.end if self.stride > 0 else position > self.end

    def after(self, place: Place) -> Place:
        """The batch that follows ``place``."""
        epoch, position = place
        following = position + self.stride
        return (epoch, following) if self.reads(following) else (epoch + self.step, self.first)

    def at(self, place: Place | None) -> Run:
        """The same from ``place`` on."""
        return Run(place, self.end, self.step, self.first, self.stride)


def waits_for_request(batches: int, taken: int) -> bool:
    """Whether nothing is made of a run until it is asked for.

    A flow of a single batch is mostly read once, and made by the thousand. It is read on when a
    second batch is asked for.

    Args:
        batches: those of an epoch.
        taken: those that the client has taken.
    """
    return batches == 1 and taken == 1


UNKNOWN = 2**31
"""Stands for the batches of an epoch before the dataset was listed; a run ends with the epoch."""

WHOLE = Run((0, 0), UNKNOWN)
"""All batches of all epochs."""
