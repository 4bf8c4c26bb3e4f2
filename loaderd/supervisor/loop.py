"""The one place where the daemon waits: one ``epoll`` over all descriptors."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from collections.abc import Callable, Mapping
from types import FrameType
from typing import NamedTuple, Self

from loaderd.ipc.channel import Channel, Closed

_READ, _WRITE = select.EPOLLIN, select.EPOLLOUT

Callback = Callable[[], object]


class _Watched(NamedTuple):
    """What to call, and the channel if it is one."""

    on_read: Callback
    channel: Channel | None


class Loop:
    """Calls back what becomes readable. A context manager: it owns the epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._watched: dict[int, _Watched] = {}
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()
        self._epoll.close()

    def watch(self, fd: int, on_read: Callback) -> None:
        """Calls ``on_read`` whenever the descriptor is readable."""
        self._register(fd, _Watched(on_read, None))

    def watch_channel(self, channel: Channel, on_read: Callback) -> None:
        """The same for a channel, and sends what it could not send when it can."""
        fd = channel.fileno()
        self._register(fd, _Watched(on_read, channel))
        channel.on_unsent = lambda: self._modify(fd, _READ | _WRITE)

    def _register(self, fd: int, watched: _Watched) -> None:
        self._epoll.register(fd, _READ)
        self._watched[fd] = watched

    def _modify(self, fd: int, events: int) -> None:
        if fd in self._watched:
            self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stops watching a descriptor; does nothing if it was not watched."""
        if self._watched.pop(fd, None) is not None:
            with contextlib.suppress(OSError):  # closed already: the kernel has forgotten it
                self._epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        """Whether the descriptor is watched."""
        return fd in self._watched

    def turn(self, timeout: float | None) -> None:
        """Waits at most ``timeout`` seconds, for ever if None, and calls back what is readable."""
        # Whose event it was, before a callback closes a descriptor and another gets its number.
        ready = [(fd, events, self._watched[fd]) for fd, events in self._epoll.poll(timeout)]
        for fd, events, watched in ready:
            if self._watched.get(fd) is not watched:
                continue  # an earlier callback of this turn has closed it
            if events & _WRITE and watched.channel is not None:
                with contextlib.suppress(Closed):  # noticed again when it is read
                    watched.channel.flush()
                if not watched.channel.unsent:
                    self._modify(fd, _READ)
            if events & ~_WRITE:
                watched.on_read()

    def on_signals(self, callbacks: Mapping[int, Callback]) -> None:
        """Calls back once for every signal that comes; the handlers only wake the loop."""
        woken, wake = socket.socketpair()
        self._cleanup.enter_context(woken)
        self._cleanup.enter_context(wake)
        woken.setblocking(False)
        wake.setblocking(False)
        for sig in callbacks:
            self._cleanup.callback(signal.signal, sig, signal.signal(sig, _wake_only))
        old = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._cleanup.callback(signal.set_wakeup_fd, old)
        self.watch(woken.fileno(), lambda: _once_each(woken.recv(64), callbacks))


def _once_each(signals: bytes, callbacks: Mapping[int, Callback]) -> None:
    for number in signals:
        if number in callbacks:
            callbacks[number]()


def _wake_only(signum: int, frame: FrameType | None) -> None:
    """Python has written to the wakeup descriptor already."""
