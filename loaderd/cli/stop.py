"""``loaderd stop``: ask the daemon to drain, wait, and kill it after a timeout."""

from __future__ import annotations

import argparse
import contextlib
import signal
import time

from loaderd.cli import console, options
from loaderd.cli.exit_codes import DONE
from loaderd.config import Address
from loaderd.errors import DaemonError, NoAnswer, ProtocolError
from loaderd.ipc import dial
from loaderd.ipc.process import Process
from loaderd.ipc.snapshot import Snapshot

TIMEOUT = 10.0

_ANSWERS = 4
"""Requests that the timeout is divided among: hello and a snapshot, hello and to end."""

DOES = "stop the daemon"
EXAMPLES = """\
  loaderd stop
  loaderd stop --name gpu0 --timeout 60

Exit code 0 also if no daemon runs.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    options.add_address(parser)
    parser.add_argument(
        "--timeout",
        metavar="SEC",
        type=options.seconds,
        default=TIMEOUT,
        help=f"kill it if it has not ended after so many seconds (default {TIMEOUT:.0f})",
    )


def run(args: argparse.Namespace) -> int:
    """Stop the daemon and wait until its process is gone."""
    where = options.address(args)
    pid = dial.listener(where.socket)
    if pid is None:
        console.out(f'loaderd "{where.name}" is not running')
        return DONE
    if not pid:  # it runs in another PID namespace
        _ask(where.socket, args.timeout / _ANSWERS)
        console.out(
            f'loaderd "{where.name}" was asked to stop; its process cannot be seen from here'
        )
        return DONE
    process = Process(pid)  # a pidfd: never a later process of the same number
    if process.alive:
        _end(where, process, args.timeout)
    console.out(f'loaderd "{where.name}" is stopped')
    return DONE


def _end(where: Address, process: Process, timeout: float) -> None:
    end, pid = time.monotonic() + timeout, process.pid
    try:
        _ask(where.socket, timeout / _ANSWERS)
    except NoAnswer:
        console.err(f'loaderd "{where.name}" (pid {pid}) does not answer: sending it SIGTERM')
        process.send(signal.SIGTERM)
    except DaemonError:  # it is ending, refuses connections, or is of another version
        process.send(signal.SIGTERM)
    if process.wait(max(0.0, end - time.monotonic())):
        return
    console.err(f'loaderd "{where.name}" (pid {pid}) did not end within {timeout:g} s: killing it')
    process.send(signal.SIGKILL)
    if not process.wait(TIMEOUT):
        raise DaemonError(f"pid {pid} does not end, not even by SIGKILL")


def _ask(path: str, timeout: float) -> None:
    with contextlib.suppress(ProtocolError):  # a snapshot of another version
        _print_trainers(dial.observe(path, timeout))
    dial.stop(path, timeout)


def _print_trainers(seen: Snapshot) -> None:
    """Print which trainers are attached, and what they will do."""
    pids = sorted({stream.client_pid for stream in seen.streams})
    if seen.daemon.private and pids:
        console.out(f"its trainer (pid {pids[0]}) starts another when it needs one")
    elif len(pids) == 1:
        console.out(f"1 trainer is attached (pid {pids[0]}); it waits for a daemon at the same "
                 "address, up to its reconnect timeout")  # fmt: skip
    elif pids:
        named = ", ".join(map(str, pids))
        console.out(f"{len(pids)} trainers are attached (pids {named}); they wait for a daemon at "
                 "the same address, up to their reconnect timeout")  # fmt: skip
