"""The client's view of what the daemon makes unasked."""

from __future__ import annotations

from loaderd_client.run import Run


def test_reading_in_order_never_asks() -> None:
    run = Run(3, (0, 0))
    for place in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        assert run.comes(place)
        run.took(place)


def test_threads_that_swap_places_do_not_ask_for_what_follows() -> None:
    run = Run(9, (0, 0))
    for place in [(0, 1), (0, 2), (0, 0)]:
        run.took(place)
    assert run.comes((0, 3))


def test_what_was_given_up_does_not_come_by_itself() -> None:
    run = Run(9, (0, 0))
    run.lost((0, 0))
    assert not run.comes((0, 0))
    run.aim((0, 0))
    assert run.comes((0, 0))


def test_a_batch_out_of_turn_does_not_move_the_run() -> None:
    run = Run(9, (0, 0))
    run.took((0, 0))
    run.took((0, 7))
    assert run.comes((0, 1))
    assert run.follows((0, 8))
    assert run.stale((0, 7))
    assert not run.stale((0, 8))


def test_a_window_runs_into_the_next_epoch() -> None:
    assert Run(3, (0, 0)).window((0, 2), 3) == {(0, 2), (1, 0), (1, 1)}


def test_a_run_that_was_left_in_an_older_epoch_brings_nothing() -> None:
    run = Run(9, (0, 0))
    run.took((0, 0))
    run.lost((0, 1))
    run.took((3, 4))
    assert not run.comes((0, 1))
    run.aim((3, 5))
    assert run.comes((3, 5))
