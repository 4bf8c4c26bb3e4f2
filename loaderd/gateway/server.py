"""The gateway: a process that starts workers on other machines, and stands for them.

::

    supervisor ── Fork, Signal ──► gateway: one relay for each worker ──► actors of the cluster
        ▲                             │
        └── Connected, Ended ◄────────┘

To the supervisor it is a fork server: a worker that it is asked for is a child, whose end of a
socket comes along. It waits for the cluster as long as it takes. It runs one thread of Python.
:mod:`loaderd.supervisor.children` is the supervisor's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import pickle
import signal
import socket
import sys
import threading
from typing import NoReturn

from loaderd.child import init
from loaderd.config import Settings
from loaderd.errors import LoaderdError
from loaderd.gateway.cluster import Cluster
from loaderd.gateway.relay import Gone, Relay
from loaderd.gateway.streams import RelayedStreams
from loaderd.ipc import descriptors, messages
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Connected, Ended, Fork, Message, Signal
from loaderd.ipc.process import JOB_SIGNALS
from loaderd.remote import fingerprint

PROGRAM = "from loaderd.gateway.server import main; main()"

LEAVE_SECONDS = 3.0
"""The time that a cluster has to be left in; what is not, the cluster sees for itself."""


def main() -> NoReturn:
    """Serves until the supervisor ends: ``loaderd-ray CONTROL_FD SUPERVISOR_PID ADDRESS``."""
    control, supervisor = map(int, sys.argv[2:4])
    init.die_with_parent(supervisor)
    init.ignore(JOB_SIGNALS)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    channel = Channel(socket.socket(fileno=control))
    try:
        cluster = Cluster(sys.argv[4])
    except LoaderdError as error:
        channel.send(messages.refusal(error))
        os._exit(1)
    init.ignore(JOB_SIGNALS)  # Ray has handlers of its own
    channel.send(Connected(cluster.address))
    asyncio.run(_Gateway(channel, cluster).run())
    leaving = threading.Thread(target=cluster.leave, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    os._exit(0)


class _Gateway:
    """Starts, signals and ends relays.

    Args:
        channel: the supervisor's.
        cluster: where workers come from.
    """

    def __init__(self, channel: Channel, cluster: Cluster) -> None:
        self._channel = channel
        self._cluster = cluster
        self._streams = RelayedStreams(cluster)
        self._facts = fingerprint.take()
        self._relays: dict[int, tuple[Relay, asyncio.Task[None]]] = {}
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Serves until the supervisor has closed its end."""
        asyncio.get_running_loop().add_reader(self._channel.fileno(), self._read)
        await self._closed.wait()

    def _read(self) -> None:
        try:
            while True:
                self._handle(*self._channel.receive_with_fds(socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except Closed:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._closed.set()

    def _handle(self, message: Message, fds: list[int]) -> None:
        match message:
            case Fork(number):
                work, sock = fds
                self._start(number, _settings(work), socket.socket(fileno=sock))
                return
            case Signal(number, signal.SIGKILL) if number in self._relays:
                self._relays[number][1].cancel()
            case Signal(number, what) if number in self._relays:
                self._relays[number][0].signal(what)
        descriptors.close_all(fds)

    def _start(self, number: int, settings: Settings, sock: socket.socket) -> None:
        channel = Channel(sock)
        relay = Relay(channel, settings, self._cluster, self._streams, self._facts)
        task = asyncio.get_running_loop().create_task(relay.run())
        self._relays[number] = relay, task
        task.add_done_callback(lambda _: self._ended(number, channel))

    def _ended(self, number: int, channel: Channel) -> None:
        """Tells the end of a relay, also of one that was killed before it has begun."""
        _, task = self._relays.pop(number)
        channel.close()
        with contextlib.suppress(Closed):  # noticed again when it is read
            self._channel.send(_end_of(number, task))


def _end_of(number: int, task: asyncio.Task[None]) -> Ended:
    if task.cancelled():  # it was told to die
        return Ended(number, -signal.SIGKILL)
    error = task.exception()
    code = error.code if isinstance(error, Gone) else None
    return Ended(number, code, messages.fitting(str(error)))


def _settings(work: int) -> Settings:
    """What a worker runs with, of what a fork server would be sent."""
    with mmap.mmap(work, 0, access=mmap.ACCESS_READ) as pickled:
        _, (settings,) = pickle.loads(pickled)
    os.close(work)
    assert isinstance(settings, Settings)
    return settings
