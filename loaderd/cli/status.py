"""``loaderd status``: does a daemon run?"""

from __future__ import annotations

import argparse

import msgspec

from loaderd.cli import options, target, text
from loaderd.cli.exits import DONE, NOT_RUNNING
from loaderd.config import Address
from loaderd.errors import NoDaemon
from loaderd.wire import dial
from loaderd.wire.snapshot import Snapshot

_EXAMPLES = """\
  loaderd status                  one line; exit code 0 if a daemon runs, 3 if none does
  loaderd status --json           running, pid, socket, version, uptime_s, workers, ...
  loaderd status --name gpu0 || loaderd start --name gpu0

Without --name, --socket or their variables, and with no daemon called "default", the only
daemon that runs is meant, such as a trainer's private one.
"""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` prints; what nobody can tell is null."""

    running: bool
    name: str
    socket: str
    pid: int | None = None
    version: str | None = None
    uptime_s: float | None = None
    workers: int | None = None
    streams: int | None = None
    trouble: str | None = None


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = options.parser_of(verbs, "status", "say whether the daemon runs", _EXAMPLES)
    options.add_address(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints the status; 0 if a daemon runs, else 3."""
    where = options.address(args)
    try:
        where = target.find(where)
        status = _running(where, dial.observe(where.socket))
        line = _line(status)
    except NoDaemon as error:
        status = Status(running=False, name=where.name, socket=where.socket)
        line = f'loaderd "{where.name}" is not running: {error}'
    text.say(text.as_json(status) if args.json else line)
    return DONE if status.running else NOT_RUNNING


def _running(where: Address, seen: Snapshot) -> Status:
    return Status(
        running=True,
        name=seen.daemon.name,
        socket=where.socket,
        pid=seen.daemon.pid,
        version=seen.daemon.version,
        uptime_s=seen.daemon.uptime_s,
        workers=len(seen.workers),
        streams=len(seen.streams),
        trouble=seen.daemon.trouble,
    )


def _line(status: Status) -> str:
    trouble = f"; TROUBLE: {status.trouble}" if status.trouble else ""
    return (
        f'loaderd "{status.name}" is running: pid {status.pid}, '
        f"up {text.duration(status.uptime_s or 0)}, {text.count(status.workers or 0, 'worker')}, "
        f"{text.count(status.streams or 0, 'stream')}, socket {status.socket}, "
        f"version {status.version}{trouble}"
    )
