"""The sample ids of each batch of an epoch, from (seed, epoch); pure.

:class:`~loaderd.spec.spec.Order` chooses between two sources:

- ``sample``: NumPy's ``RandomState(Philox(key=(seed, epoch)))``, with the last word of
  Philox's counter set to ``_ORDER``, so that no other use of the same key draws the same
  numbers;
- ``batch``: Keras's own (``Iterator._flow_index`` in
  ``keras/src/legacy/preprocessing/image.py``): ``RandomState(seed + k)``, where k is the
  number of the epoch's first batch, counted from the stream's start.

With ``sample``, samples may be drawn by weights. Then one generator shuffles them, draws one number
for :func:`~loaderd.sampling.weights.systematic`, and shuffles what that has chosen. So each sample
comes as often as its share of the weights says, rounded down or up. With ``repeats`` of n, each of
the first samples of that order, a fraction of 1 / n, comes n times in a row. What a sample draws
depends on how often it came before in the epoch: see :mod:`loaderd.augment.draws`.

A given order of samples replaces both sources; all epochs then have it. Epochs that are read again
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
from loaderd.sampling.weights import Weights, systematic
from loaderd.spec.output import Order

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]

SEEDS = 2**32
"""Number of seeds of ``RandomState``; Keras's seeds wrap around to 0."""

_ORDER = 2**64 - 1
_BATCHES = 2**64 - 3
"""The last word of Philox's counter for the order of whole batches."""
_KEPT = 2  # this epoch, and the next one's first batches


class EpochOrder:
    """The order of the samples in every epoch of a stream.

    Args:
        order: seed (None counts as 0), source, and whether epochs are shuffled;
            otherwise sample i is the i-th of each epoch.
        samples: the size of the dataset.
        batch_size: samples in a batch of one trainer, at least 1; the last of an epoch may have
            fewer.
        given: the order, if ``order.given``.
        weights: of all samples, where they are drawn by weights; None for each once.

    Attributes:
        batches, samples: in an epoch.
        layout: both, and the samples of each batch.
    """

    def __init__(
        self,
        order: Order,
        samples: int,
        batch_size: int,
        given: Ids | None = None,
        weights: Weights | None = None,
    ) -> None:
        self.seed = order.seed or 0
        length = epoch_length(order, samples, given)
        self.layout = EpochLayout(length, batch_size, order.shard)
        self.samples, self.batches = self.layout.samples, self.layout.batches
        self.shuffle = order.shuffle and not order.given
        self._draws = order.draws
        self._given = given if order.given else None
        self._weights = weights
        self._repeats = order.repeats
        self._is_repeating = order.given or order.is_weighted or order.repeats > 1
        self._epochs: dict[int, Ids] = {}
        self._occurrences: dict[int, Ids] = {}

    def ids(self, epoch: int, position: int, rows: range | None = None) -> Ids:
        """The samples of a batch, in the order of its rows.

        Args:
            epoch: of the batch.
            position: of the batch.
            rows: of the batch of all trainers that share the epoch; None for the stream's own.

        Returns:
            Sample ids, one for each row, read-only; int32 if that suffices, else int64.

        Raises:
            IndexError: the epoch has no such position.
        """
        start, stop = self.layout.span(position, rows)
        order = self.epoch(epoch)
        if stop <= self.samples:
            return order[start:stop]
        return order[np.arange(start, stop) % self.samples]

    def occurrences(self, epoch: int, position: int, rows: range | None = None) -> Ids:
        """How often the sample of each row of a batch came before in the epoch.

        Args:
            epoch: of the batch.
            position: of the batch.
            rows: as for ``ids``.

        Raises:
            IndexError: the epoch has no such position.
        """
        start, stop = self.layout.span(position, rows)
        if stop <= self.samples:
            return self._occurrences_in_order(epoch)[start:stop]
        order, places = self.epoch(epoch), np.arange(start, stop)
        rounds, at = places // self.samples, places % self.samples
        times = np.bincount(order)[order[at]] if self._is_repeating else 1
        again: Ids = self._occurrences_in_order(epoch)[at] + rounds * times
        return again

    def _occurrences_in_order(self, epoch: int) -> Ids:
        """How often each sample of an epoch's order came before in it."""
        if not self._is_repeating:
            return np.broadcast_to(np.int32(0), self.samples)
        key = self._key(epoch)
        if key not in self._occurrences:
            _keep_room(self._occurrences)
            self._occurrences[key] = _occurrences(self.epoch(epoch))
        return self._occurrences[key]

    def number(self, epoch: int, position: int) -> int:
        """The number of a batch in the stream, as Keras counts; the same when it is read again."""
        return epoch % ROUND * self.layout.numbers + position

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
        key = self._key(epoch)
        if key not in self._epochs:
            _keep_room(self._epochs)
            ids = self._made(key)
            ids.flags.writeable = False
            self._epochs[key] = ids
        return self._epochs[key]

    def _key(self, epoch: int) -> int:
        """The first epoch with the same order: unshuffled ones are equal."""
        return epoch % ROUND if self.shuffle else 0

    def _made(self, epoch: int) -> Ids:
        ids = _ids(self.samples) if self._given is None else self._given
        if not self.shuffle:
            return ids
        source = self._source(epoch)
        source.shuffle(ids)
        if self._weights is not None and len(ids):
            ids = ids[systematic(self._weights[ids], source.random_sample())]
            source.shuffle(ids)
        return ids[np.arange(len(ids)) // self._repeats] if self._repeats > 1 else ids

    def _source(self, epoch: int) -> np.random.RandomState:
        if self._draws == "batch":
            return np.random.RandomState((self.seed + epoch * self.batches) % SEEDS)
        return draws.generator(self.seed, epoch, 0, _ORDER)


def batch_order(seed: int, epoch: int, batches: int) -> Ids:
    """An order of the batches of an epoch, from (seed, epoch), for epochs with shuffled batches."""
    order = _ids(batches)
    draws.generator(seed, epoch, 0, _BATCHES).shuffle(order)
    return order


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


def _keep_room(epochs: dict[int, Ids]) -> None:
    if len(epochs) == _KEPT:
        del epochs[next(iter(epochs))]  # the oldest


def _occurrences(ids: Ids) -> Ids:
    """How often each number came before."""
    order = np.argsort(ids, kind="stable")
    grouped = ids[order]
    begins = np.flatnonzero(np.diff(grouped, prepend=-1))  # of each number's group
    sizes = np.diff(begins, append=len(ids))
    counts = np.empty(len(ids), np.int32)
    counts[order] = np.arange(len(ids)) - np.repeat(begins, sizes)
    return counts


def _ids(samples: int) -> Ids:
    """All samples in their own order, as int32 if that suffices, else int64.

    Shuffling them gives the same numbers as ``RandomState.permutation``, which uses 64 bits.
    """
    if samples < 2**31:
        return np.arange(samples, dtype=np.int32)
    return np.arange(samples, dtype=np.int64)
