"""The order of an iterator's samples, and the numbers of its batches.

Keras's iterator (``Iterator`` in ``keras/src/legacy/preprocessing/image.py``) draws an epoch's
order and its batches' parameters from the number of batches so far, and programs may change order,
length and number. While they do not, workers draw the order themselves: this is one segment. An
order that cannot be drawn, as one that was assigned, begins another segment.
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
    """The attributes of an iterator that decide the order of samples."""

    n: int
    batch_size: int
    shuffle: bool
    seed: int

    @classmethod
    def of(cls, iterator: Any) -> Self:
        """Their present values, checked."""
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
        places: the trainer's position in it.

    Raises:
        NoSuchSample: ``n`` exceeds the number of samples.
    """

    def __init__(
        self, settings: OrderSettings, total: int, base: int = 0, given: NDArray[Any] | None = None
    ) -> None:
        if settings.n > total:
            raise NoSuchSample(f"`n` is {settings.n}, but there are {total} samples")
        self.settings = settings
        self.base = base
        self.given = given
        self._total = total
        self.places = Places(settings.batches, settings.shuffle, self.order.seed or 0)
        self._drawn = (
            None if given is not None else EpochOrder(self.order, total, settings.batch_size)
        )
        self._valid = None if given is None else within(given, total)
        self._shown: tuple[int, Ids, Ids] | None = None

    @property
    def order(self) -> Order:
        """The order for a spec; a given order itself is in ``part``."""
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
        """Its part of the bundle: the given order."""
        if self._valid is None:
            return {}
        return {"order": np.where(self._valid < 0, 0, self._valid)}

    @property
    def number(self) -> int:
        """Keras's number of the batch that ``next`` gives next."""
        epoch, position = self.places.upcoming
        return self.base + epoch * self.settings.batches + position

    def ids(self, place: Place) -> Ids:
        """The sample numbers of a batch, int64 (rows,)."""
        if self.given is not None:
            return self.given[self._rows(place[1])].astype(np.int64)
        assert self._drawn is not None
        return self._drawn.ids(place[0] % ROUND, place[1]).astype(np.int64)

    def _rows(self, position: int) -> slice:
        """The range of a batch in the order."""
        first = position * self.settings.batch_size
        return slice(first, first + self.settings.batch_size)

    def check(self, position: int) -> None:
        """Raises NoSuchSample if the given order has invalid sample numbers in a batch."""
        if self._valid is None or self.given is None:
            return
        batch = self._rows(position)
        if (self._valid[batch] < 0).any():
            raise NoSuchSample(
                f"`index_array` has samples {self.given[batch].tolist()}, of {self._total} that "
                "there are"
            )

    def is_empty(self, position: int) -> bool:
        """Whether the given order is too short for a batch."""
        return self.given is not None and position * self.settings.batch_size >= len(self.given)

    def shown(self) -> NDArray[Any]:
        """The present epoch's order, which the program may change in place."""
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
        batch = self._rows(position)
        if self.given is not None:
            assert self._valid is not None
            return not np.array_equal(within(self.given[batch], self._total), self._valid[batch])
        if self._shown is None or self._shown[0] != self.places.epoch:
            return False
        return not np.array_equal(self._shown[1][batch], self._shown[2][batch])


class Segments:
    """The segments of one iterator.

    Args:
        first: the first one, of a drawn order.

    Attributes:
        now: the present one.
        applied: the one that was sent to the workers; None for none.
    """

    def __init__(self, first: Segment) -> None:
        self.now = self._last_drawn = first  # the last one of a drawn order
        self.applied: Segment | None = None

    @property
    def places(self) -> Places:
        """The trainer's position."""
        return self.now.places

    def begin(
        self,
        settings: OrderSettings,
        total: int,
        base: int,
        given: NDArray[Any] | None = None,
        position: int = 0,
    ) -> None:
        """Begins a segment of which ``next`` has read ``position`` batches; see ``Segment``."""
        segment = Segment(settings, total, base, given)
        if position:
            segment.places.position = position
        self._enter(segment)

    def resume(self, settings: OrderSettings, total: int) -> None:
        """Returns to the drawn order, at the position where it was left."""
        if self._last_drawn.settings == settings:
            self._enter(self._last_drawn)
        else:
            self.begin(settings, total, self.now.number)

    def follow(self, settings: OrderSettings, total: int) -> None:
        """Applies new settings from the next epoch on, as Keras does; this one keeps its order."""
        now, size = self.now, settings.batch_size
        if not self.places.touched and now.given is None:
            self.begin(settings, total, now.number)
            return
        order = now.shown()
        first = self.places.position * size % max(1, settings.n)
        position = settings.batches - EpochLayout(settings.n - first, size).batches
        # With another batch size too, the epoch ends with the same samples.
        order = np.concatenate([order[: position * size], order[first:]])
        self.begin(settings, total, now.number - position, order, position)

    def _enter(self, segment: Segment) -> None:
        if segment.given is None:
            self._last_drawn = segment
        self.now = segment


def within(ids: NDArray[Any], total: int) -> Ids:
    """Sample numbers from 0; negative ones count from the end, invalid ones become -1."""
    whole = np.asarray(ids).astype(np.int64)
    from_end = np.where(whole < 0, whole + total, whole)
    return np.where((from_end < 0) | (from_end >= total), -1, from_end)


class Issued:
    """Arrays of sample numbers that programs were given, with their places."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Any], Ids, Segment, Place]] = {}

    def issue(self, place: Place, segment: Segment) -> Ids:
        """The sample numbers of a batch, which ``find`` recognises."""
        ids = segment.ids(place)
        while len(self._known) >= _KEPT_ARRAYS:
            self._known.pop(next(iter(self._known)), None)
        self._known[id(ids)] = (weakref.ref(ids), ids.copy(), segment, place)
        return ids

    def find(self, ids: Any, segment: Segment) -> Place | None:
        """The place of an issued array; None for another array, or one that was changed."""
        known = self._known.get(id(ids))
        if ids is None or known is None or known[0]() is not ids or known[2] is not segment:
            return None
        return known[3] if np.array_equal(np.asarray(ids), known[1]) else None
