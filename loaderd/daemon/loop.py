"""The one place where the daemon waits: one ``select`` over all descriptors."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Self

from loaderd.wire.channel import Channel, Closed

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Callback = Callable[[], object]


class Loop:
    """Calls back what becomes readable. A context manager: it owns the selector."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()
        self._selector.close()

    def watch(self, fd: int, on_read: Callback) -> None:
        """Calls ``on_read`` whenever the descriptor is readable."""
        self._selector.register(fd, _READ, (on_read, None))

    def watch_channel(self, line: Channel, on_read: Callback) -> None:
        """The same for a channel, and sends what it could not send when it can."""
        fd, data = line.fileno(), (on_read, line)
        self._selector.register(fd, _READ, data)
        line.on_unsent = lambda: self._modify(fd, _READ | _WRITE)

    def _modify(self, fd: int, events: int) -> None:
        if fd in self._selector.get_map():
            self._selector.modify(fd, events, self._selector.get_map()[fd].data)

    def forget(self, fd: int) -> None:
        """Watches a descriptor no more; it is well if it was not watched."""
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Whether the descriptor is watched."""
        return fd in self._selector.get_map()

    def turn(self, timeout: float | None) -> None:
        """Waits at most ``timeout`` seconds (None: for ever) and calls back."""
        for key, events in self._selector.select(timeout):
            on_read, line = key.data
            if not self._still(key.fd, on_read):
                continue  # an earlier callback of this turn has closed it
            if events & _WRITE:
                self._flush(line)
            if events & _READ:
                on_read()

    def _still(self, fd: int, on_read: Callback) -> bool:
        key = self._selector.get_map().get(fd)
        return key is not None and key.data[0] is on_read

    def _flush(self, line: Channel) -> None:
        with contextlib.suppress(Closed):  # noticed again when it is read
            line.flush()
        if not line.unsent:
            self._modify(line.fileno(), _READ)

    def on_signals(self, callback: Callback) -> None:
        """Calls back once for every SIGTERM and SIGINT; the handlers only wake the loop."""
        woken, wake = socket.socketpair()
        self._cleanup.enter_context(woken)
        self._cleanup.enter_context(wake)
        woken.setblocking(False)
        wake.setblocking(False)
        for sig in (signal.SIGTERM, signal.SIGINT):
            self._cleanup.callback(signal.signal, sig, signal.signal(sig, _wake_only))
        old = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._cleanup.callback(signal.set_wakeup_fd, old)
        self.watch(woken.fileno(), lambda: _once_each(woken.recv(64), callback))


def _once_each(signals: bytes, callback: Callback) -> None:
    for _ in signals:
        callback()


def _wake_only(signum: int, frame: FrameType | None) -> None:
    """Python has written to the wakeup descriptor already."""
