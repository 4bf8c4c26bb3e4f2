"""``scripts/bench hand-over``: loops of PyTorch and JAX over loaderd's batches and over others'."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loaderd import machine
from scripts.benchmarks import photos, report, results, venvs
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.loops import LOOPS, Loop
from scripts.benchmarks.peers.protocol import Task
from scripts.benchmarks.results import LoopEntry

console = Console()


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "hand-over",
        help="loops of PyTorch and JAX over batches of loaderd and of other loaders",
        description="Measures loops that do nothing but take batches, in turn: over loaderd's\n"
        "tensors and arrays, PyTorch's DataLoader, SPDL and Grain, all with the recipe of a\n"
        "random resized crop, a flip and a normalisation at 224x224, in batches of 32. The\n"
        "results replace the former ones in docs/benchmarks, unless --out names another\n"
        "folder. Makes the photos and the environments below .bench when they are first\n"
        "needed; then it takes about two minutes.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("--loops", metavar="A,B", help=f"only these (default: all): {', '.join(LOOPS)}")
    option("--runs", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--seconds", type=float, default=3.0, metavar="S", help="of a turn (default 3)")
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--out", metavar="DIR", default="docs/benchmarks",
           help="where results are written, over older ones (default: %(default)s)")  # fmt: skip
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> None:
    """Measures, shows and writes."""
    names = args.loops.split(",") if args.loops else [*LOOPS]
    for name in names:
        if name not in LOOPS:
            args.refuse(f"no loop {name!r}: choose from {', '.join(LOOPS)}")
    folder = photos.of_user(args.data) if args.data else photos.made(photos.SMALL).absolute()
    task = Task(
        str(folder), (224, 224), interpolation="bilinear", recipe="crop", workers=machine.cpus()
    )
    entries = {name: results.begun(LoopEntry) for name in names}
    with contextlib.ExitStack() as open_:
        entrants = {}
        for name, entry in entries.items():
            with contextlib.suppress(Failed, venvs.NotAvailable):
                entrants[name] = _enter(LOOPS[name], name, task, entry)
                open_.callback(entrants[name].close)
        for _ in range(args.runs):
            _round(entrants, entries, args.seconds)
    report.add(Path(args.out), lambda found: found.loops.update(entries))
    console.print(_table(entries))
    console.print(f"written: {args.out}/README.md, results.json")


def _enter(loop: Loop, name: str, task: Task, entry: LoopEntry) -> Contestant:
    """Starts a loop, and notes how long its first batch took, or why there is none."""
    told = replace(task, variant=loop.peer.variant)
    try:
        entrant = Contestant(venvs.python_of(loop.peer), loop.peer.module, told, f"loop-{name}")
    except (Failed, venvs.NotAvailable) as error:
        entry.failed = str(error)
        raise
    entry.first_s = float(entrant.looks["first_s"])
    return entrant


def _round(entrants: dict[str, Contestant], entries: dict[str, LoopEntry], seconds: float) -> None:
    for name, entrant in list(entrants.items()):
        try:
            entries[name].rates.append(entrant.turn(seconds))
        except Failed as error:
            entries[name].failed = str(error)
            entries[name].rates.clear()
            del entrants[name]


def _table(entries: dict[str, LoopEntry]) -> Table:
    table = Table(*report.LOOP_COLUMNS[:-2], "")
    for name, entry in entries.items():
        table.add_row(*report.loop_cells(name, entries)[:-2], entry.failed)
    return table
