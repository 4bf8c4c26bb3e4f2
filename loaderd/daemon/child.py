"""The entries of the supervisor's children, and what each does first.

The supervisor names these functions without loading what they run: only the forkserver
and its children load decoders.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket

from loaderd.config import Settings

PRELOAD = ("loaderd.daemon.lifeline", "loaderd.daemon.worker", "loaderd.daemon.opener")
"""What the forkserver imports before its first child, in this order."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Lets the kernel kill this process when its parent ends, however that ends."""
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        raise SystemExit


def settle() -> None:
    """Ties the life of this process to its parent's, and leaves Ctrl-C to the supervisor.

    The parent is the forkserver, which dies with the supervisor; so a child that hangs in
    a decoder dies too, whatever killed the supervisor.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def work(sock: socket.socket) -> None:
    """A worker process. The accelerator is the trainer's, whatever the user's code loads."""
    settle()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from loaderd.daemon import worker

    worker.main(sock)


def open_dataset(sock: socket.socket, spec_json: bytes, settings: Settings) -> None:
    """An opener process."""
    settle()
    from loaderd.daemon import opener

    opener.main(sock, spec_json, settings)
