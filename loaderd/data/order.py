"""(seed, epoch) becomes the sample ids of each batch of the epoch; pure.

The source of randomness is NumPy's ``RandomState(Philox(key=(seed, epoch)))``, with the
last word of Philox's counter set to ``_ORDER``, so that no other use of the same key draws
the same numbers. Both the bits of Philox and the shuffle of ``RandomState`` are frozen by
NumPy's compatibility policy (NEP 19), which ``Generator.permutation`` is not: an epoch has
the same order on every machine and under every version of NumPy, and a stream can be
resumed anywhere. Any change here changes every user's order; the tests hold it fast.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32] | npt.NDArray[np.int64]

_ORDER = 2**64 - 1
_KEPT = 2  # this epoch, and the next one's first batches


class EpochOrder:
    """The order of the samples in every epoch of a stream.

    Args:
        seed: a whole number from 0, below 2**64.
        shuffle: a new order for every epoch; otherwise sample i comes i-th, always.
        samples: the size of the dataset.
        batch_size: samples in a batch, at least 1; the last of an epoch may have fewer.

    Attributes:
        batches: batches in an epoch; 0 if there are no samples.
    """

    def __init__(self, seed: int, shuffle: bool, samples: int, batch_size: int) -> None:
        self.seed = seed
        self.shuffle = shuffle
        self.samples = samples
        self.batch_size = batch_size
        self.batches = -(-samples // batch_size)
        self._epochs: dict[int, Ids] = {}

    def rows(self, position: int) -> int:
        """The number of samples in a batch.

        Raises:
            IndexError: the epoch has no such position.
        """
        if not 0 <= position < self.batches:
            raise IndexError(f"position {position} of {self.batches}")
        return min(self.batch_size, self.samples - position * self.batch_size)

    def ids(self, epoch: int, position: int) -> Ids:
        """The samples of a batch, in the order of its rows.

        Returns:
            Sample ids of shape (rows(position),), read-only; int32 if that suffices,
            else int64.

        Raises:
            IndexError: the epoch has no such position.
        """
        start = position * self.batch_size
        stop = start + self.rows(position)
        return self._epoch(epoch)[start:stop]

    def _epoch(self, epoch: int) -> Ids:
        epoch = epoch if self.shuffle else 0  # unshuffled, all epochs are one
        if epoch not in self._epochs:
            if len(self._epochs) == _KEPT:
                del self._epochs[next(iter(self._epochs))]  # the one that was made first
            self._epochs[epoch] = self._make(epoch)
        return self._epochs[epoch]

    def _make(self, epoch: int) -> Ids:
        ids = _range(self.samples)
        if self.shuffle:
            np.random.RandomState(_bits(self.seed, epoch)).shuffle(ids)
        ids.flags.writeable = False
        return ids


def _bits(seed: int, epoch: int) -> np.random.Philox:
    return np.random.Philox(
        key=np.array([seed, epoch], np.uint64),
        counter=np.array([0, 0, 0, _ORDER], np.uint64),
    )


def _range(samples: int) -> Ids:
    if samples < 2**31:
        return np.arange(samples, dtype=np.int32)
    return np.arange(samples, dtype=np.int64)
