"""Whose turn it is within a guard, and what tells that an owner has left it half-way."""

from __future__ import annotations

import sys
import threading

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
