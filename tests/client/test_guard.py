"""Whose turn it is within a guard, and what tells that an owner has left it half-way."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from loaderd_client.core.guard import Caller, Guard
from tests.support.daemons import as_if_ours


def entered(guard: Guard) -> None:
    me = Caller()
    guard.enter(me)
    guard.give_back()


def leave(guard: Guard) -> None:
    me = Caller()
    guard.enter(me)
    raise KeyboardInterrupt


def in_a_thread(guard: Guard) -> None:
    thread = threading.Thread(target=as_if_ours(entered), args=(guard,))
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_calls_that_give_it_back_follow_one_another() -> None:
    guard = Guard()
    for _ in range(3):
        entered(guard)
        in_a_thread(guard)
    assert not guard.torn


@pytest.fixture
def no_collector_callbacks() -> Iterator[None]:
    """Without functions that the garbage collector calls, as Hypothesis has one.

    ``sys._current_frames`` holds a lock of the interpreter while it allocates. If that begins a
    collection whose callback lets another thread ask for frames, both wait for ever (CPython issue
    106883): not for a batch in years, but at this rate of switches within seconds.
    """
    callbacks, gc.callbacks[:] = list(gc.callbacks), []
    yield
    gc.callbacks[:] = callbacks


@pytest.mark.usefixtures("no_collector_callbacks")
def test_many_threads_that_give_it_back_tear_nothing() -> None:
    guard, counts, inside = Guard(), [0], list[int]()

    def count() -> None:
        for _ in range(200):
            me = Caller()
            for _ in range(10):  # one call enters several times
                guard.enter(me)
                inside.append(1)
                assert len(inside) == 1
                inside.clear()
                counts[0] += 1
                guard.give_back()

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=as_if_ours(count)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(usual)
    assert counts == [16_000]
    assert not guard.torn


def test_an_owner_that_gives_it_back_soon_is_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Sought(Caller):
        __slots__ = ()

        @property
        def left(self) -> bool:
            raise AssertionError("looked for")

    guard, owner, pauses = Guard(), Sought(), list[float]()
    owner.thread = -1

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            guard.give_back()

    monkeypatch.setattr("loaderd_client.core.guard.sleep", pause)
    guard.enter(owner)
    entered(guard)
    assert len(pauses) == 3
    assert not guard.torn


def test_an_owner_that_an_exception_took_away_is_found_out() -> None:
    guard = Guard()
    with pytest.raises(KeyboardInterrupt):
        as_if_ours(leave)(guard)
    in_a_thread(guard)
    assert guard.torn


def test_an_owner_that_gives_it_back_while_another_looks_has_torn_nothing() -> None:
    guard = Guard()

    class Returning(Caller):
        """Of another thread; it gives the guard back and returns just when it is looked for."""

        __slots__ = ()

        @property
        def left(self) -> bool:
            guard.give_back()
            return True

    owner = Returning()
    owner.thread = -1
    guard.enter(owner)
    entered(guard)
    assert not guard.torn
