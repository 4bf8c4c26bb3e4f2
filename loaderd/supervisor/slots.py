"""The life of a slot, as a table.

Theory of operation. A slot has one owner at any time, and its state says who::

    FREE      the supervisor     holds nothing
    FILLING   the workers        rows of one batch are being written
    READY     the client         finished (or failed), not yet taken by the trainer
    LEASED    the trainer        read, until its last array dies

    FREE ──fill──► FILLING ──finish──► READY ──take──► LEASED ──release──► FREE
                                         └───────────release────────────►

Only the supervisor holds this table, in its private memory. Workers and clients tell
it what they did; a step that the table does not have raises and changes nothing. A
worker's death changes no state: the rows stay FILLING, and are written again once the
kernel has confirmed that the worker is dead.
"""

from __future__ import annotations

import enum

from loaderd.errors import ProtocolError


class State(enum.IntEnum):
    """Who owns a slot."""

    FREE = 0
    FILLING = 1
    READY = 2
    LEASED = 3


class Event(enum.IntEnum):
    """A step of a slot."""

    FILL = 0
    FINISH = 1
    TAKE = 2
    RELEASE = 3


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.FREE, Event.FILL): State.FILLING,
    (State.FILLING, Event.FINISH): State.READY,
    (State.READY, Event.TAKE): State.LEASED,
    (State.READY, Event.RELEASE): State.FREE,
    (State.LEASED, Event.RELEASE): State.FREE,
}

_NEXT = [[TRANSITIONS.get((state, event)) for event in Event] for state in State]
"""The same by number: this is looked up four times for every batch."""


class IllegalTransition(ProtocolError):
    """A step that the table does not have."""


class SlotTable:
    """The states of one ring's slots."""

    def __init__(self, slots: int) -> None:
        self._states = [State.FREE] * slots
        self._free: dict[int, None] = dict.fromkeys(range(slots - 1, -1, -1))
        self._counts = [slots, 0, 0, 0]

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, slot: int) -> State:
        return self._states[slot]

    def count(self, state: State) -> int:
        """How many slots are in ``state``."""
        return self._counts[state]

    def fill(self) -> int:
        """Takes a free slot for filling and returns its number; there must be one."""
        slot = next(reversed(self._free))
        self.apply(slot, Event.FILL)
        return slot

    def apply(self, slot: int, event: Event) -> None:
        """Moves one slot.

        Raises:
            IllegalTransition: the table has no such step; nothing changed.
        """
        if not 0 <= slot < len(self._states):
            raise IllegalTransition(f"there is no slot {slot}; the ring has {len(self)}")
        old = self._states[slot]
        new = _NEXT[old][event]
        if new is None:
            raise IllegalTransition(f"slot {slot} is {old.name}, which allows no {event.name}")
        if old is State.FREE:
            del self._free[slot]
        elif new is State.FREE:
            self._free[slot] = None
        self._states[slot] = new
        self._counts[old] -= 1
        self._counts[new] += 1
