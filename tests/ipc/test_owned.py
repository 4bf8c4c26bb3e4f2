"""Things that belong to objects, while signals strike."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator

import pytest

from loaderd.ipc.owned import Owned


class Owner:
    """Whoever owns something."""


@pytest.fixture
def struck() -> Iterator[list[int]]:
    """Raises KeyboardInterrupt when the timer rings; how often that was."""
    times: list[int] = []

    def strike(*_: object) -> None:
        times.append(1)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    try:
        yield times
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_thing_is_given_up_when_its_owner_dies_and_then_it_is_told() -> None:
    given_up: list[int] = []
    told: list[list[int]] = []
    owned = Owned(given_up.append, lambda: told.append(list(given_up)))
    owners = [Owner() for _ in range(3)]
    for number, owner in enumerate(owners):
        owned.watch(owner, number)
    del owner
    assert not given_up
    assert not told
    owners.pop(1)
    owners.pop()
    assert given_up == [1, 2]
    assert told == [[1], [1, 2]]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_lost_or_given_up_twice_whatever_strikes(struck: list[int]) -> None:
    given_up: list[int] = []
    owned = Owned(given_up.append)
    chance, watched = random.Random(1), 0
    while len(struck) < 300:
        owners = [Owner() for _ in range(20)]
        for owner in owners:
            owned.watch(owner, watched)
            watched += 1
        del owner
        try:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-6, 5e-5))
            owners.clear()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            owners.clear()
    owned.sweep()
    assert sorted(given_up) == list(range(watched))


def test_nothing_is_kept_of_the_dead() -> None:
    owned = Owned([].append)
    for number in range(100):
        owned.watch(Owner(), number)
    assert not owned._things


def test_one_that_has_the_same_number_again_is_another_one() -> None:
    owned = Owned(os.close)
    for _ in range(3):
        owner, (read, write) = Owner(), os.pipe()
        owned.watch(owner, read)
        owned.watch(owner, write)
        del owner
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(read)
