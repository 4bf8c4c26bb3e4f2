"""One daemon and one directory: two trainers with different augmentation, or one alone.

Every measurement is the first epoch of a fresh daemon that keeps decoded images, from the
calls of ``flow_from_directory`` to the last batch. Variants: ``two`` and ``one``.
"""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Any

from loaderd_client import Session
from scripts.benchmarks.peers import ours
from scripts.benchmarks.peers.protocol import Measure, Task, describe, serve_measure


def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
    """Starts the trainers, and lets each run an epoch."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    for seed in range(2 if task.variant == "two" else 1):
        mine, theirs = context.Pipe()
        context.Process(target=_train, args=(task, seed, theirs), daemon=True).start()
        theirs.close()  # so that its end is seen
        pipes.append(mine)
    looks = [pipe.recv() for pipe in pipes]

    def measure(_: float) -> float:
        with ours.daemon(task.workers) as path:
            for pipe in pipes:
                pipe.send(path)
            starts, ends, images = zip(*(pipe.recv() for pipe in pipes), strict=True)
            rate = sum(images) / (max(ends) - min(starts))
            for pipe in pipes:
                pipe.send("")  # the daemon is asked to end when all are through
                pipe.recv()
            return float(rate)

    measure(0)  # warm: page cache, imports
    return measure, looks[0]


def _train(task: Task, seed: int, pipe: Connection) -> None:
    with ours.daemon(1) as path, Session(path):
        pipe.send(describe([next(ours.flow(task, seed))[0]]))  # loads Keras
    while True:
        with Session(pipe.recv()):
            start, images = time.perf_counter(), 0
            batches = ours.flow(task, seed)
            for _ in range(len(batches)):
                images += len(next(batches)[0])
            pipe.send((start, time.perf_counter(), images))
            pipe.recv()
            del batches
        pipe.send("closed")


if __name__ == "__main__":
    serve_measure(prepare)
