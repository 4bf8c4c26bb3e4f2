"""``scripts/bench listing``: what a directory of a million files costs to open, and to whom.

Empty files will do: nothing is decoded. Measured are the time from ``flow_from_directory`` to the
open stream, for the daemon and the client alike, the shared memory that holds the one copy of
the sample table, and what each process has of its own (USS: pages that no other process shares).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd.ipc import dial
from loaderd.sampling.order import EpochOrder
from loaderd.spec.load import Load
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client import Session
from scripts.benchmarks import ring

CLASSES = 1000
MIB = 2**20
console = Console(width=100)


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "listing",
        help="opening a directory of a million files",
        description="Measures how long it takes to open a directory of empty files, and what it "
        "takes of shared memory and of each process's own.",
    )
    parser.add_argument(
        "--files", type=int, default=10**6, help="in the directory (default 1000000)"
    )
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[1, 2, 8], help="numbers of workers (1 2 8)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    with tempfile.TemporaryDirectory() as folder:
        _make(folder, args.files)
        start = time.perf_counter()
        names = sum(len(files) for _, _, files in os.walk(folder))
        console.print(f"{names:,} files in {CLASSES} folders; os.walk alone takes "
                      f"{time.perf_counter() - start:.1f} s")  # fmt: skip
        columns = ("workers", "cache", "opened", "manifest", "client", "supervisor", "a worker",
                   "all workers")  # fmt: skip
        table = Table(*columns, caption="MiB; processes: of their own")
        for workers in args.workers:
            table.add_row(*_measured(folder, workers, "none"))
        table.add_row(*_measured(folder, args.workers[-1], "disk"))
        console.print(table)
    console.print(f"order of an epoch, in each worker that has made a batch of it: {_order(args)}")


def _order(args: argparse.Namespace) -> str:
    start = time.perf_counter()
    order = EpochOrder(Order(seed=1, draws="batch"), args.files, 32)
    size = order.ids(0, 1).base
    took = (time.perf_counter() - start) * 1e3
    assert size is not None
    return f"{size.nbytes / MIB:.1f} MiB, made in {took:.0f} ms"


def _make(folder: str, files: int) -> None:
    for number in track(range(CLASSES), "making files", console=console, transient=True):
        inner = os.path.join(folder, f"class_{number:04}")
        os.mkdir(inner)
        for file in range(number, files, CLASSES):
            os.close(os.open(os.path.join(inner, f"{file:08}.jpg"), os.O_CREAT | os.O_WRONLY))


def _measured(folder: str, workers: int, cache: str) -> list[str]:
    with _cache_folder() as where, ring.daemon(workers, f"--cache-dir={where}") as path:
        client = psutil.Process()
        before = dial.observe(path)
        others = [psutil.Process(worker.pid) for worker in before.workers]
        supervisor = psutil.Process(before.daemon.pid)
        processes = [client, supervisor, *others]
        had = [_own(process) for process in processes]
        with Session(path) as session:
            start = time.perf_counter()
            stream = session.open(_spec(folder, cache), slots=4)
            took = time.perf_counter() - start
            _until_attached(path)
            size = len(stream.manifest.table)
            grown = [_own(process) - was for process, was in zip(processes, had, strict=True)]
    mine, theirs, *each = [max(0, growth) for growth in grown]
    row = (size, mine, theirs, sum(each) / len(each), sum(each))
    return [str(workers), cache, f"{took:.1f} s", *(f"{value / MIB:.1f}" for value in row)]


@contextmanager
def _cache_folder() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def _own(process: psutil.Process) -> int:
    return int(process.memory_full_info().uss)


def _until_attached(path: str) -> None:
    """The files are no images: the first batches fail, once every worker has tried one."""
    deadline = time.monotonic() + 30
    while dial.observe(path).streams[0].errors < 4:
        if time.monotonic() > deadline:
            sys.exit("bench: the workers did not try a batch")
        time.sleep(0.05)


def _spec(folder: str, cache: str) -> Spec:
    return Spec(
        source=Directory(directory=folder, extensions=(".jpg",)),
        load=Load(target_size=(64, 64)),
        transforms=(),
        output=Output(dtype="uint8"),
        batch=Batching(batch_size=32),
        order=Order(shuffle=True, seed=1, draws="batch"),
        cache="disk" if cache == "disk" else "none",
    )
