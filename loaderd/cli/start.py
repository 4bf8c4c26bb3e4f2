"""``loaderd start``: the daemon in the background."""

from __future__ import annotations

import argparse
import os
from typing import BinaryIO

from loaderd import config
from loaderd.cli import console, decoders, options, serve
from loaderd.cli.exit_codes import DONE, FAILED
from loaderd.errors import DaemonError, DaemonRunning, NoDescriptor
from loaderd.ipc import address, descriptors, dial
from loaderd.launch.launch import Launch, last_lines

DOES = "start the daemon in the background"
EXAMPLES = """\
  loaderd start
  loaderd start --workers 8 --memory 4G
  loaderd start --name gpu0        a second one; trainers find it with LOADERD_NAME=gpu0
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the verb's own options."""
    options.add_all(parser)


def run(args: argparse.Namespace) -> int:
    """Start a daemon and wait until it answers."""
    decoders.require()
    settings = config.load(options.flags(args), os.environ)
    decoders.require_ray(settings.ray)
    decoders.require_page(settings.http)
    address.make_folder(settings.socket)  # also takes others' write permission away
    _require_free(settings.socket)
    log = settings.socket.removesuffix(".sock") + ".log"
    if shortage := serve.shortage():
        console.err(f"loaderd: {shortage}")
    with _opened(log) as file:
        begin = os.fstat(file.fileno()).st_size
        launch = Launch(options.forwarded(args), file.fileno())
        process = launch.wait()
        if process is None:
            _require_free(settings.socket)  # another start was faster
            for line in last_lines(file.fileno(), begin):
                console.err(line)
            console.err(
                f'loaderd "{settings.name}" did not start: it {launch.failure}; the log is {log}'
            )
            return FAILED
    console.out(f'loaderd "{settings.name}" is up: pid {process.pid}, '
                f"socket {settings.socket}, log {log}")  # fmt: skip
    return DONE


def _opened(log: str) -> BinaryIO:
    """The log, to be read and appended to by its user alone."""
    ask = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with descriptors.needed("the log"):
            return open(log, "rb", opener=lambda path, _: os.open(path, ask, 0o600))
    except NoDescriptor:
        raise
    except OSError as error:
        raise DaemonError(f"no log file: {error}") from error


def _require_free(socket: str) -> None:
    """Fail if a daemon listens there, even one that hangs: the kernel answers, it is not asked."""
    pid = dial.listener(socket)
    if pid is not None:
        raise DaemonRunning(
            f"another daemon (pid {pid}) is running at {socket}: use it, or end it with "
            "`loaderd stop`"
        )
