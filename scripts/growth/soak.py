"""Makes and drops flows by the thousand beside two trainers that train, and looks for growth.

A daemon is started, and three trainers: two train a small network with Keras, one of them with
every random change, one with a validation set; the third makes flows of all kinds (arrays,
folders, tables, datasets; scripts/growth/sources.py), uses each in one of all ways (unread, half
read, kept by TensorFlow, copied, forked, interrupted, …; scripts/growth/uses.py) and drops it.
What is kept on purpose is bounded: the last 50 of each sort.

All the while the memory, descriptors, threads and mappings of the three, of the supervisor, its
workers, the fork server and the opener are sampled. The first quarter of the flows is a warm-up.
A figure is flat if its median over the last quarter of the flows is at most an allowance above
its median over the second quarter: see scripts/growth/judge.py and allowances.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from rich.console import Console

from loaderd import machine
from loaderd.errors import LoaderdError
from scripts.faults import command, history
from scripts.faults.daemons import DaemonFailed
from scripts.faults.screen import console, progress
from scripts.growth import report
from scripts.growth.trial import Trial

EXAMPLES = """examples:
  scripts/soak                               5,000 flows in 30 minutes
  scripts/soak --minutes 4 --flows 600       a short look; what is small is not seen
  scripts/soak --json > soak.json            the table's figures; progress is on stderr
  scripts/soak --keep logs                   logs, and samples.jsonl with all that was measured

Exits with 0 if all is flat, with 1 if anything has grown, was lost or is left behind.
"""
WIDTH = 132
"""Columns that the table needs, also where there is no terminal."""


def parse(words: list[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        "soak",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    option: Any = parser.add_argument
    option("--minutes", type=command.number, default=30.0, metavar="M",
           help="over which the flows are spread, at least (30)")  # fmt: skip
    option("--flows", type=_count, default=5000, metavar="N", help="that are made (5000)")
    option("--workers", type=_count, default=machine.cpus(), metavar="N", help="(the CPUs)")
    option("--trainers", choices=("keras", "plain"), default="keras",
           help="plain ones take batches as Keras does, and train nothing")  # fmt: skip
    option("--json", action="store_true", help="prints JSON in place of the table")
    option("--data", metavar="DIR",
           help="class folders, for the two that train (made by make-photos)")  # fmt: skip
    option("--keep", metavar="DIR", help="a new folder for all logs (else kept only with findings)")
    return parser.parse_args(words)


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """One run, and its figures; returns the exit code."""
    data = os.path.abspath(args.data) if args.data else command.photos()
    with command.place("soak", args.keep) as folder:
        trial = Trial(args, folder, data)
        try:
            trial.run()
        except (DaemonFailed, LoaderdError) as error:
            trial.findings.append(str(error))
        _show(trial)
        bad = bool(trial.findings or trial.grown)
        if bad and not args.keep:
            progress.print(f"soak: the logs are in {command.keep_logs('soak', folder)}")
    return int(bad)


def _show(trial: Trial) -> None:
    if trial.args.json:
        print(report.as_json(trial))
        return
    Console(width=max(WIDTH, console.width)).print(report.table(trial))
    history.show([*trial.findings, *trial.grown])
    print(report.verdict(trial))


def main() -> int:
    """Runs the command."""
    args = parse(sys.argv[1:])
    return command.exit_code("soak", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
