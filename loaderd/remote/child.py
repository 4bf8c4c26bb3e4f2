"""The worker process on another machine: tells what its bytes depend on, and is then like any."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import socket
import sys

from loaderd.child import init
from loaderd.forkserver import entries
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Fingerprint
from loaderd.remote import fingerprint

PROGRAM = "from loaderd.remote.child import main; main()"


def main() -> None:
    """Runs a worker: ``loaderd-remote SOCKET_FD SETTINGS_FD PARENT_PID``."""
    control, known, parent = map(int, sys.argv[2:])
    init.die_with_parent(parent)
    with mmap.mmap(known, 0, access=mmap.ACCESS_READ) as pickled:
        settings = pickle.loads(pickled)
    os.close(known)
    sock = socket.socket(fileno=control)
    with contextlib.suppress(Closed):  # noticed again when it is read
        Channel(sock).send(Fingerprint(fingerprint.take()))
    entries.work(sock, settings)
