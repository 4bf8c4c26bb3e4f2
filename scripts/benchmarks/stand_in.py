"""A daemon whose workers render nothing: each answers a chunk at once.

Supervisor, scheduler, processes, sockets and messages are the real ones. A worker here
says of every chunk that its rows took what they were told to take, so that the scheduler
cuts chunks of the size that rows of that cost get.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time

from loaderd import config
from loaderd.child import init
from loaderd.config import Settings
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Chunk, Done, WorkerReady


def answer(row_us: int, pace_ms: int, sock: socket.socket, settings: Settings) -> None:
    """A worker that writes nothing.

    Args:
        row_us: microseconds that it says a row took.
        pace_ms: milliseconds for which it sleeps over a chunk.
        sock: its end of the supervisor's socket.
        settings: the daemon's.
    """
    del settings
    init.init_child()
    line = Channel(sock)
    try:
        line.send(WorkerReady(os.getpid()))
        while True:
            _answer_one(line, row_us, pace_ms)
    except Closed:
        return


def _answer_one(line: Channel, row_us: int, pace_ms: int) -> None:
    message, fds = line.receive_with_fds()
    for fd in fds:
        os.close(fd)
    if not isinstance(message, Chunk):
        return
    if pace_ms:
        time.sleep(pace_ms / 1e3)
    rows = message.last - message.first
    line.send(Done(message.ticket, rows, rows * row_us * 1000, 0, 0, 0, 0))


def main() -> None:
    """Serves until it is stopped: ``SOCKET WORKERS ROW_US PACE_MS READY_FD``."""
    from loaderd.supervisor import supervisor  # late: the workers import this module too

    path, workers, owner = sys.argv[1], sys.argv[2], str(os.getppid())
    row_us, pace_ms, ready = map(int, sys.argv[3:])
    settings = config.load({"socket": path, "workers": workers, "owner": owner}, {})
    work = functools.partial(answer, row_us, pace_ms)
    supervisor.serve(settings, lambda: os.close(ready), work)


if __name__ == "__main__":
    # Workers unpickle their entry by its module's name, which must not be __main__.
    from scripts.benchmarks import stand_in

    stand_in.main()
