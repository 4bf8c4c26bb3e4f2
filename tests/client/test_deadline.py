"""How long is waited for a daemon that went away."""

from __future__ import annotations

from typing import Any

import pytest

from loaderd.errors import InvalidArgument
from loaderd_client import Session
from loaderd_client.core import deadline


def test_the_argument_wins_over_the_variable_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert deadline.reconnect_timeout(None) == 60
    monkeypatch.setenv("LOADERD_RECONNECT_TIMEOUT", "2.5")
    assert deadline.reconnect_timeout(None) == 2.5
    assert deadline.reconnect_timeout(0) == 0


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "5", [1]])
def test_what_is_no_time_is_named(value: Any) -> None:
    with pytest.raises(InvalidArgument, match="reconnect_timeout"):
        Session("auto", reconnect_timeout=value)


@pytest.mark.parametrize("value", ["-1", "nan", "soon", "inf"])
def test_a_variable_that_holds_no_time_is_named(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("LOADERD_RECONNECT_TIMEOUT", value)
    with pytest.raises(InvalidArgument, match=f"LOADERD_RECONNECT_TIMEOUT.*{value}"):
        Session("auto")


def test_pauses_become_longer_and_never_outlast_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = [0.0], []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now[0] += seconds

    monkeypatch.setattr("loaderd_client.core.deadline.monotonic", lambda: now[0])
    monkeypatch.setattr("loaderd_client.core.deadline.sleep", sleep)
    left = deadline.Deadline(5)
    while not left.over:
        left.pause()
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert max(pauses) == 1.0
    assert sum(pauses) == pytest.approx(5)


def test_no_patience_is_over_at_once() -> None:
    assert deadline.Deadline(0).over
