"""``scripts/bench compare``: loaderd and its peers, side by side in one run."""

from __future__ import annotations

import argparse
import contextlib
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
from rich.console import Console
from rich.live import Live
from rich.table import Table

from loaderd import machine
from scripts.benchmarks import photos, report, results, ring, venvs
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.peers.protocol import Task
from scripts.benchmarks.results import Entry, Results
from scripts.benchmarks.workloads import FIRST_BATCH_FILES, FIRST_BATCH_S, PEERS, WORKLOADS

FIRST_BATCH = "first-batch"
EXAMPLES = """examples:
  scripts/bench compare                                 everything; most of an hour
  scripts/bench compare augment cached --runs 7         two workloads; the others' results stay
  scripts/bench compare plain --peers floor,torch       loaderd against two peers
  scripts/bench compare crop recipe                     training recipes of ImageNet
  scripts/bench compare --data photos --out /tmp/bench  own images, results elsewhere

workloads:
"""
console = Console()


def add(benchmarks: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the benchmark."""
    names = [f"  {name:<16}{workload.title}" for name, workload in WORKLOADS.items()]
    names.append(f"  {FIRST_BATCH:<16}seconds from flow_from_directory to the first batch")
    names += ["", "peers:", *(f"  {name:<26}{peer.title}" for name, peer in PEERS.items())]
    parser = benchmarks.add_parser(
        "compare",
        help="loaderd and its peers, side by side in one run (about an hour)",
        description="Measures loaderd and its peers in alternating rounds: all workloads take\n"
        "about an hour. The results replace those of the same workloads in docs/benchmarks,\n"
        "unless --out names another folder. Makes the photos and the peers' environments\n"
        "below .bench when they are first needed.",
        epilog=EXAMPLES + "\n".join(names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option = parser.add_argument
    option("workloads", nargs="*", metavar="WORKLOAD", help="default: all")
    option("--peers", metavar="A,B", help="only these beside loaderd (default: all)")
    option("--runs", type=int, default=5, metavar="N", help="rounds (default 5)")
    option("--seconds", type=float, default=3.0, metavar="S", help="of a turn (default 3)")
    option("--data", metavar="DIR", help="folder of class folders (default: made, 4000 photos)")
    option("--photos", metavar="DIR", help="the same with large photos (default: made, 60)")
    option("--out", metavar="DIR", default="docs/benchmarks",
           help="where results are written, over older ones (default: %(default)s)")  # fmt: skip
    parser.set_defaults(run=run, refuse=parser.error)


def run(args: argparse.Namespace) -> None:
    """Measures, shows and writes."""
    _check(args)
    try:
        _run(args)
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; the workloads that were finished are kept")


def _run(args: argparse.Namespace) -> None:
    # However we are asked to end: contestants that are stopped would stay for ever.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    names = args.workloads or [*WORKLOADS, FIRST_BATCH]
    path = Path(args.out) / "results.json"
    found = results.load(path)
    Path(".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=".bench", prefix="run-") as scratch:
        data = Datasets(args, Path(scratch).absolute())
        for name in names:
            if name == FIRST_BATCH:
                _first_batch(data, found)
            else:
                _compare(name, data, found, args)
            found.datasets |= data.described()
            results.save(path, found)
            report.write(path.parent, found)
    _show_musts(found)
    console.print(f"written: {path.parent}/README.md, bars.svg, results.json")


def _check(args: argparse.Namespace) -> None:
    for name in args.workloads:
        if name not in (*WORKLOADS, FIRST_BATCH):
            args.refuse(f"no workload {name!r}: choose from {', '.join(WORKLOADS)}, {FIRST_BATCH}")
    for name in _wanted(args) or ():
        if name not in PEERS:
            args.refuse(f"no peer {name!r}: choose from {', '.join(PEERS)}")
    if args.runs < 1 or args.seconds <= 0:
        args.refuse("--runs and --seconds must be more than 0")


def _wanted(args: argparse.Namespace) -> list[str] | None:
    return args.peers.split(",") if args.peers else None


class Datasets:
    """The folders of images, found or made when they are first asked for."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        self.scratch = scratch
        self._chosen = {"small": args.data, "large": args.photos}
        self._folders: dict[str, Path] = {}

    def folder(self, kind: str) -> Path:
        """Of ``small`` or ``large`` photos, or of ``many`` names for the small ones."""
        if kind not in self._folders:
            self._folders[kind] = self._made(kind)
        return self._folders[kind]

    def _made(self, kind: str) -> Path:
        if kind == "many":
            many = max(photos.MANY_FILES, len(photos.files_of(self.folder("small"))))
            return photos.linked(self.folder("small"), self.scratch / "many", many)
        chosen = self._chosen[kind]
        made = photos.SMALL if kind == "small" else photos.LARGE
        folder = photos.of_user(chosen) if chosen else photos.made(made).absolute()
        if kind == "large":
            folder = photos.linked(folder, self.scratch / "large", photos.LARGE_FILES)
        return folder

    def described(self) -> dict[str, dict[str, int | str]]:
        """What the folders that were asked for hold."""
        return {
            kind: photos.described(folder) | {"size": _size(folder)}
            for kind, folder in self._folders.items()
        }


def _size(folder: Path) -> str:
    image = cv2.imread(str(photos.files_of(folder)[0]))
    assert image is not None
    return f"{image.shape[1]}x{image.shape[0]}"


# ---- one workload ---------------------------------------------------------------------


class Board:
    """The table on the terminal while a workload runs."""

    def __init__(self, title: str, entries: dict[str, Entry], ours: str) -> None:
        self._title = title
        self._entries = entries
        self._ours = ours
        self._doing: dict[str, str] = {}
        self._live = Live(self._table(), console=console, auto_refresh=False)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Keeps it on the terminal."""
        with self._live:
            yield
            self._live.update(self._table(), refresh=True)

    @contextlib.contextmanager
    def doing(self, peer: str, what: str) -> Iterator[None]:
        """Says what is going on."""
        self._doing = {peer: what}
        self._live.update(self._table(), refresh=console.is_terminal)
        yield
        self._doing = {}

    def _table(self) -> Table:
        table = Table(title=self._title, title_justify="left")
        for column in ("", "images/s", "loaderd / it", "round", ""):
            table.add_column(column, justify="left" if not column else "right")
        for peer, entry in self._entries.items():
            table.add_row(PEERS[peer].title, *self._cells(peer, entry), self._state(peer, entry))
        return table

    def _cells(self, peer: str, entry: Entry) -> tuple[str, str, str]:
        if not entry.rates:
            return "", "", ""
        whole = len(entry.ours) == len(entry.rates)
        against = report.shown(results.ratio(entry)) if whole and peer != self._ours else ""
        return f"{statistics.median(entry.rates):,.0f}", against, str(len(entry.rates))

    def _state(self, peer: str, entry: Entry) -> str:
        return f"[red]{entry.failed}[/red]" if entry.failed else self._doing.get(peer, "")


def _compare(name: str, data: Datasets, found: Results, args: argparse.Namespace) -> None:
    workload = WORKLOADS[name]
    wanted = _wanted(args)
    others = [peer for peer in workload.others if wanted is None or peer in wanted]
    entries = {peer: _entry() for peer in (workload.ours, *others)}
    left_out = {
        peer: _entry(why)
        for peer, why in workload.left_out.items()
        if wanted is None or peer in wanted
    }
    folder = data.folder(workload.photos)
    task = Task(str(folder), **{"size": (150, 150), **workload.task})
    task = replace(task, workers=machine.cpus(), scratch=str(data.scratch))
    board = Board(f"{name}: {workload.title}", entries | left_out, workload.ours)
    with contextlib.ExitStack() as open_, board.shown():
        entrants: dict[str, Contestant] = {}
        for peer, entry in entries.items():
            try:
                with board.doing(peer, "getting ready"):
                    entrants[peer] = _enter(name, peer, task)
                    open_.callback(entrants[peer].close)
                    _note(found, peer, entry, entrants[peer], entries[workload.ours])
            except (Failed, venvs.NotAvailable) as error:
                _drop(entrants, peer, entry, error)
        for _ in range(args.runs):
            _round(entrants, entries, board, args.seconds, workload.ours)
    if not console.is_terminal:
        console.print()
    found.entries.setdefault(name, {}).update(entries | left_out)


def _entry(failed: str = "") -> Entry:
    entry = results.begun(Entry)
    entry.failed = failed
    return entry


def _enter(workload: str, peer: str, task: Task) -> Contestant:
    python = venvs.python_of(PEERS[peer])
    told = replace(task, variant=PEERS[peer].variant)
    return Contestant(python, PEERS[peer].module, told, f"{workload}-{peer}")


def _note(found: Results, peer: str, entry: Entry, entrant: Contestant, ours: Entry) -> None:
    """Keeps what is known of an entrant; refuses one that delivers something else."""
    entry.looks = entrant.looks
    found.packages[PEERS[peer].environment] = entrant.packages
    for key in ("shape", "dtype"):
        if ours.looks and entry.looks[key] != ours.looks[key]:
            raise Failed(f"its batches have another {key}: {entry.looks[key]}")
    if entry.looks["blank"]:
        raise Failed(f"{entry.looks['blank']} images of its first two batches have one colour")


def _drop(entrants: dict[str, Contestant], peer: str, entry: Entry, error: Exception) -> None:
    entrants.pop(peer, None)
    entry.rates.clear()
    entry.ours.clear()
    entry.failed = str(error)


def _round(
    entrants: dict[str, Contestant],
    entries: dict[str, Entry],
    board: Board,
    seconds: float,
    ours: str,
) -> None:
    """A turn for each; ours comes first, so the others can be compared with it at once."""
    for peer, entrant in list(entrants.items()):
        entry = entries[peer]
        try:
            with board.doing(peer, "measuring"):
                entry.rates.append(entrant.turn(seconds))
        except Failed as error:
            _drop(entrants, peer, entry, error)
            continue
        if entries[ours].failed:
            continue
        entry.ours.append(entries[ours].rates[-1])


# ---- the rest -------------------------------------------------------------------------


def _first_batch(data: Datasets, found: Results) -> None:
    folder = photos.linked(data.folder("small"), data.scratch / "first", FIRST_BATCH_FILES)
    with console.status("first batch"):
        found.first_batch_s = ring.first_batch(str(folder), machine.cpus())
    found.first_batch_date = _entry().date
    console.print(
        f"first batch, warm daemon, {FIRST_BATCH_FILES} files: {found.first_batch_s:.2f} s"
    )


def _show_musts(found: Results) -> None:
    table = Table("workload", "against", "at least", "measured", "", title="must show")
    for verdict in results.verdicts(found):
        peer = PEERS[verdict.peer].title if verdict.peer in PEERS else verdict.peer
        mark = "" if verdict.ratio is None else "met" if verdict.is_met else "[red]missed[/red]"
        must = verdict.must
        table.add_row(must.workload, peer, f"{must.least:g}", report.shown(verdict.ratio), mark)
    seconds = found.first_batch_s
    if seconds is not None:
        mark = "met" if seconds <= FIRST_BATCH_S else "[red]missed[/red]"
        table.add_row("first batch", "", f"{FIRST_BATCH_S} s at most", f"{seconds:.2f} s", mark)
    console.print(table)
