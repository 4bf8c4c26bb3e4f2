"""The process that serves children: what it runs, and what it is sent for each child."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

from loaderd.ipc import channel
from loaderd.ipc.channel import Channel
from loaderd.ipc.process import JOB_SIGNALS
from loaderd.launch import interpreter, search_path


class Program(NamedTuple):
    """What a process runs that serves children.

    Attributes:
        name: in messages.
        title: its first argument.
        text: in Python.
        words: its further arguments.
    """

    name: str
    title: str
    text: str
    words: tuple[str, ...] = ()


FORKS = Program(
    "the fork server", "loaderd-forks", "from loaderd.forkserver.server import main; main()"
)


class ServerProcess:
    """One process that serves children."""

    def __init__(self, program: Program) -> None:
        ours, theirs = channel.pair()
        with theirs:
            self.channel = Channel(ours)
            self.channel.settimeout(0)
            try:
                self.process = _start(program, theirs.fileno())
            except BaseException:
                self.channel.close()
                raise

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal. It keeps its number until ``reap`` has taken note of its end.

        ``Popen.send_signal`` would take note itself.
        """
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)


def _start(program: Program, control: int) -> subprocess.Popen[bytes]:
    """The process; it finds the modules that we find."""
    # What is sent to the whole job before the fork server can ignore it waits until then.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, JOB_SIGNALS)
    try:
        return subprocess.Popen(
            [*interpreter.command(), program.title, str(control), str(os.getpid()), *program.words],
            stdin=subprocess.DEVNULL,
            pass_fds=[control],
            env=interpreter.environment(search_path.folders(), program.text),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def pickled(target: Callable[..., None], args: tuple[Any, ...]) -> int:
    """What a child runs, in memory of its own."""
    fd = os.memfd_create("loaderd-work")
    try:
        with open(fd, "wb", closefd=False) as file:
            pickle.dump((target, args), file)
    except BaseException:
        os.close(fd)
        raise
    return fd
