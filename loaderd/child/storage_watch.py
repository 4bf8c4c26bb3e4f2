"""A thread that reports storage which does not answer, as the main thread then cannot.

::

    main thread   ── ask(path) ──► note ◄── looks ── watch ── Waiting ──► supervisor
       └ in a system call

It looks about once a second while there is work, and rests otherwise. Both threads send on one
socket: each message is one packet, and the kernel keeps packets whole.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from time import perf_counter_ns, sleep

from loaderd import storage
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Message, Waiting

_STACK_BYTES = 2**18
"""Of the thread: it counts towards what a worker may take."""


class StorageWatch:
    """Watches what this process asks storage for.

    Args:
        channel: the socket to the supervisor.
        silence_s: seconds after which a wait is reported.
    """

    def __init__(self, channel: Channel, silence_s: float) -> None:
        self._channel = channel
        self._silence_s = silence_s
        self._working = False
        self._resting = False
        self._wake = threading.Event()
        self._told = False

    def start(self) -> None:
        """Starts the thread, once. Signals stay the main thread's."""
        stack = threading.stack_size(_STACK_BYTES)
        signals = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            threading.Thread(target=self._run, name="storage-watch", daemon=True).start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, signals)
            threading.stack_size(stack)

    def begin(self) -> None:
        """To be called when the main thread begins something that may ask storage."""
        self._working = True
        if self._resting:
            self._wake.set()

    def end(self) -> None:
        """To be called when the main thread waits for the next message."""
        self._working = False

    def serve(self, handle: Callable[[Message, list[int]], None]) -> None:
        """Hands over what the supervisor sends, and its descriptors, until its socket closes."""
        try:
            while True:
                message, fds = self._channel.receive_with_fds()
                self.begin()
                handle(message, fds)
                self.end()
        except Closed:
            return

    def _run(self) -> None:
        try:
            while True:
                self._rest()
                sleep(self._silence_s)
                self._look()
        except Closed:
            return  # the supervisor is gone, and this process is about to be

    def _rest(self) -> None:
        """Waits until there is work."""
        self._resting = True  # first: ``begin`` wakes us from now on
        if not self._working and not self._told:
            self._wake.wait()
        self._resting = False
        self._wake.clear()

    def _look(self) -> None:
        """Reports a wait that lasts too long, and its end."""
        asked = storage.asked()
        waited_s = (perf_counter_ns() - asked[1]) / 1e9 if asked else 0.0
        if asked and waited_s >= self._silence_s:
            self._told = True
            self._channel.send(Waiting(os.fsencode(asked[0]), waited_s))
        elif self._told:
            self._told = False
            self._channel.send(Waiting())
