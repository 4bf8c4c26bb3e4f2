"""How long the others of a shared stream have waited for one of them."""

from __future__ import annotations

from loaderd.supervisor.lag import Lag

S = 10**9


def test_what_the_others_wait_while_one_keeps_the_ring_full_adds_up() -> None:
    lag = Lag()
    assert lag.update({3: 0}, {1: 5 * S, 2: 7 * S}) == {3: 0}
    assert lag.update({3: 1}, {1: 5 * S, 2: 8 * S}) == {3: 1}
    assert lag.update({3: 2}, {1: 9 * S, 2: 9 * S}) == {3: 4}


def test_one_as_fast_as_the_others_is_blamed_for_nothing_however_full_the_ring_is() -> None:
    lag = Lag()
    for read in range(100):
        assert lag.update({1: read, 2: read}, {}) == {1: 0, 2: 0}


def test_one_that_has_caught_up_begins_anew() -> None:
    lag = Lag()
    lag.update({3: 0}, {1: 0})
    assert lag.update({}, {1: 5 * S, 3: 0}) == {}
    assert lag.update({3: 9}, {1: 6 * S}) == {3: 0}


def test_of_one_that_joins_later_only_what_it_has_waited_since_counts() -> None:
    lag = Lag()
    lag.update({3: 0}, {1: 0})
    assert lag.update({3: 0}, {1: 0, 2: 60 * S}) == {3: 0}
    assert lag.update({3: 0}, {1: 0, 2: 61 * S}) == {3: 1}


def test_one_that_waits_for_a_later_batch_waits_only_for_those_that_do_not_read() -> None:
    lag = Lag()
    lag.update({1: 5, 2: 5}, {3: 0}, early=[3])
    assert lag.update({1: 5, 2: 6}, {3: 4 * S}, early=[3]) == {1: 4, 2: 0}
    assert lag.update({1: 6, 2: 6}, {3: 8 * S}, early=[3]) == {1: 0, 2: 4}
    assert lag.update({1: 7, 2: 6}, {3: 9 * S}) == {1: 1, 2: 5}
