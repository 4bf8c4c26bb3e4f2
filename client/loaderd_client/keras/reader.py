"""Requests for the batches of a sequence, and their delivery.

::

    Keras ── request ──► Reader ── place ──► Supply ── batch ──► the sequence ──► Keras

A reader chooses the places, one thread at a time. It calls the sequence before each choice, and to
assemble a batch. It does not refer to its sequence, so that an unused one is freed at once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from loaderd.errors import LoaderdError
from loaderd.ipc.bundle import Parts
from loaderd.ipc.prefetch import Place
from loaderd.spec.spec import Spec
from loaderd_client.core.batch import Batch
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.supply import Superseded, Supply
from loaderd_client.keras.adapter import EpochEnd
from loaderd_client.keras.batch_index import PassKind, Places

Observer = Callable[[Batch, Spec, Parts, int], None]
"""Called with each batch, its spec and parts, and the number of batches in an epoch."""

new_observer: Callable[[], Observer] | None = None
"""Makes an observer, as for a log, for every sequence made from now on; None for none."""


class Request(NamedTuple):
    """A request of the trainer.

    Attributes:
        kind: a batch by ``index``, by ``next``, in a ``pass``, or as a ``look`` that does not
            count; or the start of a pass (``begin``) or the end of an epoch (``end``).
        item: the index of the batch; None for the next of a pass.
        key: identifies the pass.
    """

    kind: Literal["index", "next", "pass", "look", "begin", "end"]
    item: int | None = 0
    key: object = None

    def place(self, places: Places, me: Caller) -> Place:
        """The place of the requested batch."""
        if self.kind == "pass":
            return places.read_pass(self.key, self.item)
        if self.kind == "next":
            return places.next(me)
        assert self.item is not None
        return places.read(self.item, me) if self.kind == "index" else places.peek(self.item)


class IndexMapping(Protocol):
    """The mapping of the indices of a sequence to places."""

    @property
    def places(self) -> Places:
        """The present one; replaced when another order begins."""


class FixedMapping(NamedTuple):
    """The mapping of a sequence whose order does not change."""

    places: Places


class Requester(Protocol):
    """The methods of a sequence that a reader calls."""

    def __len__(self) -> int: ...

    def _prepare(self, request: Request) -> None:
        """Applies attributes set since the last request; called under the guard."""

    def _end_epoch(self) -> None:
        """Ends an epoch that is read by index; called under the guard."""


class ReadCounters:
    """Counters of what was read.

    Attributes:
        images: in all batches.
        seconds: that the reads took; those of ready batches take microseconds.
    """

    def __init__(self) -> None:
        self.images = 0
        self.seconds = 0.0

    def add(self, nanoseconds: int, images: int) -> None:
        """Counts one batch."""
        self.seconds += nanoseconds / 1e9
        self.images += images


_Result = TypeVar("_Result")
Make = Callable[[Places, Place, Caller], _Result]


class Reader:
    """The batches of one sequence, by request.

    Args:
        supply: gives the batches.
        mapping: maps indices to places.

    Attributes:
        guard: held while a place is chosen.
        waits: what its reads have waited, for whoever compares two moments.
    """

    def __init__(self, supply: Supply, mapping: IndexMapping) -> None:
        self.supply = supply
        self.guard = Guard()
        self.waits = ReadCounters()
        self._mapping = mapping
        self._observe = None if new_observer is None else new_observer()
        self._early_ends: dict[int | None, int] = {}  # enqueuer → epochs that it has ended

    def __reduce__(self) -> Any:
        """Copies the position, also to another process; the copy has a guard of its own."""
        return Reader, (self.supply, self._mapping)

    @property
    def places(self) -> Places:
        """The present mapping of indices to places."""
        return self._mapping.places

    def claim(self, request: Request, me: Caller, sequence: Requester) -> tuple[Places, Place]:
        """The place of the requested batch, with the mapping that gave it."""
        self.guard.enter(me)
        sequence._prepare(request)
        places = self.places
        claimed = places, request.place(places, me)
        self.guard.give_back()
        return claimed

    def deliver(self, request: Request, sequence: Requester, make: Make[_Result]) -> _Result:
        """Makes the requested batch; it counts as delivered when ``make`` has returned."""
        me = Caller()
        while True:
            places, place = self.claim(request, me, sequence)
            try:
                result = make(places, place, me)
            except Superseded:
                continue  # another thread has reset or changed the sequence meanwhile
            places.done(place)
            return result

    def fetch(self, places: Places, place: Place, me: Caller) -> Batch:
        """The batch at a place.

        Raises:
            Superseded: the place is no longer valid.
        """
        begun = perf_counter_ns()
        try:
            batch = self.supply.fetch(place, me, lambda: places is self.places)
        except LoaderdError:
            if not self.supply.ended:  # the batch itself failed: do not request it again
                places.done(place)
            raise
        self.waits.add(perf_counter_ns() - begun, len(batch.ids))
        if self._observe is not None:
            supply = self.supply
            self._observe(batch, supply.spec, supply.parts, supply.batches)
        return batch

    def begin_pass(self, key: object, sequence: Requester, kind: PassKind) -> int:
        """Begins a pass; see ``Places.begin_pass``. Returns how many batches it has."""
        me = Caller()
        self.guard.enter(me)
        sequence._prepare(Request("begin"))
        self.places.begin_pass(key, kind)
        count = self.places.left(key)
        self.guard.give_back()
        if kind.permuted and not kind.trial:
            self.supply.begin_permuted()
        return count

    def end_epoch(self, end: EpochEnd, sequence: Requester) -> None:
        """Handles a call of ``on_epoch_end``; Keras may call it early, repeatedly or never."""
        me = Caller()
        self.guard.enter(me)
        sequence._prepare(Request("end"))
        if end.enqueuer is not None:
            self._end_enqueued(end, sequence)
        elif end.reads == "index":
            sequence._end_epoch()
        else:
            self.places.end_pass()
        self.guard.give_back()

    def _end_enqueued(self, end: EpochEnd, sequence: Requester) -> None:
        """Ends an epoch that is read through an enqueuer of Keras 2.

        The enqueuer calls ``on_epoch_end`` when it has handed out the whole epoch, and reads ahead
        of ``fit`` into the next. ``fit`` calls it at its own end, usually later; with short steps
        it stops the enqueuer first. In either case the next epoch is read from its start.
        """
        early = self._early_ends.get(end.enqueuer, 0)
        if end.steps is None:
            self._early_ends[end.enqueuer] = early + 1
            sequence._end_epoch()
            return
        self._early_ends.pop(end.enqueuer, None)
        due = max(1, -(-end.steps // len(sequence)))
        for _ in range(due - early):
            sequence._end_epoch()
        self.places.begin_again(max(0, early - due))
