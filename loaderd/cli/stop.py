"""``loaderd stop``: ask, wait, and at last insist."""

from __future__ import annotations

import argparse
import contextlib
import signal
import time

from loaderd.cli import console, options
from loaderd.cli.exit_codes import DONE
from loaderd.config import Address
from loaderd.errors import (
    DaemonError,
    NoAnswer,
    NoDaemon,
    ProtocolError,
    RequestRefused,
    VersionMismatch,
)
from loaderd.ipc import dial
from loaderd.ipc.process import Process
from loaderd.ipc.snapshot import Snapshot

PATIENCE = 10.0

_ANSWERS = 4
"""What it is asked: twice hello, whom it serves, and to end."""

_EXAMPLES = """\
  loaderd stop
  loaderd stop --name gpu0 --timeout 60

It is no error if no daemon runs: afterwards none does.
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = options.parser_of(verbs, "stop", "stop the daemon", _EXAMPLES)
    options.add_address(parser)
    parser.add_argument(
        "--timeout",
        metavar="SEC",
        type=options.seconds,
        default=PATIENCE,
        help=f"kill it if it has not ended after so many seconds (default {PATIENCE:.0f})",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Stops the daemon and waits until its process is gone."""
    where = options.address(args)
    pid = dial.listener(where.socket)
    if pid is None:
        console.say(f'loaderd "{where.name}" is not running')
        return DONE
    if not pid:  # it lives in another container, and has no number here
        _ask(where.socket, args.timeout / _ANSWERS)
        console.say(
            f'loaderd "{where.name}" was asked to stop; its process cannot be seen from here'
        )
        return DONE
    process = Process(pid)  # means this one, and never a later one of the same number
    if process.alive:
        _end(where, process, args.timeout)
    console.say(f'loaderd "{where.name}" is stopped')
    return DONE


def _end(where: Address, process: Process, patience: float) -> None:
    end, pid = time.monotonic() + patience, process.pid
    try:
        _ask(where.socket, patience / _ANSWERS)
    except NoAnswer:
        console.tell(f'loaderd "{where.name}" (pid {pid}) does not answer: sending it SIGTERM')
        process.send(signal.SIGTERM)
    except (NoDaemon, VersionMismatch, RequestRefused):  # it ends already, or lets nobody in
        process.send(signal.SIGTERM)
    if process.wait(max(0.0, end - time.monotonic())):
        return
    console.tell(
        f'loaderd "{where.name}" (pid {pid}) did not end within {patience:g} s: killing it'
    )
    process.send(signal.SIGKILL)
    if not process.wait(PATIENCE):
        raise DaemonError(f"pid {pid} does not end, not even by SIGKILL")


def _ask(path: str, patience: float) -> None:
    with contextlib.suppress(ProtocolError):  # a snapshot of another version must not keep us
        _tell_of_trainers(dial.observe(path, patience))
    dial.stop(path, patience)


def _tell_of_trainers(seen: Snapshot) -> None:
    """Who will miss it, and what becomes of them."""
    pids = sorted({stream.client_pid for stream in seen.streams})
    if seen.daemon.private and pids:
        console.say(f"its trainer (pid {pids[0]}) starts another when it needs one")
    elif len(pids) == 1:
        console.say(f"1 trainer is attached (pid {pids[0]}); it waits for a daemon at the same "
                 "address, up to its reconnect timeout")  # fmt: skip
    elif pids:
        named = ", ".join(map(str, pids))
        console.say(f"{len(pids)} trainers are attached (pids {named}); they wait for a daemon at "
                 "the same address, up to their reconnect timeout")  # fmt: skip
