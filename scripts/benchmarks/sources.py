"""``scripts/bench sources``: images from tar and zip archives, against the same from a folder.

One daemon renders for all. Each source has turns of some seconds, in alternating rounds, so that
whatever else the machine does meets all of them. Images are small and hardly processed, so that
reading weighs as much as it can.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd import machine
from loaderd_client import Session, image_dataset_from_archive, image_dataset_from_directory
from scripts.benchmarks import photos, ring

FOLDER = "folder"
SHARDS = 8
READY = 12
"""Batches that may have been made before a turn."""

Rates = dict[str, list[float]]
console = Console()


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "sources",
        help="images from tar and zip archives, against the same from a folder",
        description="Packs the images of a folder into tar and zip archives, and reads them in\n"
        "alternating rounds: 150x150, nearest, bytes, batches of 32, shuffled. Shows images a\n"
        "second, and the ratio to the folder's of the same round. Makes the photos below .bench\n"
        "when they are first needed; then it takes about two minutes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--runs", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--seconds", type=float, default=4.0, metavar="S", help="of a turn (default 4)")
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
    urls = _packed(folder, temporary)
    options: dict[str, Any] = {
        "image_size": (150, 150),
        "interpolation": "nearest",
        "seed": 1,
        "verbose": False,
    }
    cache = f"--cache-dir={temporary / 'cache'}"
    with ring.daemon(args.workers, cache) as path, Session(path), contextlib.ExitStack() as stack:
        sequences: dict[str, Any] = {FOLDER: image_dataset_from_directory(folder, **options)}
        for name, url in urls.items():
            sequences[name] = image_dataset_from_archive(url, **options)
        for sequence in sequences.values():
            stack.callback(sequence.close)
            _turn(sequence, 0.5)
        rates: Rates = {name: [] for name in sequences}
        for _ in track(range(args.runs), "rounds", console=console, transient=True):
            for name, sequence in sequences.items():
                rates[name].append(_turn(sequence, args.seconds))
    return rates


def _turn(sequence: Any, seconds: float) -> float:
    for _ in range(READY):
        next(sequence)
    images, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        images += len(next(sequence)[0])
    return images / took


def _packed(folder: Path, into: Path) -> dict[str, str]:
    """Archives of a folder's images, by what they are."""
    files = photos.files_of(folder)
    names = [str(path.relative_to(folder)) for path in files]
    with tarfile.open(into / "folders.tar", "w") as archive:
        for path, name in zip(files, names, strict=True):
            archive.add(path, name)
    for method, title in ((zipfile.ZIP_STORED, "stored"), (zipfile.ZIP_DEFLATED, "deflated")):
        with zipfile.ZipFile(into / f"{title}.zip", "w", method) as packed:
            for path, name in zip(files, names, strict=True):
                packed.write(path, name)
    for shard in range(SHARDS):
        with tarfile.open(into / f"shard-{shard}.tar", "w") as archive:
            for number in range(shard, len(files), SHARDS):
                archive.add(files[number], f"{number:06}.jpg")
                _add_label(archive, f"{number:06}.txt", files[number].parent.name)
    return {
        "tar of class folders": str(into / "folders.tar"),
        f"{SHARDS} tars of samples": str(into / f"shard-{{0..{SHARDS - 1}}}.tar"),
        "zip, stored": str(into / "stored.zip"),
        "zip, deflated": str(into / "deflated.zip"),
    }


def _add_label(archive: tarfile.TarFile, name: str, label: str) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(label.encode())
    archive.addfile(member, io.BytesIO(label.encode()))
