"""One epoch of a stream for ``loaderd scan``: every batch is made, and no pixel is read.

::

    daemon ── Ready(slot) or BatchFailed(slot) ──► what became of the batch
       ▲                                          │
       └────────────── Ack(released) ◄───────────┘

The ring is never mapped: a slot is released as soon as its batch is ready.
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
from loaderd.ipc.messages import Ack, BatchFailed, Message, Open, Opened, Ready, Refused, Stalled
from loaderd.ipc.prefetch import WHOLE
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec import spec
from loaderd.spec.spec import Spec

_SLOTS = 128
"""Slots of the ring: enough that no worker waits for a slot."""


class Outcome(NamedTuple):
    """What became of a batch.

    Attributes:
        samples: how many it has.
        skipped: how many of them are bad images.
        trouble: why the batch could not be made; empty if it was.
    """

    samples: int
    skipped: int
    trouble: str


class Epoch:
    """The first epoch of a stream, batch by batch in the order in which they are made.

    Args:
        channel: the connection of the stream.
        opened: the daemon's answer.

    Attributes:
        samples: images of the dataset.
        batches: batches of an epoch.
    """

    def __init__(self, channel: Channel, opened: Opened) -> None:
        self._layout = EpochLayout(opened.samples, opened.batch_size)
        self.samples, self.batches = self._layout.samples, self._layout.batches
        self._channel = channel
        self._taken = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Outcome]:
        """Take every batch once.

        Raises:
            DaemonGone: the daemon went away.
            LoaderdError: the daemon ended the stream; the error is its own.
        """
        missing = set(range(self.batches))
        while missing:
            outcome, position = self._next()
            if position in missing:  # the run goes on into the next epoch
                missing.remove(position)
                yield outcome

    def _next(self) -> tuple[Outcome, int]:
        with _daemon_gone():
            match _receive(self._channel)[0]:
                case Ready(slot, epoch, position, _, skipped):
                    outcome = Outcome(self._layout.rows(position), skipped, "")
                case BatchFailed(_, trouble, slot, epoch, position):
                    outcome = Outcome(self._layout.rows(position), 0, trouble)
                case other:
                    raise _unexpected(other)
        self._taken += 1
        samples = self._taken * self._layout.batch_size  # for loaderd stat
        with contextlib.suppress(Closed):  # receiving says why
            self._channel.send(Ack((slot,), (slot,), self._taken, samples, 0))
        return outcome, -1 if epoch else position


@contextlib.contextmanager
def opened(channel: Channel, wanted: Spec) -> Iterator[Epoch]:
    """Open a stream for the time of the block.

    Args:
        channel: a connection that has said hello; it is closed at the end.
        wanted: the spec of the stream.

    Raises:
        LoaderdError: the daemon does not open the stream; the error is its own.
    """
    try:
        channel.settimeout(None)  # listing a large directory may take minutes
        with _daemon_gone():
            _ask(channel, spec.encode(wanted))
            answer, fds = _receive(channel)
        descriptors.close_all(fds)
        if not isinstance(answer, Opened):
            raise _unexpected(answer)
        yield Epoch(channel, answer)
    finally:
        channel.close()


def _ask(channel: Channel, data: bytes) -> None:
    fd = os.memfd_create("loaderd-spec")
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
        channel.send(Open(len(data), (), _SLOTS, WHOLE), [fd])
    finally:
        os.close(fd)


def _receive(channel: Channel) -> tuple[Message, list[int]]:
    """The next message; notes about storage that does not answer are printed."""
    while True:
        message, fds = channel.receive_with_fds()
        if not isinstance(message, Stalled):
            return message, fds
        descriptors.close_all(fds)
        console.err(f"loaderd: {message.text}")


@contextlib.contextmanager
def _daemon_gone() -> Iterator[None]:
    """Turn the end of the connection into DaemonGone."""
    try:
        yield
    except Closed as error:
        raise DaemonGone("the daemon went away, and its log says why") from error


def _unexpected(message: Message) -> Exception:
    if isinstance(message, Refused):
        return from_wire(message.kind, message.text)
    return ProtocolError(f"the daemon sent {type(message).__name__}")
