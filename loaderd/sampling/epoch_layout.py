"""The division of an epoch into batches; pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EpochLayout:
    """The division of an epoch.

    Attributes:
        samples: in an epoch.
        batch_size: samples in a batch, at least 1; the last one may have fewer.
    """

    samples: int
    batch_size: int

    @property
    def batches(self) -> int:
        """Batches in an epoch; 0 if there are no samples."""
        return -(-self.samples // self.batch_size)

    def rows(self, position: int) -> int:
        """Samples of the batch at a position.

        Raises:
            IndexError: the epoch has no such position.
        """
        if not 0 <= position < self.batches:
            raise IndexError(f"position {position} of {self.batches}")
        return min(self.batch_size, self.samples - position * self.batch_size)

    def span(self, position: int) -> tuple[int, int]:
        """The range (start, stop) of a batch in the epoch's order.

        Raises:
            IndexError: the epoch has no such position.
        """
        start = position * self.batch_size
        return start, start + self.rows(position)
