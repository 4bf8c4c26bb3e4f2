"""A sequence whose order programs may change, as with Keras's iterators.

Names, arguments and messages follow ``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Iterator as Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc.prefetch import Place
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.sampling.order import SEEDS
from loaderd_client.core import arguments
from loaderd_client.core.guard import Caller
from loaderd_client.core.supply import Superseded
from loaderd_client.keras.batch_index import Places
from loaderd_client.keras.reader import Request
from loaderd_client.keras.segments import Ids, Issued, OrderSettings, Segment, Segments
from loaderd_client.keras.sequence import LoaderSequence


class OrderedSequence(LoaderSequence):
    """A sequence with Keras's ``index_array``, ``batch_index`` and ``index_generator``.

    Programs may replace ``index_array`` or change it in place, take from ``index_generator``, and
    call or override ``_get_batches_of_transformed_samples``, ``_set_index_array`` and
    ``_flow_index``.
    """

    _segments: Segments
    _issued: Issued
    _index_generator: Iterable[Ids] | None = None
    _has_own_generator = False
    """Whether the program has assigned ``index_generator``."""
    _may_have_changed = False
    """Whether to check the function's state before the next batch."""
    _count: int
    # Of a subclass. The functions apply set attributes, and make the batch of a place, or of any
    # sample numbers.
    lock: threading.Lock
    _seeds_globally: bool
    _follow: Callable[[], None]
    _load_place: Callable[[Places, Place, Caller], Any]
    _explicit: Callable[[Any], Any]

    def _settings(self) -> OrderSettings:
        return OrderSettings.of(self)

    def _total(self) -> int:
        """Samples in the dataset."""
        return len(self._supply.manifest)

    @property
    def _now(self) -> Segment:
        return self._segments.now

    def __len__(self) -> int:
        return EpochLayout(self.n, self.batch_size).batches

    # -- Keras's attributes ----------------------------------------------------------

    @property
    def batch_index(self) -> int:
        """The index that ``next`` reads next."""
        return self._places.position

    @batch_index.setter
    def batch_index(self, value: int) -> None:
        if not value:
            self.reset()
            return
        me = Caller()
        self._reader.guard.enter(me)
        self._follow()
        number = self._now.number
        self._begin_segment(number - value, self._now.shown(), value)
        self._reader.guard.give_back()

    @property
    def total_batches_seen(self) -> int:
        """Batches that were asked for. Assigned, it is the number of the next one."""
        return self._count

    @total_batches_seen.setter
    def total_batches_seen(self, value: int) -> None:
        me = Caller()
        self._reader.guard.enter(me)
        self._follow()
        self._count = arguments.whole("total_batches_seen", value)
        position = self._places.position
        self._begin_segment(value - position, self._now.shown() if position else None, position)
        self._reader.guard.give_back()

    @property
    def index_array(self) -> NDArray[Any] | None:
        """The samples of this epoch, in order; None before the first batch.

        It may be replaced, or changed in place: that is the order until the epoch ends.
        """
        return self._now.shown() if self._now.given is not None or self._places.touched else None

    @index_array.setter
    def index_array(self, value: Any) -> None:
        if self._reader.guard.is_ours:  # called by the program's _set_index_array, which we called
            self._take_order(np.asarray(value))
            return
        me = Caller()
        self._reader.guard.enter(me)
        self._follow()
        if value is None:
            self._places.end_epoch()
        else:
            self._take_order(np.asarray(value))
        self._reader.guard.give_back()

    @property
    def index_generator(self) -> Iterable[Ids]:
        """Yields the sample numbers of ``next``'s batches."""
        if self._index_generator is None:  # made late, as it refers to the iterator
            self._index_generator = self._flow_index()
        return self._index_generator

    @index_generator.setter
    def index_generator(self, value: Iterable[Ids]) -> None:
        self._index_generator = value
        self._has_own_generator = True

    # -- batches ---------------------------------------------------------------------

    def __iter__(self) -> Any:
        """Endless: epoch after epoch."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        if self._has_own_generator or self._overrides("_flow_index"):
            with self.lock:
                indices = next(self.index_generator)
            return self._get_batches_of_transformed_samples(indices)
        return super().__next__()

    def _flow_index(self) -> Iterable[Ids]:
        while True:
            yield self._next_indices()

    def _next_indices(self) -> Ids:
        me = Caller()
        places, place = self._reader.claim(Request("next"), me, self)
        places.done(place)  # the caller has it now
        return self._issued.issue(place, self._now)

    def _prepare(self, request: Request) -> None:
        self._follow_data_loader(request)
        if request.kind == "end":
            self._may_have_changed = True
            return
        self._follow()
        match request.kind:
            case "next":
                if self._places.position == 0:
                    self._begin_epoch()
                self._apply_edits(self._places.position)
            case "index":
                if self._overrides("_set_index_array") and self.index_array is None:
                    self._set_index_array()
                self._apply_edits(request.item or 0)
            case "begin":
                if self._overrides("_set_index_array"):
                    self._set_index_array()
                elif self._now.given is not None:
                    self._resume()
                return
        self._count += 1

    def _made(self, places: Places, place: Place, me: Caller) -> Any:
        if not self._overrides("_get_batches_of_transformed_samples"):
            return self._load_place(places, place, me)
        segment = self._now
        if segment.places is not places:
            raise Superseded
        ids = self._issued.issue(place, segment)
        return self._get_batches_of_transformed_samples(ids)

    def _get_batches_of_transformed_samples(self, index_array: Any) -> Any:
        """The batch of these samples.

        Random parameters are those of ``next`` or of the index that gave the samples; for others
        they are drawn anew in each call.
        """
        me = Caller()
        place = self._issued.find(index_array, self._now)
        if place is None:
            return self._explicit(index_array)
        return self._load_place(self._places, place, me)

    # -- epochs ----------------------------------------------------------------------

    def reset(self) -> None:
        """``next`` begins an epoch.

        In mid-epoch that is another epoch, as in Keras: its order and its parameters are
        drawn from the number of its first batch. Where nothing is random it is the same one.
        """
        me = Caller()
        self._reader.guard.enter(me)
        self._may_have_changed = True
        if self._places.position:
            if self.shuffle or self.spec.is_random or self._now.given is not None:
                self._begin_segment(self._now.number)
            else:
                self._places.position = 0
        self._reader.guard.give_back()

    def _end_epoch(self) -> None:
        """Ends the epoch of reads by index (``on_epoch_end``)."""
        if self._now.given is not None:
            position = self._places.position
            self._resume()
            self._places.position = position
        self._places.end_epoch()
        if self._overrides("_set_index_array"):
            self._set_index_array()

    def _begin_epoch(self) -> None:
        """Begins an epoch of ``next``; a given order lasts one epoch."""
        number = self._now.number
        if self._overrides("_set_index_array"):
            if self._seeds_globally:
                np.random.seed((self.seed + number) % SEEDS)
            self._set_index_array()
        elif self._now.given is not None:
            self._resume()
            if self._now.number != number:
                self._begin_segment(number)

    def _resume(self) -> None:
        """Returns to the drawn order, at the position where it was left."""
        self._segments.resume(self._settings(), self._total())

    def _set_index_array(self) -> None:
        """Draws an order for this epoch from NumPy's global generator, as Keras does."""
        if self.shuffle:
            self.index_array = np.random.permutation(self.n)
        elif self._now.given is not None:
            self.index_array = np.arange(self.n)

    def _take_order(self, order: NDArray[Any]) -> None:
        """Continues at the same position in a given order."""
        position = self._places.position
        self._begin_segment(self._now.number - position, order, position)

    def _begin_segment(
        self, base: int, given: NDArray[Any] | None = None, position: int = 0
    ) -> None:
        self._segments.begin(self._settings(), self._total(), base, given, position)

    def _apply_edits(self, position: int) -> None:
        """Applies changes that a program made to ``index_array`` in place."""
        if self._now.is_edited(position):
            self._take_order(self._now.shown())

    def _overrides(self, name: str) -> bool:
        """Whether a subclass or the program overrides a method of this class."""
        ours = getattr(OrderedSequence, name)
        return getattr(type(self), name) is not ours or name in vars(self)
