"""The owner of a private daemon: the trainer that started it, and with which it ends."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

from loaderd.config import Settings
from loaderd.errors import LoaderdError
from loaderd.ipc import descriptors
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Connect, Stop
from loaderd.ipc.process import Process
from loaderd.supervisor.loop import Loop

log = logging.getLogger("loaderd")


class Owner:
    """Watches the owner's process and control socket, as far as the settings name them.

    Args:
        settings: the daemon's.
        loop: waits for the control socket.
        connect: called with a descriptor, by which it or a forked child of it connects.
        stop: called when it asks the daemon to end.
        gone: called when it has ended.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        connect: Callable[[int], None],
        stop: Callable[[], None],
        gone: Callable[[], None],
    ) -> None:
        self._pid = settings.owner
        self._loop = loop
        self._connect, self._stop, self._gone = connect, stop, gone
        self._process = Process(settings.owner) if settings.owner is not None else None
        if settings.control_fd is not None:
            self._control = Channel(socket.socket(fileno=settings.control_fd))
            self._control.settimeout(0)
            loop.watch(settings.control_fd, self._read)

    def check(self) -> None:
        """Looks whether its process lives; to be called about once a second."""
        if self._process is not None and not self._process.alive:
            self._ended()

    def _read(self) -> None:
        try:
            message, fds = self._control.receive_with_fds()
        except BlockingIOError:
            return
        except Closed:  # all who had it are gone, or have executed another program
            self._loop.forget(self._control.fileno())
            self._ended()
            return
        except LoaderdError as error:
            log.error("the owner's request is lost: %s", error)
            return
        match message, fds:
            case Connect(), [fd]:
                self._connect(fd)
            case Stop(), []:
                self._stop()
            case _:
                log.error("the owner sent %s", type(message).__name__)
                descriptors.close_all(fds)

    def _ended(self) -> None:
        log.info("process %s, whose daemon this is, has ended", self._pid)
        self._gone()
