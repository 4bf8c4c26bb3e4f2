"""Trainers of a contestant as processes of their own, which are measured side by side."""

from __future__ import annotations

import contextlib
from multiprocessing.connection import Connection
from typing import Any

from scripts.benchmarks.peers.protocol import Source, describe, rate


def ask(pipes: list[Connection], seconds: float | None) -> list[Any]:
    """The answers of all: their rates, or, for None, what their batches look like.

    None is asked first, and waits until all have opened.
    """
    if seconds is None:
        for pipe in pipes:
            pipe.recv()
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
