"""What decides the order of an iterator's samples, and which batch has which number.

Keras's iterator (``Iterator`` in ``keras/src/legacy/preprocessing/image.py``) draws an epoch's
order and its batches' parameters from the number of batches so far, and programs change order,
length and numbers from outside. As long as nobody does, the workers know the order themselves:
that is one segment. Whatever cannot be said so, as an order that was assigned, is another one.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import NoSuchSample
from loaderd.ipc.prefetch import ROUND, Place
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.sampling.order import SEEDS, EpochOrder
from loaderd.spec.output import Order
from loaderd_client.core import arguments
from loaderd_client.keras.batch_index import Places

Ids = NDArray[np.int64]

_KEPT_ARRAYS = 64


class OrderSettings(NamedTuple):
    """What an iterator's attributes say about the order of samples."""

    n: int
    batch_size: int
    shuffle: bool
    seed: int

    @classmethod
    def of(cls, iterator: Any) -> Self:
        """What they say at the moment, checked."""
        return cls(
            arguments.whole("n", iterator.n),
            arguments.whole("batch_size", iterator.batch_size),
            arguments.flag("shuffle", iterator.shuffle),
            arguments.seed(iterator.seed),
        )

    @property
    def batches(self) -> int:
        """Batches in an epoch."""
        return EpochLayout(self.n, self.batch_size).batches


class Segment:
    """Epochs of one order.

    Args:
        settings: the iterator's.
        total: samples of the dataset.
        base: Keras's number of the segment's first batch.
        given: the order of the segment, which is one epoch; None if it is drawn.

    Attributes:
        places: where the trainer is in it.

    Raises:
        NoSuchSample: the settings have more samples than there are.
    """

    def __init__(
        self, settings: OrderSettings, total: int, base: int = 0, given: NDArray[Any] | None = None
    ) -> None:
        if settings.n > total:
            raise NoSuchSample(f"`n` is {settings.n}, but there are {total} samples")
        self.settings = settings
        self.base = base
        self.given = given
        self.places = Places(settings.batches, settings.shuffle)
        self._total = total
        self._drawn = None if given is not None else self._epochs()
        self._valid = None if given is None else within(given, total)
        self._shown: tuple[int, Ids, Ids] | None = None

    def _epochs(self) -> EpochOrder:
        return EpochOrder(self.order, self._total, self.settings.batch_size)

    @property
    def order(self) -> Order:
        """The same for a spec; the given order itself is ``part``."""
        settings = self.settings
        return Order(
            shuffle=settings.shuffle and self.given is None,
            seed=(settings.seed + self.base) % SEEDS,
            draws="batch",
            given=self.given is not None,
            count=settings.n if self.given is None and settings.n < self._total else None,
        )

    @property
    def part(self) -> dict[str, Ids]:
        """What a bundle holds of it."""
        if self._valid is None:
            return {}
        return {"order": np.where(self._valid < 0, 0, self._valid)}

    @property
    def number(self) -> int:
        """Keras's number of the batch that ``next`` gives next."""
        epoch, position = self.places.upcoming
        return self.base + epoch * self.settings.batches + position

    def ids(self, place: Place) -> Ids:
        """The samples of a batch, as the iterator's attributes say."""
        first = place[1] * self.settings.batch_size
        last = first + self.settings.batch_size
        if self.given is not None:
            return self.given[first:last].astype(np.int64)
        assert self._drawn is not None
        return self._drawn.ids(place[0] % ROUND, place[1]).astype(np.int64)

    def check(self, position: int) -> None:
        """Raises NoSuchSample if the given order has samples in a batch that are not there."""
        if self._valid is None or self.given is None:
            return
        first = position * self.settings.batch_size
        batch = slice(first, first + self.settings.batch_size)
        if (self._valid[batch] < 0).any():
            raise NoSuchSample(
                f"`index_array` has samples {self.given[batch].tolist()}, of {self._total} that "
                "there are"
            )

    def is_empty(self, position: int) -> bool:
        """Whether the given order is too short for a batch."""
        return self.given is not None and position * self.settings.batch_size >= len(self.given)

    def shown(self) -> NDArray[Any]:
        """The present epoch's order, to be looked at and perhaps to be changed in place."""
        if self.given is not None:
            return self.given
        epoch = self.places.epoch
        if self._shown is None or self._shown[0] != epoch:
            assert self._drawn is not None
            order = self._drawn.epoch(epoch).astype(np.int64)
            self._shown = (epoch, order, order.copy())
        return self._shown[1]

    def is_edited(self, position: int) -> bool:
        """Whether the order of a batch was changed in place."""
        first = position * self.settings.batch_size
        batch = slice(first, first + self.settings.batch_size)
        if self.given is not None:
            assert self._valid is not None
            return not np.array_equal(within(self.given[batch], self._total), self._valid[batch])
        if self._shown is None or self._shown[0] != self.places.epoch:
            return False
        return not np.array_equal(self._shown[1][batch], self._shown[2][batch])


class Segments:
    """The segments of one iterator.

    Args:
        first: the one that it begins in, of an order that the workers know.

    Attributes:
        now: the present one.
        applied: the one of which the workers know; None for none.
    """

    def __init__(self, first: Segment) -> None:
        self.now = self._standard = first  # the last one whose order the workers know themselves
        self.applied: Segment | None = None

    @property
    def places(self) -> Places:
        """Where the trainer is."""
        return self.now.places

    def begin(
        self,
        settings: OrderSettings,
        total: int,
        base: int,
        given: NDArray[Any] | None = None,
        position: int = 0,
    ) -> None:
        """Begins another one, of which ``next`` has read ``position`` batches; see ``Segment``."""
        segment = Segment(settings, total, base, given)
        if position:
            segment.places.position = position
        self._enter(segment)

    def resume(self, settings: OrderSettings, total: int) -> None:
        """Goes back to the order that the workers know, where it was left."""
        if self._standard.settings == settings:
            self._enter(self._standard)
        else:
            self.begin(settings, total, self.now.number)

    def follow(self, settings: OrderSettings, total: int) -> None:
        """Other settings begin with the next epoch, as in Keras; this one goes on as it is."""
        now, size = self.now, settings.batch_size
        if not self.places.touched and now.given is None:
            self.begin(settings, total, now.number)
            return
        order = now.shown()
        first = self.places.position * size % max(1, settings.n)
        position = settings.batches - EpochLayout(settings.n - first, size).batches
        # Where batches begin elsewhere now, the epoch ends with the same samples all the same.
        order = np.concatenate([order[: position * size], order[first:]])
        self.begin(settings, total, now.number - position, order, position)

    def _enter(self, segment: Segment) -> None:
        if segment.given is None:
            self._standard = segment
        self.now = segment


def within(ids: NDArray[Any], total: int) -> Ids:
    """Sample numbers as Python counts in a list, from its end below 0; -1 for those beyond."""
    whole = np.asarray(ids).astype(np.int64)
    from_end = np.where(whole < 0, whole + total, whole)
    return np.where((from_end < 0) | (from_end >= total), -1, from_end)


class Issued:
    """Arrays of sample numbers that were handed to a program, and the batches that they mean."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Ids, Segment, Place]] = {}

    def issue(self, place: Place, segment: Segment) -> Ids:
        """The samples of a batch, to be known again."""
        ids = segment.ids(place)
        while len(self._known) >= _KEPT_ARRAYS:
            self._known.pop(next(iter(self._known)), None)
        self._known[id(ids)] = (weakref.ref(ids), ids.copy(), segment, place)
        return ids

    def find(self, ids: Any, segment: Segment) -> Place | None:
        """The batch that an array means; None if it is not, or no more, one of ours."""
        known = self._known.get(id(ids))
        if ids is None or known is None or known[0]() is not ids or known[2] is not segment:
            return None
        return known[3] if np.array_equal(np.asarray(ids), known[1]) else None
