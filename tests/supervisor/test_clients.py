"""The connections of clients: who is let in, and what becomes of one that misbehaves."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from loaderd.errors import InvalidArgument, ProtocolError
from loaderd.ipc import channel
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    PROTOCOL,
    Ack,
    Confirm,
    Confirmed,
    Hello,
    Message,
    Plan,
    Refused,
    Welcome,
)
from loaderd.supervisor.clients import (
    HELLO_SECONDS,
    MAX_CLIENTS,
    MAX_OF_ONE_PROCESS,
    ClientConnection,
    Clients,
    Requests,
)
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.loop import Loop

HELLO = Hello(PROTOCOL, "1", 1)


class Other(NamedTuple):
    """A client that is in already: its process, and which of its connections it is."""

    pid: int
    number: int = 0


class Supervisor:
    """What clients ask of a supervisor, noted instead of done."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.error: Exception | None = None

    def _note(self, what: str, message: Any) -> None:
        self.asked.append((what, message))
        if self.error is not None:
            raise self.error

    @property
    def gone(self) -> list[ClientConnection]:
        return [client for what, client in self.asked if what == "gone"]

    @property
    def requests(self) -> Requests:
        return cast(
            Requests,
            SimpleNamespace(
                took=lambda client, took: self._note("took", took),
                plan=lambda client, plan: self._note("plan", plan),
                gone=lambda client: self.asked.append(("gone", client)),
            ),
        )


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def connected(loop: Loop, supervisor: Supervisor) -> tuple[ClientConnection, Channel]:
    """A connection on a loop, and the client's end of it."""
    ours, theirs = channel.pair()
    ours.setblocking(False)
    client = ClientConnection(Channel(ours), supervisor.requests)
    loop.watch_channel(client.channel, client.read)
    other = Channel(theirs)
    other.settimeout(0)
    return client, other


def heard(other: Channel) -> list[Message]:
    """All that the client was sent."""
    messages: list[Message] = []
    with contextlib.suppress(BlockingIOError, Closed):
        while True:
            messages.append(other.receive())
    return messages


# ---- who is let in -------------------------------------------------------------------


def knock(loop: Loop, runtime: str, known: list[Any]) -> tuple[Clients, Channel]:
    """The clients after one more has connected, and that one's end."""
    path = os.path.join(runtime, "x.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        other = channel.connect(path)
        listener = cast(Listener, SimpleNamespace(accept=lambda: listening.accept()[0]))
        clients = Clients(loop, listener, Supervisor().requests)
        clients.all.update(known)
        clients.accept()
    os.unlink(path)
    other.settimeout(0)
    return clients, other


def test_another_user_is_refused(monkeypatch: pytest.MonkeyPatch, loop: Loop, runtime: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    clients, other = knock(loop, runtime, [])
    assert not clients.all
    with pytest.raises(Closed):
        other.receive()


def test_all_processes_together_do_not_take_all_connections(loop: Loop, runtime: str) -> None:
    others = [Other(-pid) for pid in range(1, MAX_CLIENTS + 1)]
    clients, other = knock(loop, runtime, others)
    assert len(clients.all) == MAX_CLIENTS
    (answer,) = heard(other)
    assert isinstance(answer, Refused)
    assert f"{MAX_CLIENTS} connections" in answer.text
    clients, other = knock(loop, runtime, others[1:])
    assert len(clients.all) == MAX_CLIENTS
    assert not heard(other)


def test_one_process_does_not_take_all_connections(loop: Loop, runtime: str) -> None:
    ours = [Other(os.getpid(), number) for number in range(MAX_OF_ONE_PROCESS)]
    clients, other = knock(loop, runtime, ours)
    assert len(clients.all) == MAX_OF_ONE_PROCESS
    (answer,) = heard(other)
    assert isinstance(answer, Refused)
    assert f"process {os.getpid()} has {MAX_OF_ONE_PROCESS} connections" in answer.text


def test_the_owner_hands_over_sockets_and_nothing_else(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    clients = Clients(loop, cast(Listener, None), Supervisor().requests)
    ours, theirs = channel.pair()
    other = Channel(theirs)
    clients.adopt(ours.detach())
    other.send(HELLO)
    loop.turn(0)
    assert isinstance(other.receive(), Welcome)
    no_socket = os.memfd_create("x")
    with caplog.at_level(logging.ERROR, "loaderd"):
        clients.adopt(no_socket)
    assert "no socket" in caplog.text
    assert len(clients.all) == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(no_socket)
    other.close()


def test_a_lack_of_descriptors_lets_clients_wait() -> None:
    paused: list[bool] = []

    def no_descriptor() -> socket.socket:
        raise OSError(24, "Too many open files")

    listener = SimpleNamespace(accept=no_descriptor, pause=lambda: paused.append(True))
    clients = Clients(cast(Loop, None), cast(Listener, listener), Supervisor().requests)
    clients.accept()
    assert paused == [True]
    assert not clients.all


# ---- what one may say ----------------------------------------------------------------


def test_hello_comes_first(loop: Loop) -> None:
    supervisor = Supervisor()
    client, other = connected(loop, supervisor)
    other.send(Confirm())
    loop.turn(0)
    (answer,) = heard(other)
    assert isinstance(answer, Refused)
    assert "Confirm before Hello" in answer.text
    assert supervisor.gone == [client]


def test_who_has_no_stream_may_not_read_one(loop: Loop) -> None:
    supervisor = Supervisor()
    _, other = connected(loop, supervisor)
    for message in (HELLO, Ack((), (), 0, 0, 0)):
        other.send(message)
        loop.turn(0)
    assert [what for what, _ in supervisor.asked] == ["gone"]


def test_what_the_subscriber_of_a_stream_says_reaches_the_supervisor(loop: Loop) -> None:
    supervisor = Supervisor()
    client, other = connected(loop, supervisor)
    client.subscriber = 7
    said: list[Message] = [Ack((1,), (), 1, 4, 0), Plan(((0, 1),), None)]
    for message in (HELLO, *said, Confirm()):
        other.send(message)
        loop.turn(0)
    assert supervisor.asked == [("took", said[0]), ("plan", said[1])]
    assert [type(one) for one in heard(other)] == [Welcome, Confirmed]


@pytest.mark.parametrize(
    ("error", "ends"),
    [
        (InvalidArgument("not so"), False),
        (OSError(24, "Too many open files"), False),
        (ProtocolError("no such slot"), True),
        (KeyError("a fault of ours"), True),
    ],
)
def test_an_error_is_told_and_ends_the_connection_where_it_must(
    loop: Loop, error: Exception, ends: bool
) -> None:
    supervisor = Supervisor()
    client, other = connected(loop, supervisor)
    client.subscriber = 7
    other.send(HELLO)
    loop.turn(0)
    supervisor.error = error
    other.send(Ack((), (), 0, 0, 0))
    loop.turn(0)
    _, answer = heard(other)
    assert isinstance(answer, Refused)
    assert str(error.args[-1]) in answer.text
    assert supervisor.gone == [client] * ends


def test_an_error_ends_a_stream_after_what_was_sent_before(loop: Loop) -> None:
    supervisor = Supervisor()
    client, other = connected(loop, supervisor)
    client.send(Confirmed())
    client.fail(InvalidArgument("not so"))
    assert [type(one) for one in heard(other)] == [Confirmed, Refused]
    with pytest.raises(Closed):
        other.receive()
    assert supervisor.gone == [client]


def test_one_that_says_no_hello_is_dropped_in_time(loop: Loop) -> None:
    supervisor = Supervisor()
    client, other = connected(loop, supervisor)
    client.check(client.heard_at + HELLO_SECONDS - 1)
    assert not supervisor.gone
    client.check(client.heard_at + HELLO_SECONDS + 1)
    assert supervisor.gone == [client]
    assert "no Hello" in cast(Refused, heard(other)[0]).text


# ---- one that says too much, or reads too little --------------------------------------


def test_everybody_is_heard_once_a_turn_however_much_one_says(loop: Loop) -> None:
    (_, loud), (_, quiet) = connected(loop, Supervisor()), connected(loop, Supervisor())
    for _ in range(50):
        loud.send(HELLO)
    quiet.send(HELLO)
    loop.turn(0)
    assert (len(heard(loud)), len(heard(quiet))) == (1, 1)
    loop.turn(0)
    assert (len(heard(loud)), len(heard(quiet))) == (1, 0)


def test_one_that_neither_reads_nor_says_anything_is_dropped_too(loop: Loop) -> None:
    supervisor = Supervisor()
    client, other = connected(loop, supervisor)
    for _ in range(5000):
        client.send(HELLO)
    assert not supervisor.gone  # whoever sends is in the midst of it
    loop.turn(0)
    assert supervisor.gone == [client]
    other.close()


def test_what_one_said_that_was_dropped_is_not_served(loop: Loop) -> None:
    supervisor = Supervisor()
    client, other = connected(loop, supervisor)
    client.subscriber = 7
    for message in (HELLO, Ack((), (), 0, 0, 0)):
        other.send(message)
    loop.turn(0)
    for _ in range(5000):
        client.send(HELLO)
    loop.turn(0)
    assert supervisor.asked == [("gone", client)]
    other.close()
