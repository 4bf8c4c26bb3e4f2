"""The division of an epoch into batches, and of batches among trainers; pure.

One trainer::

    samples  │ 0 1 2 3 │ 4 5 6 7 │ 8 9       batch_size 4

Two trainers that share the epoch, each with a batch_size of 2, have halves of the same batches, the
global batches::

    samples  │ 0 1 2 3 │ 4 5 6 7 │ 8 9
    index 0  │ 0 1     │ 4 5     │ 8
    index 1  │     2 3 │     6 7 │   9       remainder "short"
"""

from __future__ import annotations

from dataclasses import dataclass

from loaderd.errors import InvalidArgument
from loaderd.spec.output import WHOLE, Shard


@dataclass(frozen=True, slots=True)
class EpochLayout:
    """The division of an epoch.

    Attributes:
        samples: in an epoch, for all trainers.
        batch_size: samples in a batch, at least 1; the last one may have fewer.
        shard: the part of each batch of all trainers that is the stream's; None for all of it.
    """

    samples: int
    batch_size: int
    shard: Shard | None = None

    @property
    def batches(self) -> int:
        """Batches in an epoch, the same for all trainers; 0 if there are no samples."""
        if self._shard.remainder == "drop":
            return self.samples // self.global_size
        return self.numbers

    @property
    def numbers(self) -> int:
        """Numbers that an epoch takes where batches are counted: one that is dropped has one."""
        return -(-self.samples // self.global_size)

    @property
    def global_size(self) -> int:
        """Samples in a batch of all trainers."""
        return self.batch_size * self._shard.count

    @property
    def _shard(self) -> Shard:
        return self.shard or WHOLE

    @property
    def is_even(self) -> bool:
        """Whether every batch has as many rows for one trainer as for the others."""
        return not self.batches or self.global_rows(self.batches - 1) % self._shard.count == 0

    def check_shard(self) -> None:
        """Makes sure that every batch has samples for every trainer.

        Raises:
            InvalidArgument: one has none; the text says what to do.
        """
        shard, rest = self._shard, self.samples % self.global_size
        if shard.remainder == "short" and 0 < rest < shard.count:
            raise InvalidArgument(
                f"the last batch of an epoch of {self.samples} samples has {rest} for "
                f'{shard.count} trainers, and each needs one: use remainder="drop" or "pad"'
            )
        if shard.remainder == "drop" and self.samples and not self.batches:
            raise InvalidArgument(
                f'remainder="drop" leaves none of {self.samples} samples, as a batch of all '
                f'{shard.count} trainers takes {self.global_size}: lower batch_size, or use "pad"'
            )

    def global_rows(self, position: int) -> int:
        """Rows of the batch of all trainers at a position.

        Raises:
            IndexError: the epoch has no such position.
        """
        if not 0 <= position < self.batches:
            raise IndexError(f"position {position} of {self.batches}")
        if self._shard.remainder == "pad":
            return self.global_size
        return min(self.global_size, self.samples - position * self.global_size)

    def part(self, position: int) -> range:
        """The rows of the batch of all trainers that are the stream's.

        Raises:
            IndexError: the epoch has no such position.
        """
        index = self._shard.index
        each, more = divmod(self.global_rows(position), self._shard.count)
        first = index * each + min(index, more)
        return range(first, first + each + (index < more))

    def rows(self, position: int) -> int:
        """Samples of the batch at a position.

        Raises:
            IndexError: the epoch has no such position.
        """
        return len(self.part(position))

    def span(self, position: int, rows: range | None = None) -> tuple[int, int]:
        """The range (start, stop) of rows in the epoch's order; with ``pad`` it may go beyond that.

        Args:
            position: of the batch.
            rows: of the batch of all trainers; None for the stream's own.

        Raises:
            IndexError: the epoch has no such position.
        """
        rows = self.part(position) if rows is None else rows
        before = position * self.global_size
        return before + rows.start, before + rows.stop
