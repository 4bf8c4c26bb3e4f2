"""The entries of the supervisor's children, and what each does first.

The supervisor names these functions without loading what they run: only the forkserver
and its children load decoders.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket

from loaderd.config import Settings

PRELOAD = ("loaderd.daemon.lifeline", "loaderd.daemon.worker", "loaderd.daemon.opener")
"""What the forkserver imports before its first child, in this order."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

MOST_DESCRIPTORS = 8192
"""Of a worker: some for each stream, and what the user's code may need."""


def die_with_parent() -> None:
    """Lets the kernel kill this process when its parent ends, however that ends."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def settle() -> None:
    """What every child does first: it lives no longer than its parent, and may do less.

    The parent is the forkserver, which dies with the supervisor; so a child that hangs in
    a decoder dies too, whatever killed the supervisor. Ctrl-C is left to the supervisor.
    Children read files that others have made: they can gain no privileges, leave no
    picture of their memory behind, and are the first to go when memory is short.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NOFILE, MOST_DESCRIPTORS)
    _be_first_to_die()


def _data_bytes() -> int:
    """What this process has taken of RLIMIT_DATA so far: the libraries reserve a lot."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmData"].split()[0]) * 1024


def limit(what: int, most: int) -> None:
    """Lowers a limit of this process; one that is lower already stays."""
    soft, hard = resource.getrlimit(what)
    known = [value for value in (soft, hard, most) if value != resource.RLIM_INFINITY]
    resource.setrlimit(what, (min(known), min(known)))


def _be_first_to_die() -> None:
    """Before the supervisor, whose end is everybody's, and before the trainer."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def work(sock: socket.socket, settings: Settings) -> None:
    """A worker process. The accelerator is the trainer's, whatever the user's code loads."""
    settle()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from loaderd.daemon import worker

    limit(resource.RLIMIT_DATA, _data_bytes() + settings.worker_memory)
    worker.main(sock, settings)


def open_datasets(sock: socket.socket, settings: Settings) -> None:
    """An opener process."""
    settle()
    from loaderd.daemon import opener

    opener.main(sock, settings)
