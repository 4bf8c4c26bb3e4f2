"""How the batches of a sequence are asked for, and when they count as delivered.

::

    Keras ── request ──► Reader ── place ──► Supply ── batch ──► the sequence ──► Keras

A reader chooses the places, one thread at a time; what the sequence has to do first, and what it
makes of a batch, it is asked for. A reader does not hold its sequence, so that one which is
dropped goes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from loaderd.errors import LoaderdError
from loaderd.ipc.bundle import Parts
from loaderd.ipc.prefetch import Place
from loaderd.spec.spec import Spec
from loaderd_client.core.batch import Batch
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.supply import Superseded, Supply
from loaderd_client.keras.adapter import EpochEnd
from loaderd_client.keras.batch_index import Places

Observer = Callable[[Batch, Spec, Parts, int], None]
"""Is called with each batch, what it was made by, and how many batches an epoch has."""

new_observer: Callable[[], Observer] | None = None
"""Makes an observer for every sequence that is made from now on, as for a log; None for none."""


class Request(NamedTuple):
    """What a trainer asks for or says.

    Attributes:
        kind: a batch by ``index``, by ``next``, in a ``pass``, or as a ``look`` that does not
            count; or that a pass begins (``begin``) or an epoch is over (``end``).
        item: the index of the batch.
        key: names the pass.
    """

    kind: Literal["index", "next", "pass", "look", "begin", "end"]
    item: int = 0
    key: object = None

    def place(self, places: Places, me: Caller) -> Place:
        """The batch that is meant."""
        if self.kind == "pass":
            return places.read_pass(self.key, self.item)
        if self.kind == "index":
            return places.read(self.item, me)
        return places.next(me) if self.kind == "next" else places.peek(self.item)


class Course(Protocol):
    """What says which places the indices of a sequence mean at the moment."""

    @property
    def places(self) -> Places:
        """The present ones; others where another order has begun."""


class OneOrder(NamedTuple):
    """The course of a sequence whose order nobody changes."""

    places: Places


class Sequence(Protocol):
    """What a reader asks of its sequence."""

    def __len__(self) -> int: ...

    def _prepare(self, request: Request) -> None:
        """Follows what was set since the last request; within the guard."""

    def _end_epoch(self) -> None:
        """Ends an epoch that is read by index; within the guard."""


_Made = TypeVar("_Made")
Make = Callable[[Places, Place, Caller], _Made]


class Reader:
    """The batches of one sequence, by request.

    Args:
        supply: where they come from.
        course: what the indices mean.

    Attributes:
        supply: the same.
        guard: held while a place is chosen.
    """

    def __init__(self, supply: Supply, course: Course) -> None:
        self.supply = supply
        self.guard = Guard()
        self._course = course
        self._observe = None if new_observer is None else new_observer()
        self._early_ends: dict[int | None, int] = {}  # enqueuer → epochs that it has ended

    def __reduce__(self) -> Any:
        """A copy, or another process, goes on at the same place with a guard of its own."""
        return Reader, (self.supply, self._course)

    @property
    def places(self) -> Places:
        """What the indices mean at the moment."""
        return self._course.places

    def claim(self, request: Request, me: Caller, sequence: Sequence) -> tuple[Places, Place]:
        """The batch that is meant, and what gave it a meaning."""
        self.guard.enter(me)
        sequence._prepare(request)
        places = self.places
        claimed = places, request.place(places, me)
        self.guard.give_back()
        return claimed

    def deliver(self, request: Request, sequence: Sequence, make: Make[_Made]) -> _Made:
        """What is made of the batch that is meant; from then on it counts as delivered."""
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
            Superseded: the place means nothing any more.
        """
        try:
            batch = self.supply.fetch(place, me, lambda: places is self.places)
        except LoaderdError:
            if not self.supply.ended:  # the batch is to blame: it is not asked for again
                places.done(place)
            raise
        if self._observe is not None:
            supply = self.supply
            self._observe(batch, supply.spec, supply.parts, supply.batches)
        return batch

    def begin_pass(self, key: object, sequence: Sequence, anew: bool = False) -> None:
        """A pass begins; see ``Places.begin_pass``."""
        me = Caller()
        self.guard.enter(me)
        sequence._prepare(Request("begin"))
        self.places.begin_pass(key, anew=anew)
        self.guard.give_back()

    def end_epoch(self, end: EpochEnd, sequence: Sequence) -> None:
        """``on_epoch_end`` was called; Keras's own calls may come early, often or never."""
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

    def _end_enqueued(self, end: EpochEnd, sequence: Sequence) -> None:
        """Ends an epoch that is read through an enqueuer of Keras 2.

        The enqueuer says so when all of it was handed out, and reads ahead of ``fit`` into the
        next one; ``fit`` says so when it is through, mostly later, but if its steps are short it
        stops the enqueuer first. Whichever it was, the next epoch is read from its beginning.
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
