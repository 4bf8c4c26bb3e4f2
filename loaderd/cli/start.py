"""``loaderd start``: the daemon in the background."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator

from loaderd import config
from loaderd.cli import console, decoders, options, serve
from loaderd.cli.exit_codes import DONE, FAILED
from loaderd.config import Settings
from loaderd.errors import DaemonError, DaemonRunning, NoDescriptor
from loaderd.ipc import address, descriptors, dial
from loaderd.launch.launch import Launch, last_lines

_EXAMPLES = """\
  loaderd start
  loaderd start --workers 8 --memory 4G
  loaderd start --name gpu0        a second one; trainers find it with LOADERD_NAME=gpu0
"""


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the verb."""
    parser = options.parser_of(verbs, "start", "start the daemon in the background", _EXAMPLES)
    options.add_all(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Starts a daemon and waits until it answers."""
    decoders.require()
    settings = config.load(options.flags(args), os.environ)
    address.make_folder(settings.socket)  # also makes one that others might write safe
    _refuse_a_second(settings.socket)
    log = log_path(settings.socket)
    if shortage := serve.shortage():
        console.tell(f"loaderd: {shortage}")
    with _opened(log) as fd:
        begin = os.fstat(fd).st_size
        launch = Launch(options.forwarded(args), fd)
    if launch.wait() and launch.process is not None:
        console.say(f'loaderd "{settings.name}" is up: pid {launch.process.pid}, '
                 f"socket {settings.socket}, log {log}")  # fmt: skip
        return DONE
    _explain(settings, launch.failure, log, begin)
    return FAILED


def log_path(socket: str) -> str:
    """Where the daemon at ``socket`` logs to when it was started in the background."""
    return socket.removesuffix(".sock") + ".log"


@contextlib.contextmanager
def _opened(log: str) -> Iterator[int]:
    ask = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with descriptors.needed("the log"):
            fd = os.open(log, ask, 0o600)
    except NoDescriptor:
        raise
    except OSError as error:
        raise DaemonError(f"no log file: {error}") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _refuse_a_second(socket: str) -> None:
    """Whoever listens there may hang: it is asked nothing."""
    pid = dial.listener(socket)
    if pid is not None:
        raise DaemonRunning(
            f"another daemon (pid {pid}) is running at {socket}: use it, or end it with "
            "`loaderd stop`"
        )


def _explain(settings: Settings, failure: str, log: str, begin: int) -> None:
    _refuse_a_second(settings.socket)  # started at the same time as ours, and faster
    with open(log, "rb") as file:
        for line in last_lines(file.fileno(), begin):
            console.tell(line)
    console.tell(f'loaderd "{settings.name}" did not start: it {failure}; the log is {log}')
