"""Trainers of a contestant as processes of their own, which are measured side by side."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from scripts.benchmarks.peers.protocol import Measure, Source, describe, rate


def started(count: int, train: Callable[..., None], *args: Any) -> tuple[Measure, dict[str, Any]]:
    """Starts trainers, which have all opened before one of them reads.

    Args:
        count: how many.
        train: called with ``args`` and a pipe in each; it must ``answer``.
        *args: for it.

    Returns:
        What measures them together, and what a batch looks like.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    for _ in range(count):
        mine, theirs = context.Pipe()
        context.Process(target=train, args=(*args, theirs), daemon=True).start()
        theirs.close()
        pipes.append(mine)
    for pipe in pipes:
        pipe.recv()
    looks = _ask(pipes, None)

    def measure(seconds: float) -> float:
        return float(sum(_ask(pipes, seconds)))

    measure(1.0)
    return measure, looks[0]


def _ask(pipes: list[Connection], seconds: float | None) -> list[Any]:
    """The answers of all: their rates, or, for None, what their batches look like."""
    for pipe in pipes:
        pipe.send(seconds)
    return [pipe.recv() for pipe in pipes]


def answer(pipe: Connection, source: Source) -> None:
    """The trainer's side: says that it has opened, and answers as often as it is asked."""
    pipe.send("open")
    with contextlib.suppress(EOFError):
        pipe.recv()
        pipe.send(describe([next(source.batches) for _ in range(2)]))
        while True:
            pipe.send(rate(source, pipe.recv()))
