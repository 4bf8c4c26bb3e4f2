"""The actor that runs a worker on another machine, and hands over what that has rendered.

::

    gateway ── attach, render, tell, pulse ──► WorkerHost ── Attach, Chunk, ... ──► worker
       ▲                                        │  │  ▲                             │
       └──── what was said, and rows ◄──────────┘  └──┼── maps ◄── two slots ◄──────┤ writes rows
                                                      └──── Attached, Done, ... ◄───┘

The worker is the same as on the daemon's machine, in a process of its own: if it crashes, the actor
lives on to say how, and answers while the worker takes long. Nothing of Ray is used here but that
it calls the methods, several at a time. Calls that must reach the worker in their order carry a
number.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.config import Settings
from loaderd.errors import ProtocolError
from loaderd.ipc import channel, descriptors, messages, segment
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    Attach,
    Attached,
    Bad,
    BatchFailed,
    Chunk,
    Declined,
    Detach,
    Done,
    Ended,
    Message,
    Progress,
    Waiting,
    WorkerReady,
)
from loaderd.ipc.slot_layout import SlotArrays, rows_of, slot_layout, view_slot
from loaderd.ipc.text import readable
from loaderd.launch import interpreter
from loaderd.remote import child
from loaderd.remote.packing import Packer
from loaderd.spec import spec

SLOTS = 2
"""Of a stream's ring here: one is written while the rows of the other are handed over."""

Rows = list[tuple[NDArray[Any], float | None]]
"""Rows of the arrays of a slot, packed: see :mod:`loaderd.remote.packing`."""
Said = list[bytes]
"""Encoded messages of the worker, in their order."""

Landmarks = list[tuple[bytes, int]]
"""Paths and sizes in bytes of some files of a dataset: whoever sees the same can read it."""


_ANSWERS = (WorkerReady, Attached, Done, BatchFailed, Ended)


class Place(NamedTuple):
    """Where an actor runs: the machine's name, and the node's identity in the cluster."""

    host: str
    node: str


class Answer(NamedTuple):
    """What became of a chunk.

    Attributes:
        said: messages up to its end, or the worker's.
        bad: the images among them that could not be read, and their sizes here.
        rows: of all arrays of the slot, packed; none if the chunk was not made.
    """

    said: Said
    bad: Landmarks
    rows: Rows


class WorkerHost:
    """One worker of the machine that this runs on.

    Args:
        settings: the daemon's.
        node: gives the node's identity; called once.
    """

    def __init__(self, settings: Settings, node: Callable[[], str]) -> None:
        ours, theirs = channel.pair()
        with theirs:
            self._channel = Channel(ours)
            self._process = _start(theirs, settings)
        self._place = Place(socket.gethostname(), node())
        self._changed = threading.Condition()
        self._said: list[Message] = []
        self._progress: Progress | None = None
        self._news: list[Message] = []
        self._next = 0
        self._chunks = 0
        self._slots: dict[int, tuple[list[SlotArrays], Packer]] = {}
        threading.Thread(target=self._listen, name="listen", daemon=True).start()

    # -- called by the gateway ---------------------------------------------------------

    def join(self) -> tuple[Place, Said]:
        """Where this is, and what the worker says until it is ready or has ended."""
        return self._place, _encoded(self._answer(lambda said: isinstance(said, WorkerReady)))

    def attach(
        self, order: int, attach: bytes, landmarks: Landmarks, *parts: NDArray[np.uint8]
    ) -> Said:
        """Gives the worker a stream, unless its files are not to be read here.

        Args:
            order: the number of this call among those that reach the worker in their order.
            attach: the message, of a stream without a cache.
            landmarks: files that must be there.
            parts: manifest and bundles.
        """
        asked = _decoded(attach, Attach)
        with self._turn(order):
            trouble = missing(landmarks)
            if trouble:
                text = f"{self._place.host} does not reach the images of a stream: {trouble}"
                return _encoded([Declined(asked.stream, text)])
            nbytes = self._make_slots(asked)
            fds = [self._ring, *(segment.publish(part.data) for part in parts)]
            self._send(msgspec.structs.replace(asked, slots=SLOTS, ring_bytes=nbytes), fds)
        return _encoded(self._answer(lambda said: isinstance(said, Attached)))

    def render(self, order: int, chunk: bytes) -> Answer:
        """Has the worker write a chunk, and waits for it."""
        asked = _decoded(chunk, Chunk)
        with self._turn(order):
            found = self._slots.get(asked.stream)
            if found is None:  # it was declined, which is on its way
                return Answer([], [], [])
            slot, self._chunks = self._chunks % SLOTS, self._chunks + 1
            self._send(msgspec.structs.replace(asked, slot=slot))
        said = self._answer(lambda one: getattr(one, "ticket", None) == asked.ticket)
        bad = [(one.path, size_of(one.path)) for one in said if isinstance(one, Bad)]
        slots, packer = found
        written = rows_of(slots[slot], asked.first, asked.last)
        rows = map(packer.pack, written) if isinstance(said[-1], Done) else ()
        return Answer(_encoded(said), bad, list(rows))

    def tell(self, order: int, message: bytes) -> None:
        """Passes another message on."""
        known = messages.decode(message)
        with self._turn(order):
            if isinstance(known, Detach):
                self._slots.pop(known.stream, None)
            self._send(known)

    def pulse(self) -> Said:
        """What the worker has said within its chunk since the last call, and its end."""
        with self._changed:
            news, self._news = self._news, []
            ended = [one for one in self._said[-1:] if isinstance(one, Ended)]
            return _encoded([*news, *ended])

    def signal(self, number: int) -> None:
        """Sends the worker a signal."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    # -- the worker --------------------------------------------------------------------

    def _listen(self) -> None:
        """Runs in a thread of its own until the worker has ended."""
        try:
            while True:
                message = self._channel.receive()
                with self._changed:
                    self._note(message)
        except (Closed, ProtocolError):
            self._process.kill()
        code = self._process.wait()
        with self._changed:
            if self._progress is not None:  # says which sample was in hand
                self._said.append(self._progress)
            self._note(Ended(0, code))

    def _note(self, message: Message) -> None:
        match message:
            case Progress():
                self._progress = message
                self._news = [message]
            case Waiting():
                self._news = [one for one in self._news if isinstance(one, Progress)]
                self._news.append(message)
            case _:
                if isinstance(message, _ANSWERS):
                    self._progress, self._news = None, []
                self._said.append(message)
        self._changed.notify_all()

    @contextlib.contextmanager
    def _turn(self, order: int) -> Iterator[None]:
        """Waits until all calls before this one have sent what they send."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == order)
            try:
                yield
            finally:
                self._next += 1
                self._changed.notify_all()

    def _make_slots(self, asked: Attach) -> int:
        """Makes the ring of a stream; returns its number of bytes."""
        known = spec.decode(asked.spec)
        layout = slot_layout(known, asked.classes)
        nbytes = SLOTS * layout.nbytes
        self._ring = _reserved(nbytes)
        memory = memoryview(segment.attach(os.dup(self._ring), nbytes, writable=False))
        slots = [view_slot(memory, layout, slot) for slot in range(SLOTS)]
        self._slots[asked.stream] = slots, Packer(known)
        return nbytes

    def _send(self, message: Message, fds: Sequence[int] = ()) -> None:
        try:
            with contextlib.suppress(Closed):  # whoever waits for an answer is told
                self._channel.send(message, fds)
        finally:
            descriptors.close_all(fds)

    def _answer(self, is_meant: Callable[[Any], bool]) -> list[Message]:
        """What was said up to the answer that is meant, or up to the worker's end.

        Answers come in the order of what was sent: this waits until those before are taken.
        """

        def length() -> int:
            for at, said in enumerate(self._said, 1):
                if isinstance(said, Ended) or (isinstance(said, _ANSWERS) and is_meant(said)):
                    return at
                if isinstance(said, _ANSWERS):
                    return 0
            return 0

        with self._changed:
            self._changed.wait_for(length)
            count = length()
            taken, self._said = self._said[:count], self._said[count:]
            if isinstance(taken[-1], Ended):  # whoever asks later is told too
                self._said.append(taken[-1])
            self._changed.notify_all()
        return taken


def missing(landmarks: Landmarks) -> str:
    """Why a dataset cannot be read here; empty if it can."""
    for path, size in landmarks:
        try:
            found = os.stat(path).st_size
        except OSError as error:
            return f"{readable(path)}: {error.strerror}"
        if found != size:
            return f"{readable(path)} has {found:,} bytes, and {size:,} where the daemon runs"
    return ""


def size_of(path: bytes) -> int:
    """Of a file, in bytes; -1 if it is not to be read here."""
    try:
        return os.stat(path).st_size if os.access(path, os.R_OK) else -1
    except OSError:
        return -1


def _encoded(said: Sequence[Message]) -> Said:
    return [messages.encode(message) for message in said]


def _decoded(data: bytes, kind: type[Any]) -> Any:
    message = messages.decode(data)
    if not isinstance(message, kind):
        raise ProtocolError(f"a worker's host was sent {type(message).__name__}")
    return message


def _reserved(nbytes: int) -> int:
    fd = os.memfd_create("loaderd-ring")
    try:
        segment.reserve(fd, nbytes)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _start(sock: socket.socket, settings: Settings) -> subprocess.Popen[bytes]:
    """The worker process; it finds the modules that this one finds."""
    known = segment.publish(pickle.dumps(settings))
    fds = sock.fileno(), known
    path = [entry for entry in sys.path if os.path.isabs(entry)]
    try:
        return subprocess.Popen(
            [*interpreter.command(), "loaderd-remote", *map(str, fds), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            env=interpreter.environment(path, child.PROGRAM),
        )
    finally:
        os.close(known)
