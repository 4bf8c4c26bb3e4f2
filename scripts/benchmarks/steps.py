"""``scripts/bench steps``: where the time of a sample goes, in one process.

The functions that a worker calls, on the files of a folder: no daemon, no ring. Batches of the
kinds of work take turns, so that all have the machine in the same state.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd.sampling.keras_draws import BatchDraws
from loaderd.sampling.order import EpochOrder
from loaderd.spec.operations import RandomAffine
from loaderd.spec.spec import Spec
from scripts.benchmarks import ring
from scripts.benchmarks.file_renderer import FileRenderer
from scripts.benchmarks.peers.bare import spec_of
from scripts.benchmarks.peers.protocol import Task, class_files

BATCH, SLOTS = 32, 8
console = Console()


class Times(NamedTuple):
    """Microseconds of one sample.

    Attributes:
        read: the file, from the page cache.
        decode: its JPEG.
        resize: to the target size.
        draw: its share of what is drawn and prepared for a batch.
        finish: warp, flip, rescale, and write.
    """

    read: float
    decode: float
    resize: float
    draw: float
    finish: float


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "steps",
        help="where the time of a sample goes",
        description="Times the steps of a sample in one process; medians, kinds of work in turn.",
    )
    parser.add_argument("--data", help="folder of class folders (default: the demo's photos)")
    parser.add_argument("--batches", type=int, default=40, help="of each kind (default 40)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    data = os.path.abspath(args.data or ring.photos())
    cv2.setNumThreads(1)  # as in a worker
    works = {
        name: _batches(spec, data, seed) for seed, (name, spec) in enumerate(_specs(data).items())
    }
    found: dict[str, list[Times]] = defaultdict(list)
    for number in track(range(args.batches + 1), console=console, transient=True):
        for name, batches in works.items():
            times = next(batches)
            if number:  # the first warms up
                found[name] += times
    console.print(_table(found))


def _specs(data: str) -> dict[str, Spec]:
    augment = spec_of(Task(data, (150, 150), augment=True))
    fast = tuple(
        msgspec.structs.replace(one, precision="fast") if isinstance(one, RandomAffine) else one
        for one in augment.transforms
    )
    return {
        "plain": spec_of(Task(data, (150, 150))),
        "bytes": spec_of(Task(data, (150, 150), dtype="uint8")),
        "augment": augment,
        "fast": msgspec.structs.replace(augment, transforms=fast),
        "scaled": spec_of(Task(data, (150, 150), augment=True, scaled=True)),
        "bilinear, 224": spec_of(Task(data, (224, 224), interpolation="bilinear")),
    }


def _batches(spec: Spec, data: str, seed: int) -> Iterator[list[Times]]:
    """The times of the samples of a batch, again and again.

    In an order of its own: no other kind has just brought the files into the CPU's caches.
    """
    paths = class_files(data)[0]
    for path in paths:
        Path(path).read_bytes()  # into the page cache
    epochs = EpochOrder(msgspec.structs.replace(spec.order, seed=seed), len(paths), BATCH)
    draws, renderer = BatchDraws(spec, epochs), FileRenderer(spec)
    # As many as lie in a ring, so that a row is not in a cache when it is written.
    rows: NDArray[Any] = np.empty((SLOTS, BATCH, *spec.image_shape), spec.output.dtype)
    for number in itertools.count():
        place = divmod(number, epochs.batches)
        samples = epochs.ids(*place).tolist()
        start = time.perf_counter_ns()
        drawn = renderer.prepare(draws.rows(*place, 0, len(samples)))
        draw = (time.perf_counter_ns() - start) / len(samples)
        times = []
        for at, (sample, row) in enumerate(zip(samples, rows[number % SLOTS], strict=False)):
            start = time.perf_counter_ns()
            image = renderer.load_file(paths[sample])
            loaded = time.perf_counter_ns() - start
            renderer.finish(image, drawn, at, row)
            spent = renderer.times.take()
            read = loaded - spent.decode - spent.resize
            us = (read, spent.decode, spent.resize, draw, spent.augment)
            times.append(Times(*(one / 1000 for one in us)))
        yield times


def _table(found: dict[str, list[Times]]) -> Table:
    title = "median µs of each step of a sample; together with quartiles"
    table = Table("", *Times._fields, "together", title=title)
    for name, samples in found.items():
        steps = [f"{statistics.median(step):.1f}" for step in zip(*samples, strict=True)]
        low, middle, high = statistics.quantiles(map(sum, samples), n=4)
        table.add_row(name, *steps, f"{middle:.0f} ({low:.0f} to {high:.0f})")
    return table
