"""What is made next for a subscriber."""

from __future__ import annotations

from collections import deque

from loaderd.ipc.prefetch import WHOLE, Place, Run
from loaderd.supervisor.cursor import COLD, Cursor


def a_cursor(batches: int = 10, run: Run = WHOLE, taken: int = COLD) -> Cursor:
    return Cursor(batches, run.within(batches), taken=taken)


def next_places(cursor: Cursor, count: int, made: set[Place]) -> list[Place | None]:
    """What is begun next, one after the other, without anything taken."""
    places: list[Place | None] = []
    for _ in range(count):
        place = cursor.next_place(made)
        places.append(place)
        if place is not None:
            made.add(place)
    return places


def test_the_run_goes_on_over_the_end_of_an_epoch() -> None:
    cursor = a_cursor(batches=2)
    assert next_places(cursor, 5, set()) == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]


def test_what_is_wanted_out_of_turn_comes_first_and_once() -> None:
    cursor = a_cursor()
    cursor.want.extend([(3, 4), (0, 1), (0, 0)])
    made = {(0, 1)}
    assert next_places(cursor, 4, made) == [(3, 4), (0, 0), (0, 2), (0, 3)]


def test_what_was_wanted_is_passed_by_the_run_though_it_was_taken_meanwhile() -> None:
    cursor = a_cursor()
    cursor.want.append((0, 0))
    assert [cursor.next_place(set()), cursor.next_place(set())] == [(0, 0), (0, 1)]


def test_without_a_run_only_what_is_wanted_is_made() -> None:
    cursor = a_cursor(run=Run(None, 10))
    cursor.want.append((3, 4))
    assert next_places(cursor, 3, set()) == [(3, 4), None, None]


def test_for_one_that_has_taken_nothing_only_some_are_made() -> None:
    cursor = a_cursor(taken=0)
    made: set[Place] = set()
    assert next_places(cursor, COLD + 1, made) == [(0, 0), (0, 1), None]
    cursor.want.append((5, 5))
    assert next_places(cursor, 2, made) == [(5, 5), None]
    cursor.taken = 1
    assert cursor.next_place(made) == (0, 2)


def test_missing_counts_what_is_needed_before_what_is_ready() -> None:
    cursor = a_cursor()
    cursor.want = deque([(3, 4)])
    made = {(0, 2), (0, 3)}  # the run comes to them after (0, 0) and (0, 1)
    cursor.count_missing(made, slots=8, cutting=True)
    assert cursor.missing == 4
    for missing in (3, 2, 1, 0, 0):
        cursor.one_less_missing()
        assert cursor.missing == missing
    cursor.want.clear()
    cursor.count_missing(set(), slots=8, cutting=False)
    assert cursor.missing == 0
