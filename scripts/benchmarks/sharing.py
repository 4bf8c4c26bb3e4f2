"""``scripts/bench sharing``: how many workers, and how nice, while a model trains on the same CPUs.

A real network is trained by ``model.fit``, on augmented images that are decoded every time, with
every choice in turn. Trainer, supervisor and workers share the CPUs, so that what the workers
take the training lacks; the choice that trains most images a second is the best one.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd import machine
from scripts.benchmarks import ring

_TRAINER = """
import os, sys, time
import keras
from loaderd_client import ImageDataGenerator, connect
data, path, filters, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
layers = keras.layers

class Clock(keras.callbacks.Callback):
    steps = 0

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.steps += 1
        if self.steps == 30:
            self.start = now
        if self.steps > 30 and now - self.start > seconds:
            print("RATE", 32 * (self.steps - 30) / (now - self.start), flush=True)
            os._exit(0)

with connect(path):
    train = ImageDataGenerator(
        rescale=1/255, rotation_range=20, width_shift_range=.2, height_shift_range=.2,
        shear_range=.2, zoom_range=.2, horizontal_flip=True,
    ).flow_from_directory(data, target_size=(150, 150), batch_size=32, seed=1)
    model = keras.Sequential([
        keras.Input((150, 150, 3)),
        layers.Conv2D(filters, 3, strides=2, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(2 * filters, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(2 * filters, 3, activation="relu"), layers.GlobalAveragePooling2D(),
        layers.Dense(train.num_classes, activation="softmax"),
    ])
    model.compile("sgd", "categorical_crossentropy")
    model.fit(train, epochs=100, verbose=0, callbacks=[Clock()])
"""

console = Console()


class Choice(NamedTuple):
    """What is tried: workers, and how nice they are."""

    workers: int
    nice: int


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "sharing",
        help="workers and niceness beside a real training",
        description="Trains a real network with every choice of workers and niceness in turn, on "
        "the same CPUs as the workers; the choice that trains most images a second is the best.",
    )
    parser.add_argument("--data", help="folder of class folders (default: the demo's photos)")
    parser.add_argument("--runs", type=int, default=3, help="alternating runs (default 3)")
    parser.add_argument("--seconds", type=float, default=6.0, help="of one run (default 6)")
    parser.add_argument(
        "--nice", type=int, nargs="*", default=[0, 10, 19], help="of the workers (0 10 19)"
    )
    parser.add_argument(
        "--filters", type=int, nargs="*", default=[4, 16], help="sizes of the network (4 16)"
    )
    cpus = machine.cpus()
    counts = sorted({max(1, cpus // 2), cpus, cpus + 1})
    parser.add_argument(
        "--workers", type=int, nargs="*", default=counts, help=f"numbers of workers ({counts})"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    data = os.path.abspath(args.data or ring.photos())
    choices = [Choice(*one) for one in itertools.product(args.workers, args.nice)]
    for filters in args.filters:
        rates = _rates(data, choices, filters, args)
        console.print(_table(f"a network of {filters} filters", rates))


def _rates(
    data: str, choices: Sequence[Choice], filters: int, args: argparse.Namespace
) -> dict[Choice, list[float]]:
    rates: dict[Choice, list[float]] = {choice: [] for choice in choices}
    turns = [choice for _ in range(args.runs) for choice in choices]
    for choice in track(turns, f"{filters} filters", console=console, transient=True):
        rates[choice].append(_rate(data, choice, filters, args.seconds))
    return rates


def _rate(data: str, choice: Choice, filters: int, seconds: float) -> float:
    """Images per second that are trained on."""
    with ring.daemon(choice.workers, f"--nice={choice.nice}") as path:
        words = [sys.executable, "-c", _TRAINER, data, path, str(filters), str(seconds)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RATE")]
    return float(line.split()[1])


def _table(title: str, rates: dict[Choice, list[float]]) -> Table:
    table = Table("workers", "nice", "images/s trained", "spread", "to the best", title=title)
    best = max(statistics.median(found) for found in rates.values())
    for choice, found in rates.items():
        middle = statistics.median(found)
        spread = f"{min(found):.0f} to {max(found):.0f}"
        row = (str(choice.workers), str(choice.nice), f"{middle:.0f}", spread)
        table.add_row(*row, f"{middle / best:.2f}")
    return table
