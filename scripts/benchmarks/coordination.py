"""``scripts/bench coordination``: how many images a second one supervisor could coordinate.

Measured is the supervisor's CPU for every chunk: process CPU time, the kernel's share
included, divided by chunks, between two snapshots of one stream that runs. Supervisor,
scheduler, sockets, messages, worker processes and client are the real ones; only the
workers' render is empty (:mod:`scripts.benchmarks.stand_in`), so that the supervisor is
what holds the others up, or nearly. Rows are said to cost so much that batches of 32 are
cut as they are when images are decoded (chunks of 16 rows, of fewer where more than 8 workers
share a batch), or when finished images lie in memory (chunks of 32 rows, each a batch, so
that what a batch costs falls on one chunk).

What one daemon could coordinate is what the supervisor would do with a core of its own:
chunks a second at all of a core, times the rows of a chunk. It is a bound of the
supervisor alone; disks, decoders and memory have theirs.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from loaderd.ipc import dial
from loaderd.ipc.bundle import Bundle
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Arrays
from loaderd.spec.spec import Spec
from loaderd_client import Session
from loaderd_client.core.stream import Stream

BATCH = 32
BATCHES = 1000  # of an epoch
KINDS = {"decoded": 1250, "cached": 50}
"""Microseconds that a row is said to cost: 16 of them make 20 ms, 32 of them 2 ms at most."""

console = Console()


class Cost(NamedTuple):
    """What the supervisor did in one run.

    Attributes:
        rows: rows of a chunk, on average.
        chunk_us: microseconds of its CPU for every chunk.
        chunks_s: chunks a second.
    """

    rows: float
    chunk_us: float
    chunks_s: float

    @property
    def images_s(self) -> float:
        """Images a second that all of a core could coordinate at that cost."""
        return 1e6 / self.chunk_us * self.rows


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "coordination",
        help="what the supervisor costs, with 1 to 64 workers that render nothing",
        description="Measures the supervisor's CPU time for every chunk, with workers that render "
        "nothing, and works out how many images a second one supervisor could coordinate.",
    )
    parser.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16, 32, 64],
        help="numbers of workers (default: 1 2 4 8 16 32 64)",
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run (default 2)")
    parser.add_argument(
        "--pace-ms",
        type=int,
        default=0,
        help="let a worker sleep so long over each chunk: the cost at a real pace (default 0)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    table = Table("workers", "chunks of", "rows", "chunks/s", "CPU µs/chunk", "images/s at 1 core")
    for workers, kind in itertools.product(args.workers, KINDS):
        cost = measure(workers, KINDS[kind], args.pace_ms, args.seconds)
        table.add_row(
            str(workers),
            kind,
            f"{cost.rows:.1f}",
            f"{cost.chunks_s:.0f}",
            f"{cost.chunk_us:.1f}",
            f"{cost.images_s:,.0f}",
        )
    console.print(table)


def measure(workers: int, row_us: int, pace_ms: int, seconds: float) -> Cost:
    """Runs a stream through so many workers for so long."""
    with _daemon(workers, row_us, pace_ms) as path, Session(path) as session:
        images = np.zeros((BATCHES * BATCH, 1, 1, 1), np.uint8)
        spec = Spec(
            source=Arrays(),
            load=Load(target_size=(1, 1), color_mode="grayscale"),
            transforms=(),
            output=Output(dtype="uint8"),
            batch=Batching(batch_size=BATCH, label_mode="none"),
            order=Order(shuffle=False, seed=0),
        )
        stream = session.open(spec, 12 + 2 * workers, bundles=[Bundle({"images": images})])
        return _run(path, stream, seconds)


def _run(path: str, stream: Stream, seconds: float) -> Cost:
    places = (divmod(number, stream.batches) for number in itertools.count())
    for place in itertools.islice(places, 4 * stream.slots):
        stream.take(place)
    before, start, batches = dial.observe(path).daemon, time.perf_counter(), 0
    while time.perf_counter() < start + seconds:
        stream.take(next(places))
        batches += 1
    elapsed = time.perf_counter() - start
    after = dial.observe(path).daemon
    chunks = after.chunks - before.chunks
    return Cost(
        batches * BATCH / chunks, (after.cpu_s - before.cpu_s) / chunks * 1e6, chunks / elapsed
    )


@contextlib.contextmanager
def _daemon(workers: int, row_us: int, pace_ms: int) -> Iterator[str]:
    """A daemon with stand-ins for workers, in a folder of its own."""
    ready, tell = os.pipe()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.sock")
        words = [path, str(workers), str(row_us), str(pace_ms), str(tell)]
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.benchmarks.stand_in", *words], pass_fds=[tell]
        )
        os.close(tell)
        try:
            select.select([ready], [], [], 30.0)
            _await_all(path, workers)
            yield path
        finally:
            os.close(ready)
            process.kill()  # a daemon with an owner ignores SIGTERM
            process.wait()


def _await_all(path: str, workers: int) -> None:
    while len(dial.observe(path).workers) < workers:
        time.sleep(0.05)
