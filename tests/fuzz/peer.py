"""A client that misbehaves: one session after the other, each made from (seed, its name)."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket
from collections import deque
from collections.abc import Iterator

from loaderd import __version__
from loaderd.ipc import messages
from loaderd.ipc.channel import LONGEST_PACKET
from loaderd.ipc.messages import (
    PROTOCOL,
    Ack,
    BatchFailed,
    Hello,
    ListBad,
    Opened,
    Plan,
    Ready,
    Refused,
)
from loaderd.ipc.prefetch import Place, Run
from tests.fuzz.frames import Descriptors, Frame, any_frame, mutate, packed, unasked

GREETING = packed(Hello(PROTOCOL, __version__, os.getpid()))
DEAF = 1800
"""Questions of a client that reads no answer."""


class Session:
    """What one connection says; what it hears goes to ``hear``.

    Args:
        seed: of all.
        name: of the session: a number; those that open a stream begin with an ``s``.
        fds: descriptors to send.
    """

    def __init__(self, seed: int, name: str, fds: Descriptors) -> None:
        self.name = name
        self.said: deque[Frame] = deque(maxlen=20)
        self.deaf = False
        self._rng = random.Random(f"{seed} {name}")
        self._fds = fds
        self._opened: Opened | None = None
        self._refused = False
        self._ready: list[int] = []
        self._leased: list[int] = []
        self._wanted = 0

    def frames(self) -> Iterator[Frame | None]:
        """What it says; None is a pause, in which it waits for an answer."""
        if self.name.startswith("s"):
            yield from self._stream()
        elif self._rng.random() < 0.001:
            yield from self._deaf()
        else:
            yield from self._rubbish()

    def hear(self, packet: bytes) -> None:
        match messages.decode(packet):
            case Opened() as opened:
                self._opened = opened
            case Refused():
                self._refused = True
            case Ready(slot=slot) | BatchFailed(slot=slot):
                self._ready.append(slot)
                self._wanted = max(0, self._wanted - 1)

    def _rubbish(self) -> Iterator[Frame]:
        if self._rng.random() < 0.1:
            yield unasked(self._rng)
        yield GREETING
        for _ in range(self._rng.randint(1, 60)):
            yield any_frame(self._rng, self._fds)

    def _deaf(self) -> Iterator[Frame]:
        self.deaf = True
        yield GREETING
        for _ in range(DEAF):
            yield packed(ListBad())

    def _stream(self) -> Iterator[Frame | None]:
        rng = self._rng
        yield GREETING
        pick = rng.random()
        if pick < 0.2:
            yield self._fds.odd_spec(rng, refused=False)
        elif pick < 0.25:
            yield self._fds.odd_files(rng)
        else:
            yield self._fds.good(rng)
        pick = rng.random()
        if pick < 0.1:
            return
        if pick < 0.2:
            yield any_frame(rng, self._fds)  # while it is being opened
        while self._opened is None:
            if self._refused:
                return
            yield None
        yield from self._histories(self._opened)

    def _histories(self, opened: Opened) -> Iterator[Frame]:
        batches = -(-opened.samples // opened.batch_size)
        for _ in range(self._rng.randint(50, 2500)):
            frame = packed(self._plan(batches) if self._rng.random() < 0.2 else self._took())
            if self._rng.random() < 0.001:
                frame = frame._replace(data=mutate(self._rng, frame.data))
            if self._rng.random() < 0.02:
                frame = frame._replace(fds=tuple(self._rng.choices(self._fds.odd, k=3)))
            yield frame

    def _plan(self, batches: int) -> Plan:
        def place() -> Place:
            return self._rng.randrange(4), self._rng.randrange(batches)

        count = self._rng.randrange(3) if self._wanted < 200 else 0
        self._wanted += count
        return Plan(tuple(place() for _ in range(count)), self._rng.choice([None, Run(place(), 1)]))

    def _took(self) -> Ack:
        count = self._rng.randint(0, len(self._ready))
        taken, self._ready = self._ready[:count], self._ready[count:]
        self._leased += taken
        self._rng.shuffle(self._leased)
        count = self._rng.randint(0, len(self._leased))
        released, self._leased = self._leased[:count], self._leased[count:]
        return Ack(tuple(taken), tuple(released), 1, 2, 3)


class Peer:
    """Sessions on connections of their own, one frame a step.

    Args:
        path: the daemon's socket.
        seed: of all sessions.
        names: of its sessions.
        fds: descriptors to send.

    Attributes:
        sent: frames that the daemon's socket took.
        session: the current one.
        opened: streams that it got.
    """

    def __init__(self, path: str, seed: int, names: Iterator[str], fds: Descriptors) -> None:
        self.sent = 0
        self.streams = 0
        self.session: Session | None = None
        self._path, self._seed, self._names, self._fds = path, seed, names, fds
        self._socket: socket.socket | None = None
        self._frames: Iterator[Frame | None] = iter(())
        self._waiting: Frame | None = None

    def step(self) -> bool:
        """Says the next thing; returns whether there will be more."""
        if self._socket is None and not self._begin():
            return False
        try:
            self._hear()
            self._say()
        except (BrokenPipeError, ConnectionError, StopIteration):
            self.close()
        return True

    def _begin(self) -> bool:
        name = next(self._names, None)
        if name is None:
            return False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.connect(self._path)
        self._socket.setblocking(False)
        self.session = Session(self._seed, name, self._fds)
        self._frames = self.session.frames()
        return True

    def _hear(self) -> None:
        assert self._socket is not None
        assert self.session is not None
        with contextlib.suppress(BlockingIOError):
            while not self.session.deaf:
                packet = self._socket.recv(LONGEST_PACKET)  # the kernel closes descriptors
                if not packet:
                    raise ConnectionError
                self.streams += packet[1:8] == b"\xa6Opened"
                self.session.hear(packet)

    def _say(self) -> None:
        assert self._socket is not None
        assert self.session is not None
        frame = self._waiting or next(self._frames)
        if frame is None:
            return
        self._waiting = frame
        with contextlib.suppress(BlockingIOError):
            socket.send_fds(self._socket, [frame.data], frame.fds)
            self.sent += 1
            self.session.said.append(frame)
            self._forget()

    def _forget(self) -> None:
        if self._waiting is not None:
            for fd in self._waiting.spent:
                os.close(fd)
            self._waiting = None

    def close(self) -> None:
        """Goes away in the midst of it."""
        self._forget()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def peers(path: str, seed: int, fds: Descriptors, one: str = "") -> list[Peer]:
    """Three that talk rubbish and one with streams; or one that says a session again."""
    if one:
        return [Peer(path, seed, iter([one]), fds)]
    numbers = map(str, itertools.count())
    streams = (f"s{number}" for number in itertools.count())
    return [*(Peer(path, seed, numbers, fds) for _ in range(3)), Peer(path, seed, streams, fds)]
