"""One epoch of a stream, of which nobody wants to see the pixels.

::

    daemon ── Ready(slot) or Spoilt(slot) ──► what became of the batch
       ▲                                          │
       └────────────── Took(released) ◄───────────┘

The ring is never mapped: a slot goes back as soon as its batch is there.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from loaderd.cli import console
from loaderd.errors import DaemonGone, ProtocolError, from_wire
from loaderd.ipc import descriptors
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import Message, Open, Opened, Ready, Refused, Spoilt, Stalled, Took
from loaderd.ipc.prefetch import WHOLE
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec import spec
from loaderd.spec.spec import Spec

_SLOTS = 128
"""So many batches are on their way at once: none of many workers waits for another."""


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        samples: it should have had so many.
        skipped: so many of them are bad images.
        trouble: why there is no batch, though nobody knows of a bad image; empty if there is.
    """

    samples: int
    skipped: int
    trouble: str


class Epoch:
    """The first epoch of a stream, batch by batch in the order in which they are made.

    Args:
        line: the connection that the stream hangs on.
        opened: what was given.

    Attributes:
        samples: images of the dataset.
        batches: batches of an epoch.
    """

    def __init__(self, line: Channel, opened: Opened) -> None:
        self._layout = EpochLayout(opened.samples, opened.batch_size)
        self.samples, self.batches = self._layout.samples, self._layout.batches
        self._line = line
        self._taken = 0

    def __iter__(self) -> Iterator[Outcome]:
        """Takes every batch once.

        Raises:
            DaemonGone: the daemon went away.
            LoaderdError: the daemon ended the stream; the error is its own.
        """
        left = set(range(self.batches))
        while left:
            outcome, position = self._next()
            if position in left:  # the run goes on into the next epoch
                left.remove(position)
                yield outcome

    def _next(self) -> tuple[Outcome, int]:
        with _told():
            match _told_of_stalls(self._line)[0]:
                case Ready(slot, epoch, position, _, skipped):
                    outcome = Outcome(self._layout.rows(position), skipped, "")
                case Spoilt(_, trouble, slot, epoch, position):
                    outcome = Outcome(self._layout.rows(position), 0, trouble)
                case other:
                    raise _unexpected(other)
            self._give_back(slot)
        return outcome, -1 if epoch else position

    def _give_back(self, slot: int) -> None:
        self._taken += 1
        samples = self._taken * self._layout.batch_size  # for loaderd-stat, which may be watching
        with contextlib.suppress(Closed):  # it may have said why: that is what comes next
            self._line.send(Took((slot,), (slot,), self._taken, samples, 0))


@contextlib.contextmanager
def opened(line: Channel, asked: Spec) -> Iterator[Epoch]:
    """An epoch of a stream of its own, which is open meanwhile.

    Args:
        line: a connection that has said hello; it is closed at the end.
        asked: the stream.

    Raises:
        LoaderdError: the daemon does not open the stream; the error is its own.
    """
    try:
        line.settimeout(None)  # listing a large directory takes its time
        yield Epoch(line, _open(line, asked))
    finally:
        line.close()


def _open(line: Channel, asked: Spec) -> Opened:
    with _told():
        _ask(line, spec.encode(asked))
        answer, fds = _told_of_stalls(line)
    descriptors.close_all(fds)
    if not isinstance(answer, Opened):
        raise _unexpected(answer)
    return answer


def _ask(line: Channel, data: bytes) -> None:
    fd = os.memfd_create("loaderd-spec")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        line.send(Open(len(data), (), _SLOTS, WHOLE), [fd])
    finally:
        os.close(fd)


def _told_of_stalls(line: Channel) -> tuple[Message, list[int]]:
    """The next message; that storage does not answer is told to people."""
    while True:
        message, fds = line.receive_with_fds()
        if not isinstance(message, Stalled):
            return message, fds
        descriptors.close_all(fds)
        console.tell(f"loaderd: {message.text}")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """The end of the connection as the error that it is."""
    try:
        yield
    except Closed as error:
        raise DaemonGone("the daemon went away, and its log says why") from error


def _unexpected(message: Message) -> Exception:
    if isinstance(message, Refused):
        return from_wire(message.kind, message.text)
    return ProtocolError(f"the daemon sent {type(message).__name__}")
