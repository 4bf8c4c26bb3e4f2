"""Which batch an index means: Keras asks for indices, a stream holds (epoch, position).

How Keras asks (``keras/src/trainers/data_adapters/py_dataset_adapter.py``): a pass is one
generator over the indices, permuted by ``fit(shuffle=True)``. It begins by reading
``num_batches``. Before the first pass some backends probe a few indices; a pass may be
abandoned (early stop, an exception) or last for several of ``fit``'s epochs
(``steps_per_epoch``); ``on_epoch_end`` comes before the first epoch too. So:

- an epoch of the stream ends when every index was touched in one pass and a new pass
  begins, whatever else is called or how often;
- in a shuffled stream the first touch of an index binds it to the next batch of the
  epoch, and the binding holds for the epoch: probes and abandoned passes lose nothing;
- in an unshuffled stream index i is batch i, always.

Pure: no socket, no lock.
"""

from __future__ import annotations

from typing import NamedTuple

from loaderd.wire.messages import Place


class Touch(NamedTuple):
    """What an index means now.

    Attributes:
        place: (epoch, position).
        restart: a pass begins at the epoch's first batch.
    """

    place: Place
    restart: bool


class Places:
    """The indices of one stream.

    Args:
        batches: batches in an epoch.
        shuffle: whether the batches of an epoch are exchangeable.
        epoch: the first epoch.
        ends_told: whether ``on_epoch_end`` comes after every pass, and nothing announces
            one: so it is in Keras 2. It looks at index 0 before a pass, and its queue reads
            ahead in threads and forgets what it read; so an index that is touched again
            begins no epoch there, unless one thread does it all.
    """

    def __init__(
        self, batches: int, shuffle: bool, epoch: int = 0, ends_told: bool = False
    ) -> None:
        self.epoch = epoch
        self._batches = batches
        self._shuffle = shuffle
        self._bound: dict[int, int] = {}
        self._touched: set[int] = set()
        self._ends_told = ends_told
        self._announced = False

    def begin_pass(self) -> None:
        """A pass over the indices begins: ``num_batches`` was read."""
        if self._complete:
            self.advance()
        self._touched.clear()
        self._announced = True

    def end_epoch(self) -> None:
        """``on_epoch_end`` was called; a pass that was not announced may end by it."""
        if self._complete and not self._announced:
            self.advance()
        self._announced = False

    def touch(self, index: int, *, alone: bool = True) -> Touch:
        """The batch that ``index`` means now.

        Args:
            index: the index.
            alone: whether one thread has touched all of this epoch so far: a loop by hand.
        """
        begins_again = alone or not self._ends_told
        if begins_again and index in self._touched and self._complete:
            self.advance()
        if self._shuffle:
            position = self._bound.setdefault(index, len(self._bound))
        else:
            position = self._bound.get(index, index)
        restart = not self._touched and position == 0
        self._touched.add(index)
        return Touch((self.epoch, position), restart)

    def untouch(self, index: int, place: Place) -> None:
        """The batch of ``index`` was not delivered after all: no epoch ends without it."""
        if place[0] == self.epoch:
            self._touched.discard(index)

    def advance(self) -> None:
        """The next epoch begins."""
        self.epoch += 1
        self._bound.clear()
        self._touched.clear()

    def settled(self) -> Places:
        """The same epoch for a forked child: what is not bound yet is bound in sorted order.

        So all children mean the same, without a word between them. From the next epoch on
        index i is batch i.
        """
        child = Places(self._batches, shuffle=False, epoch=self.epoch)
        if self._shuffle:
            rest = [index for index in range(self._batches) if index not in self._bound]
            order = [*sorted(self._bound, key=self._bound.__getitem__), *rest]
            child._bound = {index: position for position, index in enumerate(order)}
        return child

    @property
    def drawn(self) -> int:
        """Batches from the stream's start to the last that was touched."""
        latest = len(self._bound) if self._shuffle else max(self._touched, default=-1) + 1
        return self.epoch * self._batches + latest

    @property
    def between_epochs(self) -> bool:
        """Whether the next touch may begin an epoch: none was touched, or all were."""
        return not self._touched or self._complete

    @property
    def hardly_touched(self) -> bool:
        """Whether nothing of this epoch was touched, but for one look at it."""
        return len(self._touched) <= 1

    @property
    def _complete(self) -> bool:
        return len(self._touched) == self._batches
