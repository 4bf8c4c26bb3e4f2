"""Which batches the daemon makes ahead, over all epochs; pure.

Both ends compute it: the daemon to continue, the client to know which batches come unrequested.
"""

from __future__ import annotations

import msgspec

Place = tuple[int, int]
"""(epoch, position): one batch of a stream."""

ROUND = 2**32
"""Added to an epoch's number each time that its batches are read again.

``epoch % ROUND`` decides the order of the samples, the whole number the draws: a batch that is
read again has the same samples, and other random parameters.
"""


def in_time(place: Place) -> tuple[int, int, int]:
    """The sort key of places in reading order."""
    epoch, position = place
    return (epoch % ROUND, epoch // ROUND, position)


class Run(msgspec.Struct, frozen=True, array_like=True):
    """Batches that are made without a request.

    Attributes:
        next: the first; None if there are none.
        end: the first position that a pass over an epoch does not read.
        step: added to the epoch for the next pass: 1, or ``ROUND`` to read the same epoch again.
        first: the position at which a pass begins.
        stride: from position to position within a pass; negative if it goes backwards.
    """

    next: Place | None
    end: int
    step: int = 1
    first: int = 0
    stride: int = 1

    def within(self, batches: int) -> Run:
        """The run, limited to epochs of ``batches`` batches."""
        return self if self.end <= batches else msgspec.structs.replace(self, end=batches)

    def reads(self, position: int) -> bool:
        """Whether a pass has not ended at a position."""
        return position < self.end if self.stride > 0 else position > self.end

    def after(self, place: Place) -> Place:
        """The batch that follows ``place``."""
        epoch, position = place
        following = position + self.stride
        return (epoch, following) if self.reads(following) else (epoch + self.step, self.first)

    def at(self, place: Place | None) -> Run:
        """The run from ``place`` on."""
        return Run(place, self.end, self.step, self.first, self.stride)


def waits_for_request(batches: int, taken: int) -> bool:
    """Whether a run is prefetched only after a request, by an epoch's batches and those taken.

    Programs open thousands of flows of a single batch, and read most of them once; these are
    prefetched from the second request on.
    """
    return batches == 1 and taken == 1


UNKNOWN = 2**31
"""Batches of an epoch before the dataset is listed; a run still ends with the epoch."""

WHOLE = Run((0, 0), UNKNOWN)
"""All batches of all epochs."""
