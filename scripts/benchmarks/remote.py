"""``scripts/bench remote``: what a worker on another node adds, and what it costs here.

A Ray cluster of two nodes runs on this machine: a head that lends no CPU, and a node that lends
one. Two daemons read the same photos in turns: one with two workers of its own, and one with a
worker of its own and one from the cluster. So both have as many processes that decode, and the
ratio is what the way over Ray costs, all of it on this machine's CPUs: actor, object stores,
gateway. As a machine that does other things too gives more to whoever has more processes, the CPU
time for every image is compared as well. Where the other node is another machine, only the
gateway's part falls on this one; it is shown as CPU time for every chunk, with the supervisor's.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from loaderd.ipc import dial
from loaderd.ipc.snapshot import Snapshot
from loaderd_client import Session, image_dataset_from_directory
from scripts.benchmarks import photos, ring

STORE_BYTES = 500 * 2**20
READY = 12
"""Batches that may have been made before a turn."""

CORES = (8, 64, 512)
CHUNK_S = 0.02
"""What a chunk takes a core: the scheduler cuts them so."""

console = Console()


@dataclass
class Turn:
    """What one daemon did in a turn.

    ``cpu_s`` of all processes, ``gateway_s`` and ``supervisor_s`` are CPU seconds; ``remote``
    chunks and ``crossed`` bytes came over Ray.
    """

    rate: float
    images: int
    cpu_s: float
    chunks: int
    supervisor_s: float
    gateway_s: float
    remote: int
    crossed: int


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "remote",
        help="a worker on another node of a Ray cluster, against one of this machine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--size", type=int, default=224, metavar="N", help="of an image (default 224)")
    option("--runs", type=int, default=7, metavar="N", help="rounds (default 7)")
    option("--seconds", type=float, default=4.0, metavar="S", help="of a turn (default 4)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    folder = photos.of_user(args.data) if args.data else photos.made(photos.SMALL).absolute()
    turns = measure(folder, args)
    table = Table("workers", "images/s", "against the first", "CPU ms/image")
    local, mixed = turns
    for name, found in (("2 here", local), ("1 here, 1 remote", mixed)):
        ratios = [one.rate / two.rate for one, two in zip(found, local, strict=True)]
        against = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rate = statistics.median(turn.rate for turn in found)
        cpu = sum(turn.cpu_s for turn in found) / sum(turn.images for turn in found) * 1e3
        table.add_row(name, f"{rate:,.0f}", "" if found is local else against, f"{cpu:.2f}")
    console.print(table)
    console.print(costs(mixed))
    console.print(computed(mixed))


def costs(turns: list[Turn]) -> str:
    """What remote chunks cost here."""
    remote = sum(turn.remote for turn in turns)
    if not remote:
        return "no chunk came from the cluster"
    chunks = sum(turn.chunks for turn in turns)
    crossed = sum(turn.crossed for turn in turns) / remote / 1e6
    gateway = sum(turn.gateway_s for turn in turns) / remote * 1e3
    supervisor = sum(turn.supervisor_s for turn in turns) / chunks * 1e3
    return (
        f"{remote} of {chunks} chunks came over Ray, {crossed:.2f} MB each\n"
        f"CPU: gateway {gateway:.2f} ms a remote chunk, supervisor {supervisor:.3f} ms a chunk"
    )


def computed(turns: list[Turn]) -> Table:
    """What so many remote cores would cost here, by what a chunk has cost."""
    table = Table("remote cores", "images/s", "Gbit/s", "cores of gateways", "of the supervisor")
    remote, chunks = sum(t.remote for t in turns), sum(t.chunks for t in turns)
    rows = sum(t.images for t in turns) / max(1, chunks)
    crossed = sum(t.crossed for t in turns) / max(1, remote)
    gateway = sum(t.gateway_s for t in turns) / max(1, remote)
    supervisor = sum(t.supervisor_s for t in turns) / max(1, chunks)
    for cores in CORES:
        rate = cores / CHUNK_S
        table.add_row(
            str(cores),
            f"{rate * rows:,.0f}",
            f"{rate * crossed * 8 / 1e9:.1f}",
            f"{rate * gateway:.1f}",
            f"{rate * supervisor:.2f}",
        )
    return table


def measure(folder: Path, args: argparse.Namespace) -> tuple[list[Turn], list[Turn]]:
    """The turns of both daemons."""
    flags = ["--ray-workers=1:1"]
    with cluster() as made, contextlib.ExitStack() as stack:
        address = f"--ray={made.address}"
        readers = [
            stack.enter_context(reader(folder, args, made if more else None, workers, *more))
            for workers, more in ((2, []), (1, [address, *flags]))
        ]
        found: tuple[list[Turn], list[Turn]] = ([], [])
        for number in range(args.runs):
            for which in (0, 1) if number % 2 else (1, 0):
                found[which].append(readers[which].turn(args.seconds))
        return found


class Reader:
    """Reads batches from one daemon."""

    def __init__(self, path: str, batches: Iterator[Any], made: Any) -> None:
        self._path = path
        self._batches = batches
        self._cluster = made

    def turn(self, seconds: float) -> Turn:
        """Reads for so long, after what lay ready."""
        for _ in range(READY):
            next(self._batches)
        before, gateway, cpu = dial.observe(self._path), self._gateway_s(), self._cpu_s()
        images, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            images += len(next(self._batches)[0])
        after = dial.observe(self._path)
        return Turn(
            rate=images / elapsed,
            images=images,
            cpu_s=self._cpu_s() - cpu,
            chunks=after.daemon.chunks - before.daemon.chunks,
            supervisor_s=after.daemon.cpu_s - before.daemon.cpu_s,
            gateway_s=self._gateway_s() - gateway,
            remote=_total(after, "chunks") - _total(before, "chunks"),
            crossed=_total(after, "crossed") - _total(before, "crossed"),
        )

    def _cpu_s(self) -> float:
        """Of the daemon, and of the cluster if it is used."""
        roots = [dial.observe(self._path).daemon.pid]
        if self._cluster is not None:
            nodes = self._cluster.list_all_nodes()
            kinds = [kind for node in nodes for kind in node.all_processes.values()]
            roots += [one.process.pid for kind in kinds for one in kind]
        return sum(_cpu_s(pid) for root in roots for pid in _family(root))

    def _gateway_s(self) -> float:
        daemon = psutil.Process(dial.observe(self._path).daemon.pid)
        for child in daemon.children():
            if "loaderd-ray" in child.cmdline():
                return _cpu_s(child.pid)
        return 0.0


def _family(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def _cpu_s(pid: int) -> float:
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(pid).cpu_times()
        return float(times.user + times.system)
    return 0.0


def _total(snapshot: Snapshot, counter: str) -> int:
    return sum(getattr(host, counter) for host in snapshot.remote)


@contextlib.contextmanager
def reader(
    folder: Path, args: argparse.Namespace, made: Any, workers: int, *flags: str
) -> Iterator[Reader]:
    """A daemon with a stream; ``made`` is the cluster that it uses, or None."""
    with ring.daemon(workers, *flags) as path, Session(path):
        sequence: Any = image_dataset_from_directory(
            str(folder),
            image_size=(args.size, args.size),
            seed=1,
            verbose=False,
        )
        loop = sequence.numpy()
        batches = itertools.chain.from_iterable(iter(lambda: loop, None))
        next(batches)
        yield Reader(path, batches, made)


@contextlib.contextmanager
def cluster() -> Iterator[Any]:
    """A cluster of two nodes."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = "disabled"  # whatever token this user has
    with tempfile.TemporaryDirectory(prefix="ldr-", ignore_cleanup_errors=True) as folder:
        head = {"num_cpus": 0, "include_dashboard": False, "temp_dir": folder}
        words = {**head, "object_store_memory": STORE_BYTES}
        made: Any = Cluster(initialize_head=True, head_node_args=words)
        try:
            made.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
            yield made
        finally:
            made.shutdown()
