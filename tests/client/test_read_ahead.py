"""The client's view of what the daemon makes unasked."""

from __future__ import annotations

import random
from collections.abc import Iterable

from loaderd.ipc.prefetch import ROUND, Place, Run
from loaderd.supervisor.stream_shape import Shape
from loaderd_client.core.read_ahead import ReadAhead

BATCHES = 9


def ahead(batches: int = BATCHES, slots: int = 4) -> ReadAhead:
    return ReadAhead(batches, Run((0, 0), batches), slots)


def asked(run: ReadAhead, places: Iterable[Place]) -> list[Place]:
    """The batches that had to be asked for, of those that are taken one after the other."""
    unforeseen = []
    for place in places:
        if not run.comes(place):
            unforeseen.append(place)
            run.ask(place)
        run.took(place)
    return unforeseen


def epochs(batches: int, numbers: Iterable[int]) -> list[Place]:
    return [(epoch, position) for epoch in numbers for position in range(batches)]


def test_reading_in_order_never_asks() -> None:
    assert not asked(ahead(), epochs(BATCHES, range(3)))


def test_threads_that_swap_places_do_not_ask_for_what_follows() -> None:
    run = ahead()
    for place in [(0, 1), (0, 2), (0, 0)]:
        run.took(place)
    assert run.comes((0, 3))


def test_what_the_run_brings_is_expected_and_what_was_left_or_taken_is_not() -> None:
    run = ahead()
    run.took((0, 0))
    assert [run.expects((0, one)) for one in range(6)] == [False, True, True, True, True, False]
    run = ahead()
    run.ask((3, 0))
    assert run.expects((3, 1))
    assert not run.expects((0, 1))


def test_epochs_of_a_part_are_foreseen_after_the_first() -> None:
    assert asked(ahead(), epochs(5, range(4))) == [(1, 0)]


def test_epochs_that_are_read_again_are_foreseen_after_the_first() -> None:
    assert asked(ahead(), epochs(BATCHES, range(0, 4 * ROUND, ROUND))) == [(ROUND, 0)]


def test_an_index_that_is_read_again_and_again_is_foreseen() -> None:
    assert asked(ahead(), [(turn * ROUND, 0) for turn in range(5)]) == [(ROUND, 0)]


def test_a_whole_epoch_after_parts_is_foreseen_from_where_they_ended() -> None:
    places = epochs(5, range(2)) + epochs(BATCHES, [2, 3])
    assert asked(ahead(), places) == [(1, 0), (2, 5)]


def test_for_those_who_jump_about_nothing_is_made_ahead() -> None:
    run = ahead(100)
    places = [(0, position) for position in random.Random(1).sample(range(100), 100)]
    asked(run, places)
    assert run.ask((0, 40)) is None
    assert run.window((0, 40))
    assert not any(run.comes((0, position)) for position in range(100))


def test_who_reads_on_after_jumps_is_foreseen_again() -> None:
    run = ahead(100)
    asked(run, [(0, position) for position in (50, 20, 90, 60)])
    assert asked(run, [(0, position) for position in range(10, 20)]) == [(0, 10), (0, 11), (0, 12)]


def strided(positions: range, numbers: Iterable[int]) -> list[Place]:
    return [(epoch, position) for epoch in numbers for position in positions]


def test_a_share_of_the_batches_is_foreseen() -> None:
    """As each process of several reads them: every fourth, from one of its own on."""
    for rank in range(4):
        places = strided(range(rank, 98, 4), range(3))
        unforeseen = asked(ahead(98), places)
        assert unforeseen == places[rank == 0 :][: len(unforeseen)]
        assert len(unforeseen) <= 4


def test_reading_backwards_is_foreseen() -> None:
    assert asked(ahead(30), strided(range(29, -1, -1), range(3))) == [(0, 29), (0, 28), (0, 27)]
    parts = strided(range(29, 9, -1), range(3))
    assert asked(ahead(30), parts) == [(0, 29), (0, 28), (0, 27), (1, 29)]


def test_one_who_reads_all_after_a_share_is_foreseen_again() -> None:
    run = ahead(40)
    asked(run, strided(range(0, 40, 4), [0]))
    assert len(asked(run, epochs(40, [1, 2]))) <= 2


def test_a_look_does_not_move_the_run() -> None:
    run = ahead()
    assert asked(run, [(0, 7), (0, 0), (0, 1)]) == [(0, 7)]


def test_what_was_given_up_does_not_come_by_itself() -> None:
    run = ahead()
    run.lost((0, 0))
    assert not run.comes((0, 0))
    assert run.ask((0, 0)) == Run((0, 0), BATCHES)
    assert run.comes((0, 0))


def test_a_pass_that_begins_again_is_followed() -> None:
    run = ahead()
    asked(run, epochs(4, [0]))
    assert run.ask((0, 0)) == Run((0, 0), BATCHES)


def test_a_window_runs_into_the_next_epoch() -> None:
    assert ahead(3, slots=3).window((0, 2)) == {(0, 2), (1, 0), (1, 1)}


def test_a_run_that_was_left_in_an_older_epoch_brings_nothing() -> None:
    run = ahead()
    run.took((0, 0))
    run.lost((0, 1))
    run.took((3, 4))
    assert not run.comes((0, 1))


def test_where_nothing_may_be_made_ahead_nothing_is() -> None:
    run = ReadAhead(BATCHES, Run(None, BATCHES), 4, may_run=False)
    assert asked(run, epochs(3, [0])) == epochs(3, [0])
    assert run.ask((0, 3)) is None


def test_nothing_comes_by_itself_of_a_run_that_was_left_behind() -> None:
    run = ReadAhead(3, Run((0, 0), 3), 8)
    for place in ((0, 2), (0, 0), (ROUND, 2)):
        run.took(place)
    run.took((0, 1))  # the daemon has gone on long ago
    assert not run.comes((0, 2))
    assert not run.expects((0, 2))


def test_what_comes_while_a_slow_batch_is_awaited_is_expected() -> None:
    run = ReadAhead(9, Run((0, 0), 9), 3)
    for position in (1, 2, 3):
        run.took((0, position))
    assert [run.expects((0, position)) for position in range(7)] == [
        *(True, False, False, False),
        *(True, True, False),
    ]


def test_whatever_is_read_the_run_that_is_asked_for_is_one_that_there_is() -> None:
    shape, chance = Shape(12, 3, slots=4), random.Random(1)
    for _ in range(3000):
        run = ahead(shape.batches, shape.slots)
        epoch, position = 0, 0
        for _ in range(20):
            if chance.random() < 0.2:
                epoch += chance.choice([1, ROUND])
            position = (position + chance.choice([-2, -1, -1, 1, 1, 2])) % shape.batches
            place = epoch, position
            plan = None if run.comes(place) else run.ask(place)
            if plan is not None:
                assert shape.checked(plan) == plan
            run.took(place)


def test_the_second_batch_of_a_flow_of_one_is_asked_for_and_then_it_reads_on() -> None:
    assert asked(ahead(batches=1), epochs(1, range(6))) == [(1, 0)]


def test_a_run_that_was_left_behind_is_stopped_when_anything_is_asked_for() -> None:
    run = ahead()
    for place in [(0, 0), (0, 2), (0, 4), (1, 0)]:
        run.took(place)
    assert run.ask((1, 2)) == run.shape
    assert run.shape.next is None
