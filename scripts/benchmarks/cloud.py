"""``scripts/bench cloud``: images from an object store that takes its time, against a local file.

The store is a program on loopback, which waits before each answer. One daemon renders for both, in
alternating rounds. Store, workers and trainer share the CPUs, so there is a worker less than CPUs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd import machine
from loaderd_client import Session, image_dataset_from_archive
from scripts.benchmarks import photos, ring

LOCAL = "local tar"
SHARDS = 4
BEGUN = 24
"""Batches before a turn is measured: more than were made before."""

Rates = dict[str, list[float]]
console = Console()


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "cloud",
        help="images from an object store on loopback that takes its time, against a local file",
        description="Packs the images of a folder into tars, and reads them from the disk, and\n"
        "from an object store on loopback, in alternating rounds: 224x224, bilinear, batches of\n"
        "32, shuffled. Shows images a second, and the ratio to the local rate of the same round.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--latency", type=float, default=20.0, metavar="MS", help="of an answer (default 20)")
    option("--runs", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--seconds", type=float, default=4.0, metavar="S", help="of a turn (default 4)")
    workers = max(1, machine.cpus() - 1)
    option("--workers", type=int, default=workers, metavar="N", help="default: CPUs but one")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    folder = photos.of_user(args.data) if args.data else photos.made(photos.SMALL).absolute()
    with tempfile.TemporaryDirectory() as temporary:
        rates = measure(folder, Path(temporary), args)
    table = Table("source", "images/s", "against the local tar")
    for name, found in rates.items():
        ratios = [one / whole for one, whole in zip(found, rates[LOCAL], strict=True)]
        against = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(name, f"{statistics.median(found):,.0f}", "" if name == LOCAL else against)
    console.print(table)


def measure(folder: Path, temporary: Path, args: argparse.Namespace) -> Rates:
    """Images a second of each source, in each round."""
    packed = temporary / "packed"
    packed.mkdir()
    _pack(folder, packed)
    names = f"shard-{{0..{SHARDS - 1}}}.tar"
    with _store(packed, args.latency / 1000) as port:
        os.environ |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_SKIP_SIGNATURE": "true",
            "AWS_REGION": "us-east-1",
        }
        urls = {
            LOCAL: (f"{packed}/{names}", None),
            f"s3://, {args.latency:g} ms": (f"s3://bucket/{names}", None),
            "s3://, downloaded": (f"s3://bucket/{names}", temporary / "kept"),
        }
        return _rates(urls, temporary, args)


def _rates(
    urls: dict[str, tuple[str, Path | None]], temporary: Path, args: argparse.Namespace
) -> Rates:
    options: dict[str, Any] = {"image_size": (224, 224), "seed": 1, "verbose": False}
    cache = f"--cache-dir={temporary / 'cache'}"
    with ring.daemon(args.workers, cache) as path, Session(path), contextlib.ExitStack() as stack:
        sequences: dict[str, Any] = {}
        for name, (url, kept) in urls.items():
            sequences[name] = image_dataset_from_archive(url, download=kept, **options)
            stack.callback(sequences[name].close)
            for _ in range(len(sequences[name]) if kept else 1):
                next(sequences[name])
        rates: Rates = {name: [] for name in sequences}
        for _ in track(range(args.runs), "rounds", console=console, transient=True):
            for name, sequence in sequences.items():
                rates[name].append(_turn(sequence, args.seconds))
    return rates


@contextlib.contextmanager
def _store(folder: Path, latency: float) -> Iterator[int]:
    program = [sys.executable, "-m", "scripts.benchmarks.range_server", str(folder)]
    words = [*program, f"--latency={latency}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _turn(sequence: Any, seconds: float) -> float:
    for _ in range(BEGUN):
        next(sequence)
    images, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        images += len(next(sequence)[0])
    return images / took


def _pack(folder: Path, into: Path) -> None:
    files = photos.files_of(folder)
    for shard in range(SHARDS):
        with tarfile.open(into / f"shard-{shard}.tar", "w") as archive:
            for number in range(shard, len(files), SHARDS):
                archive.add(files[number], f"{number:06}.jpg")
                label = files[number].parent.name.encode()
                member = tarfile.TarInfo(f"{number:06}.txt")
                member.size = len(label)
                archive.addfile(member, io.BytesIO(label))
