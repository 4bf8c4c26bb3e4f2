"""The table of slot states is what the supervisor does, and nothing else."""

from __future__ import annotations

import itertools

import pytest

from loaderd.supervisor.slots import TRANSITIONS, Event, IllegalTransition, SlotTable, State

_WAYS: dict[State, list[Event]] = {
    State.FREE: [],
    State.FILLING: [Event.FILL],
    State.READY: [Event.FILL, Event.FINISH],
    State.LEASED: [Event.FILL, Event.FINISH, Event.TAKE],
}


def table_in(state: State) -> SlotTable:
    table = SlotTable(1)
    for event in _WAYS[state]:
        table.apply(0, event)
    return table


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)))
def test_a_step_is_in_the_table_or_raises_and_changes_nothing(state: State, event: Event) -> None:
    table = table_in(state)
    if (state, event) in TRANSITIONS:
        table.apply(0, event)
        assert table[0] is TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition, match=state.name):
            table.apply(0, event)
        assert table[0] is state
    assert table.count(table[0]) == 1
    assert sum(table.count(one) for one in State) == 1


@pytest.mark.parametrize("slot", [-1, 1, 10**9])
def test_a_slot_that_does_not_exist_is_refused(slot: int) -> None:
    with pytest.raises(IllegalTransition, match="no slot"):
        SlotTable(1).apply(slot, Event.FILL)


def test_fill_gives_every_slot_once() -> None:
    table = SlotTable(5)
    assert sorted(table.fill() for _ in range(5)) == [0, 1, 2, 3, 4]
    assert table.count(State.FREE) == 0
