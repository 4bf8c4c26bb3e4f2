"""``scripts/bench sources``: images from archives and tables, against the same from a folder.

One daemon renders for all; with ``--peers``, other loaders read the same images. Each source has
turns of some seconds, in alternating rounds, so that whatever else the machine does meets all of
them. Images are small and hardly processed, so that reading weighs as much as it can.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd import machine
from loaderd_client import (
    Session,
    image_dataset_from_archive,
    image_dataset_from_directory,
    image_dataset_from_huggingface,
)
from scripts.benchmarks import photos, ring, venvs
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.packing import ARROW, packed
from scripts.benchmarks.peers.protocol import Task
from scripts.benchmarks.workloads import TORCH, Peer

FOLDER = "folder"
READY = 12
"""Batches that may have been made before a turn."""

SIZE = (150, 150)
PEERS = {
    "WebDataset": "webdataset",
    "Hugging Face datasets": "huggingface",
    "LitData": "litdata",
}
"""Variants of ``peers.packed``."""

REQUIRES = (TORCH, "opencv-python-headless", "numpy", "webdataset", "datasets", "litdata")

Rates = dict[str, list[float]]
Turn = Callable[[float], float]
"""Seconds to images a second."""

console = Console()


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "sources",
        help="images from archives and tables, against the same from a folder",
        description="Packs the images of a folder into archives and tables, and reads them in\n"
        "alternating rounds: 150x150, nearest, bytes, batches of 32, shuffled. Shows images a\n"
        "second, and the ratio to the folder's of the same round. Makes the photos below .bench\n"
        "when they are first needed; then it takes about four minutes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--runs", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--seconds", type=float, default=4.0, metavar="S", help="of a turn (default 4)")
    option("--peers", action="store_true", help="beside WebDataset, Hugging Face and LitData")
    option("--workers", type=int, default=machine.cpus(), metavar="N", help="default: the CPUs")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    folder = photos.of_user(args.data) if args.data else photos.made(photos.SMALL).absolute()
    with tempfile.TemporaryDirectory() as temporary:
        rates = measure(folder, Path(temporary), args)
    table = Table("source", "images/s", "against the folder")
    for name, found in rates.items():
        ratios = [one / whole for one, whole in zip(found, rates[FOLDER], strict=True)]
        against = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(name, f"{statistics.median(found):,.0f}", "" if name == FOLDER else against)
    console.print(table)


def measure(folder: Path, temporary: Path, args: argparse.Namespace) -> Rates:
    """Images a second of each source, in each round."""
    urls = packed(folder, temporary)
    cache = f"--cache-dir={temporary / 'cache'}"
    with ring.daemon(args.workers, cache) as path, Session(path), contextlib.ExitStack() as stack:
        turns: dict[str, Turn] = {}
        for name, sequence in _sequences(folder, temporary, urls).items():
            stack.callback(sequence.close)
            _turn(sequence, 0.5)
            turns[name] = lambda seconds, it=sequence: _turn(it, seconds)  # type: ignore[misc]
        if args.peers:
            turns |= _peers(folder, temporary, args.workers, stack)
        rates: Rates = {name: [] for name in turns}
        for _ in track(range(args.runs), "rounds", console=console, transient=True):
            for name, turn in turns.items():
                rates[name].append(turn(args.seconds))
    return rates


def _sequences(folder: Path, temporary: Path, urls: dict[str, str]) -> dict[str, Any]:
    import datasets

    options: dict[str, Any] = {
        "image_size": SIZE,
        "interpolation": "nearest",
        "seed": 1,
        "verbose": False,
    }
    sequences: dict[str, Any] = {FOLDER: image_dataset_from_directory(folder, **options)}
    for name, url in urls.items():
        sequences[name] = image_dataset_from_archive(url, **options)
    saved = datasets.load_from_disk(temporary / ARROW)
    sequences["Hugging Face"] = image_dataset_from_huggingface(saved, **options)
    return sequences


def _peers(
    folder: Path, temporary: Path, workers: int, stack: contextlib.ExitStack
) -> dict[str, Turn]:
    """Those that can be installed."""
    turns: dict[str, Turn] = {}
    for name, variant in PEERS.items():
        peer = Peer(name, "packed", variant=variant, requires=REQUIRES)
        task = Task(
            str(folder),
            SIZE,
            dtype="uint8",
            workers=workers,
            scratch=str(temporary),
            variant=variant,
        )
        try:
            contestant = Contestant(venvs.python_of(peer), peer.module, task, f"sources-{variant}")
        except (Failed, venvs.NotAvailable) as error:
            console.print(f"{name} is left out: {error}")
            continue
        stack.callback(contestant.close)
        turns[name] = contestant.turn
    return turns


def _turn(sequence: Any, seconds: float) -> float:
    for _ in range(READY):
        next(sequence)
    images, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        images += len(next(sequence)[0])
    return images / took
