"""``scripts/bench ring``: what daemon, ring and client lose of the render functions' speed."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from loaderd import machine
from loaderd.ipc import dial
from loaderd.ipc.snapshot import DaemonStats
from loaderd.spec.load import Load
from loaderd.spec.operations import GeneratorFlip, GeneratorRescaling, Operation, RandomAffine
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client import Session
from scripts.benchmarks import floor

SLOTS = 12
PLAIN: tuple[Operation, ...] = (GeneratorRescaling(scale=1 / 255),)
AUGMENT: tuple[Operation, ...] = (
    RandomAffine(
        rotation_range=20.0,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=(0.8, 1.2),
    ),
    GeneratorFlip(horizontal=True),
    *PLAIN,
)
console = Console()


class Pair(NamedTuple):
    """One run of both sides, in images per second, and what a batch cost the client."""

    ours: float
    client_us: float
    floor: float


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "ring",
        help="what daemon, ring and client lose of the speed of the bare render functions",
        description="Renders the same images with the bare functions, in as many processes as "
        "there are workers, and through daemon, ring and client, in turn; prints the images a "
        "second of both and their ratio, and what a batch costs the client.",
    )
    parser.add_argument("--data", help="folder of class folders (default: the demo's photos)")
    parser.add_argument("--runs", type=int, default=5, help="alternating runs (default 5)")
    parser.add_argument("--images", type=int, default=3000, help="images in a run (default 3000)")
    parser.add_argument("--workers", type=int, default=machine.cpus(), help="default: the CPUs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    data = os.path.abspath(args.data or photos())
    table = Table("workload", "ours img/s", "floor img/s", "ours / floor", "spread")
    costs, clients = [], []
    for name, transforms in (("plain", PLAIN), ("augment", AUGMENT)):
        spec = _spec(data, transforms)
        with daemon(args.workers) as path:
            before = dial.observe(path).daemon
            pairs = [_pair(path, spec, args) for _ in range(args.runs)]
            costs.append(_cost(before, dial.observe(path).daemon))
            clients.append(statistics.median(pair.client_us for pair in pairs))
        table.add_row(name, *_row(pairs))
    console.print(table)
    console.print(f"supervisor CPU per chunk: {', '.join(f'{cost:.0f} µs' for cost in costs)}")
    console.print(f"client CPU per batch: {', '.join(f'{cost:.0f} µs' for cost in clients)}")
    console.print(f"first batch, warm daemon: {first_batch(data, args.workers):.2f} s")
    console.print(f"first batch, private daemon: {_first_batch_private(data):.2f} s")
    console.print(f"import loaderd_client, without Keras: {_import_ms():.0f} ms")


def _spec(data: str, transforms: tuple[Operation, ...]) -> Spec:
    return Spec(
        source=Directory(directory=data, extensions=(".jpg",)),
        load=Load(target_size=(150, 150)),
        transforms=transforms,
        output=Output(),
        batch=Batching(batch_size=32),
        order=Order(shuffle=True, seed=0, draws="batch"),
    )


def photos() -> str:
    """The folder of the demo's photos, made if need be."""
    folder = ".demo/photos"
    if not os.path.isdir(folder):
        subprocess.run(["scripts/make-photos", folder, "--images", "250"], check=True)
    return folder


@contextlib.contextmanager
def daemon(workers: int, *more: str) -> Iterator[str]:
    """A daemon of our own, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "bench.sock")
        words = [sys.executable, "-m", "loaderd"]
        flags = [f"--socket={path}", f"--workers={workers}", *more]
        subprocess.run([*words, "start", *flags], check=True, stdout=subprocess.DEVNULL)
        try:
            yield path
        finally:
            subprocess.run(
                [*words, "stop", f"--socket={path}"], check=True, stdout=subprocess.DEVNULL
            )


def _pair(path: str, spec: Spec, args: argparse.Namespace) -> Pair:
    return Pair(*_ours(path, spec, args.images), floor.measure(spec, args.workers, args.images))


def _ours(path: str, spec: Spec, images: int) -> tuple[float, float]:
    """Images per second that a trainer gets which does nothing but take batches.

    And the microseconds of its CPU for each of them.

    The clock starts when the batches that were made ahead are used up, so that only
    what is rendered within the time counts.
    """
    with Session(path) as session:
        stream = session.open(spec, SLOTS)
        places = (divmod(number, stream.batches) for number in itertools.count())
        for place in itertools.islice(places, 3 * SLOTS):
            stream.take(place)
        start, spent, taken, count = time.perf_counter(), time.process_time(), 0, 0
        while taken < images:
            taken += len(stream.take(next(places)).images)
            count += 1
        rate = taken / (time.perf_counter() - start)
        return rate, (time.process_time() - spent) / count * 1e6


def _row(pairs: list[Pair]) -> list[str]:
    ratios = [pair.ours / pair.floor for pair in pairs]
    return [
        f"{statistics.median(pair.ours for pair in pairs):.0f}",
        f"{statistics.median(pair.floor for pair in pairs):.0f}",
        f"{statistics.median(ratios):.3f}",
        f"{min(ratios):.3f} to {max(ratios):.3f}",
    ]


def _cost(before: DaemonStats, after: DaemonStats) -> float:
    """Microseconds of the supervisor's CPU for every chunk, all else that it does included."""
    return (after.cpu_s - before.cpu_s) / (after.chunks - before.chunks) * 1e6


def first_batch(data: str, workers: int) -> float:
    """Seconds from the call of ``flow_from_directory`` to the first batch."""
    with daemon(workers) as path:
        return statistics.median(_timed_flow(data, f"with Session({path!r}):") for _ in range(3))


def _first_batch_private(data: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        return statistics.median(_timed_flow(data, "if True:") for _ in range(3))


def _timed_flow(data: str, opening: str) -> float:
    program = f"""
import time, keras
from loaderd_client import ImageDataGenerator, Session
from loaderd_client.keras.sequence import LoaderSequence
{opening}
    start = time.perf_counter()
    flow = ImageDataGenerator(rescale=1/255).flow_from_directory({data!r}, (150, 150))
    flow[0]
    print(time.perf_counter() - start)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    return float(done.stdout.split()[-1])


def _import_ms() -> float:
    """Milliseconds, less what an interpreter takes that imports nothing."""
    return (
        _interpreter("import loaderd_client, loaderd_client.core.session") - _interpreter("")
    ) * 1e3


def _interpreter(statement: str) -> float:
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
