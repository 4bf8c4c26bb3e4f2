"""The sample ids of each batch of an epoch, from (seed, epoch); pure.

:class:`~loaderd.spec.spec.Order` chooses between two sources:

- ``sample``: NumPy's ``RandomState(Philox(key=(seed, epoch)))``, with the last word of
  Philox's counter set to ``_ORDER``, so that no other use of the same key draws the same
  numbers;
- ``batch``: Keras's own (``Iterator._flow_index`` in
  ``keras/src/legacy/preprocessing/image.py``): ``RandomState(seed + k)``, where k is the
  number of the epoch's first batch, counted from the stream's start.

A given order of samples replaces both; all epochs then have it. Epochs that are read again
(``loaderd.ipc.prefetch.ROUND``) keep their order.

NumPy's compatibility policy (NEP 19) freezes Philox, the Mersenne Twister and the shuffles of
``RandomState``, but not ``Generator.permutation``: an epoch has the same order on every machine
and under every version of NumPy, and a stream can be resumed anywhere. Any change here changes
every user's order; tests pin it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loaderd.ipc.prefetch import ROUND
from loaderd.sampling import draws
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.output import Order

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]

SEEDS = 2**32
"""Number of seeds of ``RandomState``; Keras's seeds wrap around to 0."""

_ORDER = 2**64 - 1
_KEPT = 2  # this epoch, and the next one's first batches


class EpochOrder:
    """The order of the samples in every epoch of a stream.

    Args:
        order: seed (None counts as 0), source, and whether epochs are shuffled;
            otherwise sample i is the i-th of each epoch.
        samples: the size of the dataset.
        batch_size: samples in a batch, at least 1; the last of an epoch may have fewer.
        given: the order, if ``order.given``.

    Attributes:
        batches, samples: in an epoch.
        layout: both, and the samples of each batch.
    """

    def __init__(
        self, order: Order, samples: int, batch_size: int, given: Ids | None = None
    ) -> None:
        self.seed = order.seed or 0
        self.layout = EpochLayout(epoch_length(order, samples, given), batch_size)
        self.samples, self.batches = self.layout.samples, self.layout.batches
        self.shuffle = order.shuffle and not order.given
        self._draws = order.draws
        self._given = given if order.given else None
        self._epochs: dict[int, Ids] = {}

    def ids(self, epoch: int, position: int) -> Ids:
        """The samples of a batch, in the order of its rows.

        Returns:
            Sample ids of shape (rows(position),), read-only; int32 if that suffices,
            else int64.

        Raises:
            IndexError: the epoch has no such position.
        """
        start, stop = self.layout.span(position)
        return self.epoch(epoch)[start:stop]

    def number(self, epoch: int, position: int) -> int:
        """The number of a batch in the stream, as Keras counts; the same when it is read again."""
        return epoch % ROUND * self.batches + position

    def seed_batch(self, rng: np.random.RandomState, epoch: int, position: int) -> None:
        """Sets a generator to the state of Keras's before the first sample of a batch is drawn.

        A batch that is read again has a seed of two words, different from all others.
        """
        seed, again = (self.seed + self.number(epoch, position)) % SEEDS, epoch // ROUND
        rng.seed([seed, again % SEEDS] if again else seed)
        if position == 0 and self.shuffle and not again:
            rng.shuffle(_ids(self.samples))  # consumes the draws of the order

    def epoch(self, epoch: int) -> Ids:
        """The samples of an epoch in their order, read-only."""
        epoch = epoch % ROUND if self.shuffle else 0  # unshuffled epochs are equal
        if epoch not in self._epochs:
            if len(self._epochs) == _KEPT:
                del self._epochs[next(iter(self._epochs))]  # the oldest
            ids = _ids(self.samples) if self._given is None else self._given
            if self.shuffle:
                self._source(epoch).shuffle(ids)
            ids.flags.writeable = False
            self._epochs[epoch] = ids
        return self._epochs[epoch]

    def _source(self, epoch: int) -> np.random.RandomState:
        if self._draws == "batch":
            return np.random.RandomState((self.seed + epoch * self.batches) % SEEDS)
        return draws.generator(self.seed, epoch, 0, _ORDER)


def epoch_length(order: Order, samples: int, given: Ids | None = None) -> int:
    """Samples in an epoch.

    Args:
        order: of the spec.
        samples: the size of the dataset.
        given: the order, if ``order.given``.
    """
    if order.given:
        return 0 if given is None else len(given)
    return samples if order.count is None else min(order.count, samples)


def _ids(samples: int) -> Ids:
    """All samples in their own order, as int32 if that suffices, else int64.

    Shuffling them gives the same numbers as ``RandomState.permutation``, which uses 64 bits.
    """
    if samples < 2**31:
        return np.arange(samples, dtype=np.int32)
    return np.arange(samples, dtype=np.int64)
