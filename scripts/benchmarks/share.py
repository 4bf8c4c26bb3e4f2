"""``scripts/bench share``: what two trainers get from one shared stream, against one alone.

Trainers read as fast as they can and train nothing, so that rendering is what limits them. Two on
one stream get nearly twice the batches, as each is rendered once. Streams of their own, and
TensorSocket around PyTorch's ``DataLoader``, do the same work beside them, in alternating rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
from typing import NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd import machine
from scripts.benchmarks import ring, workloads
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.peers.protocol import Task
from scripts.benchmarks.venvs import NotAvailable, python_of
from scripts.benchmarks.workloads import Peer

LEAST = 1.9
"""What two trainers on one stream must get together, to one alone."""

console = Console()


class Row(NamedTuple):
    """A way to share: its name, who does it, and how many trainers there are."""

    title: str
    peer: Peer
    variant: str


_OURS = Peer("loaderd", "shared_stream")
_SOCKET = Peer(
    "TensorSocket",
    "tensorsocket",
    requires=("tensorsocket==0.0.5", workloads.TORCH, "opencv-python-headless", "numpy"),
)
ROWS = (
    Row("loaderd, one trainer", _OURS, "one"),
    Row("loaderd, two on one stream", _OURS, "two"),
    Row("loaderd, two with streams of their own", _OURS, "apart"),
    Row("TensorSocket, one consumer", _SOCKET, "one"),
    Row("TensorSocket, two consumers", _SOCKET, "two"),
)


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "share",
        help="two trainers on one shared stream, against one alone, beside TensorSocket",
        description="Trainers read augmented images as fast as they come: one alone, two on one "
        "shared stream, two with streams of their own, and the consumers of TensorSocket. Prints "
        "the images a second of all together, and their ratio to one alone.",
    )
    parser.add_argument("--data", help="folder of class folders (default: the demo's photos)")
    parser.add_argument("--runs", type=int, default=5, help="alternating rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one turn (default 5)")
    parser.add_argument("--workers", type=int, default=machine.cpus(), help="default: the CPUs")
    parser.add_argument("--ours", action="store_true", help="without TensorSocket")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures and prints."""
    rates: dict[Row, list[float]] = {row: [] for row in ROWS if row.peer is _OURS or not args.ours}
    for _ in track(range(args.runs), "rounds", console=console, transient=True):
        for row in list(rates):
            try:
                rates[row].append(_rate(row, args))
            except (NotAvailable, Failed) as error:
                console.print(f"{row.title}: left out: {error}")
                del rates[row]
    console.print(_table(rates))


def _rate(row: Row, args: argparse.Namespace) -> float:
    """Images a second of one turn; started anew, as TensorSocket drops those who are stopped."""
    task = Task(
        os.path.abspath(args.data or ring.photos()),
        (150, 150),
        interpolation="bilinear",
        augment=True,
        workers=args.workers,
        variant=row.variant,
    )
    contestant = Contestant(python_of(row.peer), row.peer.module, task, f"share-{row.title}")
    with contextlib.closing(contestant):
        return contestant.turn(args.seconds)


def _table(rates: dict[Row, list[float]]) -> Table:
    table = Table("", "images/s together", "to one alone", "spread", title="One stream, shared")
    for row, found in rates.items():
        ones = (other for other in rates if (other.peer, other.variant) == (row.peer, "one"))
        alone = next(ones, row)
        ratios = [rate / one for rate, one in zip(found, rates[alone], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        middle = f"{statistics.median(ratios):.2f}"
        if row.peer is _OURS and row.variant == "two":
            middle += f" (at least {LEAST})"
        table.add_row(row.title, f"{statistics.median(found):.0f}", middle, spread)
    return table
