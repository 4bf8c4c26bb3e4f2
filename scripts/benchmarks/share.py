"""``scripts/bench share``: what two trainers get from one shared stream, against one alone.

Trainers read as fast as they can and train nothing, so that rendering is what limits them. Two on
one stream get nearly twice the batches, as each is rendered once. Streams of their own, and
TensorSocket around PyTorch's ``DataLoader``, do the same work beside them, in alternating rounds.
"""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from loaderd import machine
from scripts.benchmarks import photos, report, results
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.peers.protocol import Task
from scripts.benchmarks.results import Measured
from scripts.benchmarks.sharers import SHARERS, Sharer
from scripts.benchmarks.venvs import NotAvailable, python_of

console = Console()


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "share",
        help="two trainers on one shared stream, against one alone, beside TensorSocket",
        description="Trainers read augmented images as fast as they come: one alone, two on one\n"
        "shared stream, two with streams of their own, and the consumers of TensorSocket. The\n"
        "results, images a second of all together and their ratio to one alone, replace the\n"
        "former ones in docs/benchmarks, unless --out names another folder. Makes the photos and\n"
        "TensorSocket's environment below .bench when they are first needed; then it takes about\n"
        "ten minutes, most of them for TensorSocket.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--runs", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--seconds", type=float, default=5.0, metavar="S", help="of a turn (default 5)")
    option("--workers", type=int, default=machine.cpus(), metavar="N", help="default: the CPUs")
    option("--ours", action="store_true", help="without TensorSocket")
    option("--out", metavar="DIR", default="docs/benchmarks",
           help="where results are written, over older ones (default: %(default)s)")  # fmt: skip
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures, shows and writes."""
    folder = photos.of_user(args.data) if args.data else photos.made(photos.SMALL).absolute()
    task = Task(
        str(folder), (150, 150), interpolation="bilinear", augment=True, workers=args.workers
    )
    entries = {
        name: results.begun(Measured)
        for name, sharer in SHARERS.items()
        if not (args.ours and sharer.peer.requires)
    }
    for _ in track(range(args.runs), "rounds", console=console, transient=True):
        for name, entry in entries.items():
            if not entry.failed:
                _turn(SHARERS[name], entry, task, args.seconds)
    report.add(Path(args.out), lambda found: found.shared.update(entries))
    console.print(_table(entries))
    console.print(f"written: {args.out}/README.md, results.json")


def _turn(sharer: Sharer, entry: Measured, task: Task, seconds: float) -> None:
    """One turn; started anew, as TensorSocket drops consumers that are stopped meanwhile."""
    try:
        entry.rates.append(_rate(sharer, task, seconds))
    except (NotAvailable, Failed) as error:
        entry.failed = str(error)
        entry.rates.clear()


def _rate(sharer: Sharer, task: Task, seconds: float) -> float:
    """Images a second of all its trainers together."""
    peer = sharer.peer
    told = replace(task, variant=peer.variant)
    contestant = Contestant(
        python_of(peer), peer.module, told, f"share-{peer.module}-{peer.variant}"
    )
    with contextlib.closing(contestant):
        return contestant.turn(seconds)


def _table(entries: dict[str, Measured]) -> Table:
    table = Table(*report.SHARED_COLUMNS[:-2], "")
    for name, entry in entries.items():
        table.add_row(*report.shared_cells(name, entries)[:-2], entry.failed)
    return table
