"""The entries of the supervisor's children.

The supervisor names these functions without loading what they run: only the fork server
and its children load decoders.
"""

from __future__ import annotations

import os
import resource
import socket

from loaderd import memory
from loaderd.child import init
from loaderd.config import Settings


def work(sock: socket.socket, settings: Settings) -> None:
    """A worker process. The accelerator is the trainer's, whatever the user's code loads."""
    init.init_child()
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    from loaderd.worker import loop

    if settings.nice:
        os.nice(settings.nice)  # added to what the daemon has
    init.limit(resource.RLIMIT_DATA, memory.taken() + settings.worker_memory)
    loop.main(sock, settings)


def open_datasets(sock: socket.socket, settings: Settings) -> None:
    """An opener process."""
    init.init_child()
    from loaderd.opener import opener

    opener.main(sock, settings)
