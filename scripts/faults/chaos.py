"""Kill workers and daemons under trainers that train, and judge the batches that they got.

What happens, in this order:

1. A daemon is started. A reader is undisturbed and has workers killed under it, in turns: the
   throughput under kills, divided by the undisturbed one, must be 0.5 or more.
2. Two trainers train and one client misbehaves, while every 0.2 s a random worker is killed,
   crashed or stopped, and now and then the daemon is ended, by SIGTERM and SIGKILL in turn, and
   started again.
3. The trainers end with their epoch. A reference reads the same, undisturbed.
4. The logs of all are judged, by scripts/faults/history.py; processes, descriptors and
   shared memory are compared with those of the fresh daemon.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from typing import Any

from loaderd import machine
from loaderd.errors import LoaderdError
from scripts.faults import command, figures, history
from scripts.faults.daemons import DaemonFailed
from scripts.faults.screen import console
from scripts.faults.trial import Trial


def parse(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        "chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option: Any = parser.add_argument
    option("--minutes", type=command.number, default=1.0, metavar="M",
           help="of the storm, step 2 (1); the others take half a minute or more")  # fmt: skip
    option("--workers", type=int, default=machine.cpus(), metavar="N", help="(the CPUs)")
    option("--seed", type=int, default=None, metavar="S", help="of all randomness (a new one)")
    option("--every", type=command.number, default=0.2, metavar="SEC", help="between strikes (0.2)")
    option("--restart-every", type=float, default=20.0, metavar="SEC",
           help="between restarts of the daemon; 0 for none (20)")  # fmt: skip
    option("--trainers", choices=("keras", "plain"), default="keras",
           help="plain ones take batches as Keras does, and train nothing")  # fmt: skip
    option("--least", type=float, default=0.5, metavar="RATIO",
           help="of the throughput that kills must leave; 0 does not measure (0.5)")  # fmt: skip
    option("--data", metavar="DIR", help="folder of class folders (made by make-photos)")
    option("--keep", metavar="DIR", help="a new folder for all logs (else kept only with findings)")
    args = parser.parse_args(words)
    args.seed = random.SystemRandom().randrange(10**6) if args.seed is None else args.seed
    return args


def run(args: argparse.Namespace) -> int:
    """Run a trial and print its figures; return the exit code."""
    data = os.path.abspath(args.data) if args.data else command.photos()
    with command.place("chaos", args.keep) as folder:
        findings = _findings(Trial(args, folder, data))
        history.show(findings)
        if findings and not args.keep:
            print(f"chaos: the logs are in {command.keep_logs('chaos', folder)}")
    return 1 if findings else 0


def _findings(trial: Trial) -> list[str]:
    """Run it, print the figures, and return what is wrong."""
    try:
        trial.run()
    except (DaemonFailed, LoaderdError) as error:
        return [str(error)]
    console.print(figures.table(trial))
    print(trial.verdict)
    return figures.findings(trial)


def main() -> int:
    """Run the command."""
    args = parse(sys.argv[1:])
    return command.exit_code("chaos", lambda: run(args))


if __name__ == "__main__":
    sys.exit(main())
