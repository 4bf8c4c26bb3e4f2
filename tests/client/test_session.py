"""What a session makes of a daemon that answers with what is not so; the test is the daemon."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from loaderd import __version__
from loaderd.errors import BadArchive, EmptyDataset, LoaderdError, ProtocolError
from loaderd.ipc import descriptors, segment
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import PROTOCOL, Indexing, Message, Refused, Stalled, Welcome
from loaderd_client import Session
from tests.ipc.test_opened import GOOD, TABLE
from tests.support.daemons import DEADLINE, eventually
from tests.support.streams import a_spec


class Answer(NamedTuple):
    """What the daemon says to Open, and what it sends along: descriptors of these sizes."""

    message: Message
    sizes: tuple[int, ...]


@contextlib.contextmanager
def a_daemon(path: str, *answers: Answer) -> Iterator[None]:
    """One that greets whoever comes, and answers the first Open."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.settimeout(DEADLINE)
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            asked: list[int] = []
            while not asked:  # a session looks whether we are there, before it opens anything
                line = Channel(listener.accept()[0])
                line.receive()
                line.send(Welcome(PROTOCOL, __version__, os.getpid()))
                with contextlib.suppress(Closed):
                    asked = line.receive_with_fds()[1]
            descriptors.close_all(asked)
            for message, sizes in answers:
                fds = [_memory(size) for size in sizes]
                line.send(message, fds)
                descriptors.close_all(fds)
            line.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def _memory(size: int) -> int:
    return segment.publish(TABLE) if size == len(TABLE) else segment.create(size)


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


RING = GOOD.ring_bytes
ROOMY = msgspec.structs.replace(GOOD, ring_bytes=2 * RING)


@pytest.mark.parametrize(
    ("answers", "kind", "words"),
    [
        ([Answer(ROOMY, (RING, len(TABLE)))], ProtocolError, "a ring of"),
        ([Answer(GOOD, (RING - 4096, len(TABLE)))], ProtocolError, "sent a ring of"),
        ([Answer(GOOD, (RING, 10))], ProtocolError, "sent a manifest of 10 bytes"),
        ([Answer(GOOD, (RING,))], ProtocolError, "Opened and 1 descriptors"),
        ([Answer(GOOD, (RING, len(TABLE), 10))], ProtocolError, "Opened and 3 descriptors"),
        ([Answer(Welcome(PROTOCOL, "x", 1), (10,))], ProtocolError, "Welcome and 1 descriptors"),
        ([Answer(Refused("EmptyDataset", "no images"), (10, 10))], EmptyDataset, "no images"),
        (
            [Answer(Stalled("it waits"), (10,)), Answer(Refused("EmptyDataset", "no images"), ())],
            EmptyDataset,
            "no images",
        ),
        (
            [Answer(Indexing(0.5, 1, 2), (10,)), Answer(Refused("BadArchive", "damaged"), ())],
            BadArchive,
            "damaged",
        ),
    ],
    ids=[
        "a ring that does not fit its slots",
        "a shorter ring",
        "a shorter manifest",
        "no manifest",
        "something more",
        "another message",
        "a refusal that brings something",
        "a stall that brings something",
        "progress that brings something",
    ],
)
def test_what_a_daemon_hands_over_is_checked_and_nothing_of_it_is_kept(
    answers: list[Answer], kind: type[LoaderdError], words: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "x.sock")
    segment.prepare()
    gc.collect()  # what other tests have left
    before = open_fds()
    with a_daemon(path, *answers), Session(path) as session, pytest.raises(kind, match=words):
        session.open(a_spec(Path("/photos")), slots=4)
    eventually(lambda: open_fds() == before, 5.0)


def test_what_is_as_it_should_be_is_a_stream(tmp_path: Path) -> None:
    path = str(tmp_path / "x.sock")
    with a_daemon(path, Answer(GOOD, (RING, len(TABLE)))), Session(path) as session:
        stream = session.open(a_spec(Path("/photos")), slots=4)
        assert (stream.samples, stream.batches, stream.slots) == (20, 3, 4)
