"""``scripts/bench augment``: each operation of loaderd alone, beside that of Albumentations."""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from scripts.benchmarks import photos, report, results, venvs
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.operations import PAIRS, SIZE
from scripts.benchmarks.peers.protocol import Task
from scripts.benchmarks.results import Entry, Ratio
from scripts.benchmarks.workloads import PEERS

LEAST, LEAST_MEDIAN = 0.8, 1.2
"""What must be shown: of each ratio, and of their median."""
COLUMNS = ("", "loaderd", "Albumentations", "loaderd / it", "which is its")
TITLE = "images/s of one core, 224x224x3, from decoded images to the row of a batch"
console = Console()


class Measured(NamedTuple):
    """What was found for one operation.

    Attributes:
        ours: images/s of each round.
        theirs: the same; empty if it was not measured.
        missing: why not.
    """

    ours: list[float]
    theirs: list[float]
    missing: str = ""

    @property
    def ratio(self) -> Ratio | None:
        """Ours over theirs, round by round."""
        return results.ratio(Entry("", "", rates=self.theirs, ours=self.ours))


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    parser = benchmarks.add_parser(
        "augment",
        help="each operation of augment=[...] alone, beside that of Albumentations",
        description="Measures each operation alone, in one process and one thread, in turn with\n"
        "the operation of Albumentations that does the same, and prints images per second of the\n"
        "CPU's work, and the ratio. Albumentations is installed below .bench when it is first\n"
        "needed; where it cannot be, loaderd's operations are measured alone.",
        epilog="operations:\n" + "\n".join(f"  {name}" for name in PAIRS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("operations", nargs="*", metavar="OPERATION", help="default: all")
    option("--runs", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--seconds", type=float, default=0.4, metavar="S", help="of a turn (default 0.4)")
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--alone", action="store_true", help="without Albumentations")
    option("--out", metavar="FILE", help="also write the table there, as Markdown")
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> None:
    """Measures, prints and writes."""
    for name in args.operations:
        if name not in PAIRS:
            args.refuse(f"no operation {name!r}: choose from {', '.join(PAIRS)}")
    if args.runs < 1 or args.seconds <= 0:
        args.refuse("--runs and --seconds must be more than 0")
    folder = photos.of_user(args.data) if args.data else photos.made(photos.SMALL).absolute()
    python = None if args.alone else _albumentations()
    found: dict[str, Measured] = {}
    for name in args.operations or PAIRS:
        with console.status(name):
            found[name] = _measured(Task(str(folder), SIZE, variant=name), python, args)
    console.print(_table(found))
    console.print(summary(found))
    if args.out:
        Path(args.out).write_text(markdown(found))


def _albumentations() -> str | None:
    """The interpreter that has it; None, and a word on the terminal, if it cannot be installed."""
    try:
        return venvs.python_of(PEERS["albumentations"])
    except venvs.NotAvailable as error:
        console.print(f"without Albumentations: {error}", markup=False)
        return None


def _measured(task: Task, python: str | None, args: argparse.Namespace) -> Measured:
    has_other = PAIRS[task.variant].theirs is not None
    rounds: Measured = Measured([], [], "" if has_other else "it has none")
    with contextlib.ExitStack() as open_:
        try:
            ours = open_.enter_context(_entered(sys.executable, "operation_ours", task))
        except Failed as error:
            return Measured([], [], str(error))
        theirs = None
        if python and has_other:
            try:
                theirs = open_.enter_context(_entered(python, "operation_albumentations", task))
            except Failed as error:
                rounds = rounds._replace(missing=str(error))
        for _ in range(args.runs):
            rounds.ours.append(ours.turn(args.seconds))
            if theirs is not None:
                rounds.theirs.append(theirs.turn(args.seconds))
    return rounds


@contextlib.contextmanager
def _entered(python: str, module: str, task: Task) -> Iterator[Contestant]:
    contestant = Contestant(python, module, task, f"{module}-{task.variant}")
    with contextlib.closing(contestant):
        yield contestant


def _cells(name: str, one: Measured) -> tuple[str, ...]:
    """A row of the table."""
    ours, theirs = (
        f"{statistics.median(rates):,.0f}" if rates else "-" for rates in (one.ours, one.theirs)
    )
    other, ratio = PAIRS[name].theirs, report.shown(one.ratio) if one.theirs else "-"
    return name, ours, theirs, ratio, one.missing or (other.name if other else "")


def _table(found: dict[str, Measured]) -> Table:
    table = Table(title=TITLE, title_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in COLUMNS[1:4] else "left")
    table.columns[0].no_wrap = True
    for name, one in found.items():
        table.add_row(*_cells(name, one))
    return table


def markdown(found: dict[str, Measured]) -> str:
    """The table for a page."""
    rows: Iterable[tuple[str, ...]] = (_cells(name, one) for name, one in found.items())
    lines = [f"{TITLE}.", "", _line(COLUMNS), _line(["---"] * len(COLUMNS)), *map(_line, rows)]
    return "\n".join([*lines, "", summary(found), ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def summary(found: dict[str, Measured]) -> str:
    """The median of the ratios, and the operations below what is asked for."""
    ratios = {name: one.ratio.median for name, one in found.items() if one.ratio is not None}
    if not ratios:
        return "no ratios"
    slow = [f"{name} {ratio:.2f}" for name, ratio in ratios.items() if ratio < LEAST]
    return (
        f"median of {len(ratios)} ratios: {statistics.median(ratios.values()):.2f} "
        f"(at least {LEAST_MEDIAN}); below {LEAST}: {', '.join(slow) or 'none'}"
    )
