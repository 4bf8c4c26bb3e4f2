"""``loaderd status``: whether a daemon runs."""

from __future__ import annotations

import argparse

import msgspec

from loaderd import formatting
from loaderd.cli import console, options, target
from loaderd.cli.exit_codes import DONE, FAILED, NOT_RUNNING
from loaderd.config import Address
from loaderd.errors import NoAnswer, NoDaemon
from loaderd.ipc import dial
from loaderd.ipc.snapshot import Snapshot

DOES = "say whether the daemon runs"
EXAMPLES = """\
  loaderd status                  one line; exit code 0 if a daemon runs, 3 if none does,
                                  1 if it does not answer
  loaderd status --json           running, answers, pid, socket, version, uptime_s, workers, ...
  loaderd status --name gpu0 || loaderd start --name gpu0

Without --name, --socket or their variables, and with no daemon called "default", the only
daemon that runs is meant, such as a trainer's private one.
"""


class SharedReader(msgspec.Struct, frozen=True, kw_only=True):
    """A trainer that shares a stream, or has left it for one of its own."""

    share: str
    client_pid: int
    lag: int
    detached: bool


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What ``--json`` prints; null is what cannot be known."""

    running: bool
    answers: bool
    name: str
    socket: str
    pid: int | None = None
    version: str | None = None
    uptime_s: float | None = None
    workers: int | None = None
    streams: int | None = None
    shards: tuple[str, ...] | None = None
    shared: tuple[SharedReader, ...] | None = None
    trouble: str | None = None


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    options.add_address(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the status; return 0 if a daemon runs, 1 if it does not answer, else 3."""
    where = options.address(args)
    try:
        where = target.find(where)
        status = _running(where, dial.observe(where.socket, dial.SOON))
        line = _line(status)
    except NoDaemon as error:
        runs, pid = isinstance(error, NoAnswer), getattr(error, "pid", None)
        status = Status(running=runs, answers=False, name=where.name, socket=where.socket, pid=pid)
        state = "running, but" if status.running else "not running:"
        line = f'loaderd "{where.name}" is {state} {error}'
    console.out(formatting.as_json(status) if args.json else line)
    if status.answers:
        return DONE
    return FAILED if status.running else NOT_RUNNING


def _running(where: Address, seen: Snapshot) -> Status:
    return Status(
        running=True,
        answers=True,
        name=seen.daemon.name,
        socket=where.socket,
        pid=seen.daemon.pid,
        version=seen.daemon.version,
        uptime_s=seen.daemon.uptime_s,
        workers=len(seen.workers),
        streams=len(seen.streams),
        shards=tuple(stream.shard_text for stream in seen.streams if stream.shard),
        shared=tuple(
            SharedReader(
                share=one.share, client_pid=one.client_pid, lag=one.lag, detached=one.detached
            )
            for one in seen.streams
            if one.share
        ),
        trouble=seen.daemon.trouble,
    )


def _line(status: Status) -> str:
    trouble = f"; TROUBLE: {status.trouble}" if status.trouble else ""
    return (
        f'loaderd "{status.name}" is running: pid {status.pid}, '
        f"up {formatting.duration(status.uptime_s or 0)}, "
        f"{formatting.count(status.workers or 0, 'worker')}, "
        f"{formatting.count(status.streams or 0, 'stream')}, socket {status.socket}, "
        f"version {status.version}{trouble}"
    )
