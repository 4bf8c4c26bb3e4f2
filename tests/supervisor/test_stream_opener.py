"""Streams are opened, kept, and given up for others; the openers and the clients are the test's."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from loaderd import config
from loaderd.errors import DatasetNotFound
from loaderd.ipc import channel, descriptors, manifest, segment
from loaderd.ipc.bundle import Bundle
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    IDLE_SECONDS,
    PROTOCOL,
    Ack,
    Hello,
    Indexing,
    Join,
    List,
    Listed,
    Message,
    Open,
    Opened,
    Refused,
    Reserve,
    Reserved,
    Share,
    Stalled,
    Waiting,
    Welcome,
    refusal,
)
from loaderd.ipc.prefetch import WHOLE, Run
from loaderd.spec import spec
from loaderd.spec.output import Order, Shard
from loaderd.supervisor.actions import Action, Assign
from loaderd.supervisor.children import Child, ForkServer
from loaderd.supervisor.clients import ClientConnection, Requests
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.sharing import SharedStreams, shared_name
from loaderd.supervisor.slots import State
from loaderd.supervisor.storage_waits import TOLD_SECONDS, Wait, Waits
from loaderd.supervisor.stream_opener import StreamOpener
from loaderd.supervisor.streams import OpenStream
from tests.support.daemons import eventually
from tests.support.streams import a_spec

SAMPLES = 24
SPEC = spec.encode(a_spec(Path("/photos")))
FIRST, SECOND, THIRD = (
    spec.encode(
        msgspec.structs.replace(
            a_spec(Path("/photos"), batch_size=2), order=Order(seed=11, shard=Shard(index, 3))
        )
    )
    for index in range(3)
)
TABLE = manifest.pack("/photos", ["cat"], [b"x.jpg"] * SAMPLES, np.zeros(SAMPLES, np.int32))


class FakeOpener:
    """The other end of an opener's socket."""

    def __init__(self) -> None:
        ours, theirs = channel.pair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.signals: list[int] = []
        self.child = Child(Channel(ours), self.signals.append)
        self.channel = Channel(theirs)

    def read(self) -> list[Message]:
        return heard(self.channel)


class Harness:
    """A StreamOpener that acts as its supervisor does, and notes what it is told."""

    def __init__(self, loop: Loop, **settings: Any) -> None:
        self.loop = loop
        self.openers: list[FakeOpener] = []
        self.lines: list[Channel] = []
        self.closed: list[int] = []
        self.runs: list[Run] = []
        self.scheduler = Scheduler()
        self.sharing = SharedStreams(self.scheduler, self.perform)
        self.tickets: list[int] = []
        self.settings = dataclasses.replace(config.load({}, {}), **settings)
        self.streams = StreamOpener(
            self.settings, loop, cast(ForkServer, self), self.sharing, self._begin, self._close
        )

    def spawn(self, *_: object) -> Child:
        self.openers.append(FakeOpener())
        return self.openers[-1].child

    def catch_up(self) -> None:
        """As a fork server that has nothing to tell."""

    def _begin(self, stream: OpenStream, run: Run) -> None:
        is_shared = bool(shared_name(stream.request))
        self.perform(self.scheduler.open(stream.id, stream.shape, run, is_shared=is_shared))
        self.runs.append(run)

    def perform(self, actions: Iterable[Action]) -> None:
        """Delivers nothing; notes what the one worker is to do."""
        for action in actions:
            if isinstance(action, Assign):
                self.tickets.append(action.chunk.ticket)

    def fill(self, stream: int) -> None:
        """A worker fills the ring, of which nothing is read."""
        self.scheduler.streams[stream].cursor.taken = 1
        self.perform(self.scheduler.worker_up(1))
        while self.tickets:
            self.perform(self.scheduler.done(1, self.tickets.pop(0), 1000))

    def read(self, client: ClientConnection, stream: int) -> None:
        """A client reads what is ready for it."""
        shared, number = self.sharing.of(stream), client.subscriber
        assert shared is not None
        assert number is not None
        for slot in [slot for slot, held in shared.holders.items() if number in held]:
            self.scheduler.took(stream, (slot,), (slot,), number)

    def _close(self, stream: int) -> None:
        self.scheduler.close(stream)
        self.closed.append(stream)

    def client(self) -> tuple[ClientConnection, Channel]:
        """A client that has said Hello, and its end of the connection."""
        ours, theirs = channel.pair()
        ours.setblocking(False)
        theirs.setblocking(False)
        requests = SimpleNamespace(open=self.streams.request, gone=self._gone)
        client = ClientConnection(Channel(ours), cast(Requests, requests))
        self.loop.watch_channel(client.channel, client.read)
        self.lines.append(Channel(theirs))
        self.lines[-1].send(Hello(PROTOCOL, "1", 1))
        self.loop.turn(0)
        assert isinstance(heard(self.lines[-1])[0], Welcome)
        return client, self.lines[-1]

    def _gone(self, client: ClientConnection) -> None:
        self.loop.forget(client.channel.fileno())
        self.streams.leave(client)

    def ask(
        self,
        line: Channel,
        wanted: bytes = SPEC,
        given: Bundle | None = None,
        share: Share | None = None,
    ) -> None:
        """A client asks for a stream."""
        fd = segment.publish(wanted)
        bundles = [] if given is None else [given]
        sizes = tuple(bundle.nbytes for bundle in bundles)
        fds = [fd, *(bundle.fd for bundle in bundles)]
        line.send(Open(len(wanted), sizes, 4, WHOLE, share), fds)
        os.close(fd)
        self.loop.turn(0)

    def answer(self, message: Message, *fds: int) -> None:
        """The last opener says something."""
        self.openers[-1].channel.send(message, fds)
        descriptors.close_all(fds)
        self.loop.turn(0)

    def open(self, share: Share | None = None) -> tuple[ClientConnection, Channel]:
        """A client with a stream."""
        client, line = self.client()
        self.ask(line, share=share)
        self.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
        self.answer(Reserved())
        return client, line


def heard(line: Channel) -> list[Message]:
    """All that came, without the descriptors."""
    messages: list[Message] = []
    with contextlib.suppress(BlockingIOError, Closed):
        while True:
            message, fds = line.receive_with_fds()
            descriptors.close_all(fds)
            messages.append(message)
    return messages


def open_fds() -> int:
    gc.collect()  # what earlier tests have left in cycles does not count
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as loop:
        yield loop


def test_a_stream_is_listed_sized_reserved_and_opened(loop: Loop) -> None:
    harness = Harness(loop)
    client, line = harness.client()
    harness.ask(line)
    (opener,) = harness.openers
    assert opener.read() == [List(len(SPEC), ())]
    assert list(harness.streams.pending) == [client]
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    (reserve,) = opener.read()
    assert not heard(line)
    harness.answer(Reserved())
    (opened,) = heard(line)
    assert isinstance(opened, Opened)
    assert isinstance(reserve, Reserve)
    assert (opened.samples, opened.slots, opened.ring_bytes) == (SAMPLES, 4, reserve.ring_bytes)
    subscriber = harness.streams.subscribers[opened.stream]
    assert (subscriber.client, client.subscriber) == (client, subscriber.stream.id)
    assert harness.runs == [WHOLE]
    assert not harness.streams.pending


def test_an_opener_is_kept_for_the_next_stream_and_one_only(loop: Loop) -> None:
    harness = Harness(loop)
    for _ in range(2):
        harness.open()
    assert len(harness.openers) == 1
    for _ in range(2):  # at once
        harness.ask(harness.client()[1])
    for opener in harness.openers:
        opener.channel.send(refusal(DatasetNotFound("no such folder")))
        loop.turn(0)
    assert [opener.signals for opener in harness.openers] == [[], [signal.SIGKILL]]


def test_nothing_is_left_of_a_stream_whose_client_is_gone(loop: Loop) -> None:
    harness = Harness(loop)
    harness.open()
    before = open_fds()
    client, line = harness.open()
    number = client.subscriber
    line.close()
    loop.turn(0)
    assert harness.closed == [number]
    assert number not in harness.streams.subscribers
    assert open_fds() == before


def test_an_opener_at_work_for_one_that_is_gone_is_ended(loop: Loop) -> None:
    harness = Harness(loop)
    _, line = harness.client()
    harness.ask(line)
    line.close()
    loop.turn(0)
    assert harness.openers[0].signals == [signal.SIGKILL]
    assert not harness.streams.pending
    assert not harness.closed


def test_a_second_stream_on_one_connection_ends_it(loop: Loop) -> None:
    harness = Harness(loop)
    _, line = harness.client()
    harness.ask(line)
    harness.ask(line)
    (answer,) = heard(line)
    assert isinstance(answer, Refused)
    assert "a second stream" in answer.text
    assert not harness.streams.pending


def test_another_stream_on_the_connection_of_one_takes_its_place(loop: Loop) -> None:
    harness = Harness(loop)
    client, line = harness.open()
    first = client.subscriber
    client.takes_descriptors = True  # as those have whose batches are small
    harness.ask(line)
    assert harness.closed == [first]
    assert (client.subscriber, list(harness.streams.pending)) == (None, [client])


def test_what_the_opener_refuses_reaches_the_client_and_the_opener_is_kept(loop: Loop) -> None:
    harness = Harness(loop)
    _, line = harness.client()
    harness.ask(line)
    harness.answer(refusal(DatasetNotFound("no such folder")))
    assert [(one.kind, one.text) for one in heard(line) if isinstance(one, Refused)] == [
        ("DatasetNotFound", "no such folder")
    ]
    assert not harness.streams.pending
    harness.open()
    assert len(harness.openers) == 1


def test_an_opener_that_dies_refuses_its_stream_alone(loop: Loop) -> None:
    harness = Harness(loop)
    _, line = harness.client()
    harness.ask(line)
    harness.openers[0].channel.close()
    loop.turn(0)
    (answer,) = heard(line)
    assert isinstance(answer, Refused)
    assert "the process that lists the dataset died" in answer.text
    harness.open()
    assert len(harness.streams.subscribers) == 1


def ring_bytes() -> int:
    with Loop() as loop:
        harness = Harness(loop)
        client, _ = harness.open()
        return harness.streams.subscribers[client.subscriber or 0].stream.ring_bytes


def test_an_idle_stream_gives_its_ring_to_one_that_needs_the_room(loop: Loop) -> None:
    harness = Harness(loop, memory=ring_bytes())
    idle, line = harness.open()
    number = idle.subscriber
    heard(line)
    idle.heard_at -= IDLE_SECONDS + 1
    client, _ = harness.open()
    assert [one.kind for one in heard(line) if isinstance(one, Refused)] == ["RingReclaimed"]
    assert harness.closed == [number]
    assert [one.client for one in harness.streams.subscribers.values()] == [client]


def test_one_that_was_silent_and_says_something_now_keeps_its_ring(loop: Loop) -> None:
    harness = Harness(loop, memory=ring_bytes())
    reads, line = harness.open()
    heard(line)
    other, other_line = harness.client()
    harness.ask(other_line)
    reads.heard_at -= IDLE_SECONDS + 1
    table = segment.publish(TABLE)
    harness.openers[-1].channel.send(Listed(SAMPLES, 1, len(TABLE)), [table])
    line.send(Hello(PROTOCOL, "1", 1))  # is read after the opener's answer
    os.close(table)
    loop.turn(0)
    assert [one.kind for one in heard(other_line) if isinstance(one, Refused)] == ["RoomTaken"]
    assert other.subscriber is None
    assert reads.subscriber in harness.streams.subscribers


def test_rings_that_are_on_their_way_take_room_too(loop: Loop) -> None:
    harness = Harness(loop, memory=ring_bytes())
    (_, first), (_, second) = harness.client(), harness.client()
    for line in (first, second):
        harness.ask(line)
        harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    assert not heard(first)
    assert [one.kind for one in heard(second) if isinstance(one, Refused)] == ["RoomTaken"]


def test_a_trainer_hears_of_storage_once_and_loses_its_stream_in_the_end(loop: Loop) -> None:
    harness = Harness(loop, io_timeout=60.0)
    client, line = harness.open()
    _, other = harness.open()
    heard(line)
    heard(other)
    waits = Waits()
    waits[1] = client.subscriber or 0, Wait("/nfs", 1000.0)
    for now in (1000.0 + TOLD_SECONDS, 1059.0, 1061.0):
        harness.streams.check_storage(waits, now)
    told = heard(line)
    assert [type(one) for one in told] == [Stalled, Refused]
    assert cast(Refused, told[1]).kind == "StorageTimeout"
    assert not heard(other)
    assert len(harness.streams.subscribers) == 1


def test_one_whose_listing_waits_for_storage_hears_of_it_too(loop: Loop) -> None:
    harness = Harness(loop, io_timeout=60.0)
    client, line = harness.client()
    harness.ask(line)
    harness.answer(Waiting(b"/nfs", 5.0))
    wait = harness.streams.pending[client].wait
    assert wait is not None
    harness.streams.check_storage(Waits(), wait.since + TOLD_SECONDS)
    assert [type(one) for one in heard(line)] == [Stalled]
    harness.answer(Waiting())
    harness.streams.check_storage(Waits(), wait.since + 100)
    (answers,) = heard(line)
    assert isinstance(answers, Stalled)
    assert answers.text == "storage answers again: /nfs"


def test_one_whose_archives_are_indexed_hears_how_far_that_is(loop: Loop) -> None:
    harness = Harness(loop)
    _, line = harness.client()
    harness.ask(line)
    for share in (0.25, 0.75):
        harness.answer(Indexing(share, 1, 4))
        assert heard(line) == [Indexing(share, 1, 4)]


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def asked(harness: Harness) -> list[type[Message]]:
    """What openers were told since this was asked last."""
    return [type(message) for opener in harness.openers for message in opener.read()]


def test_a_trainer_gets_what_was_listed_for_another_of_the_same_epochs(loop: Loop) -> None:
    harness = Harness(loop)
    (_, first), (_, second) = harness.client(), harness.client()
    harness.ask(first, FIRST)
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    harness.answer(Reserved())
    assert asked(harness) == [List, Reserve]
    harness.ask(second, SECOND)
    assert asked(harness) == [Reserve]
    harness.answer(Reserved())
    assert [type(one) for one in heard(second)] == [Opened]
    one, other = (each.stream for each in harness.streams.subscribers.values())
    assert inode(one.manifest) == inode(other.manifest)
    assert inode(one.ring) != inode(other.ring)


def test_trainers_that_open_at_once_wait_for_one_listing(loop: Loop) -> None:
    harness = Harness(loop)
    lines = [harness.client()[1] for _ in range(3)]
    for line, wanted in zip(lines, (FIRST, SECOND, THIRD), strict=True):
        harness.ask(line, wanted)
    (opener,) = harness.openers
    assert opener.read() == [List(len(FIRST), ())]
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    harness.answer(Reserved())
    loop.turn(0)
    for opener in harness.openers:
        if opener.read():
            opener.channel.send(Reserved())
    loop.turn(0)
    assert [[type(one) for one in heard(line)] for line in lines] == [[Opened]] * 3
    streams = [each.stream for each in harness.streams.subscribers.values()]
    assert len({inode(stream.manifest) for stream in streams}) == 1
    assert not harness.streams.pending


@pytest.mark.parametrize("how", ["is refused", "hangs up", "its opener dies"])
def test_where_that_listing_fails_the_next_trainer_has_its_own(loop: Loop, how: str) -> None:
    harness = Harness(loop)
    (_, first), (_, second), (_, third) = (harness.client() for _ in range(3))
    harness.ask(first, FIRST)
    harness.ask(second, SECOND)
    harness.ask(third, THIRD)
    match how:
        case "is refused":
            harness.answer(refusal(DatasetNotFound("no such folder")))
        case "hangs up":
            first.close()
        case "its opener dies":
            harness.openers[0].channel.close()
    loop.turn(0)
    assert [type(one) for one in harness.openers[-1].read()][-1:] == [List]
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    harness.answer(Reserved())
    assert [type(one) for one in heard(second)] == [Opened]
    assert list(harness.streams.pending) != []
    harness.answer(Reserved())
    assert [type(one) for one in heard(third)] == [Opened]


def test_one_that_leaves_while_it_waits_leaves_nothing(loop: Loop) -> None:
    harness = Harness(loop)
    _, first = harness.client()
    harness.ask(first, FIRST)
    before = open_fds()
    client, second = harness.client()
    harness.ask(second, SECOND)
    assert client in harness.streams.pending
    second.close()
    loop.turn(0)
    assert list(harness.streams.pending) != [client]
    assert len(harness.streams.pending) == 1
    del harness.lines[-1]
    eventually(lambda: open_fds() == before)


def other_seed(wanted: bytes) -> bytes:
    read = spec.decode(wanted)
    order = msgspec.structs.replace(read.order, seed=12)
    return spec.encode(msgspec.structs.replace(read, order=order))


@pytest.mark.parametrize("other", [SPEC, other_seed(SECOND)])
def test_what_differs_in_more_than_the_trainer_is_listed_for_itself(
    loop: Loop, other: bytes
) -> None:
    harness = Harness(loop)
    (_, first), (_, second) = harness.client(), harness.client()
    harness.ask(first, FIRST)
    harness.ask(second, other)
    assert asked(harness) == [List, List]


@pytest.mark.parametrize("is_same", [True, False])
def test_bundles_must_have_the_same_bytes(loop: Loop, is_same: bool) -> None:
    harness = Harness(loop)
    (_, first), (_, second) = harness.client(), harness.client()
    one, other = (Bundle({"order": np.arange(5)[::step]}) for step in (1, 1 if is_same else -1))
    harness.ask(first, FIRST, one)
    harness.ask(second, SECOND, other)
    assert asked(harness) == [List] * (1 if is_same else 2)


def test_the_cache_of_another_trainer_is_shared_as_it_was_opened(loop: Loop) -> None:
    harness = Harness(loop)
    (_, first), (_, second) = harness.client(), harness.client()
    harness.ask(first, FIRST)
    harness.answer(Listed(SAMPLES, 1, len(TABLE), ("key",), 10), segment.publish(TABLE))
    harness.answer(Reserved(True, 7), segment.publish(b"cache"), segment.publish(b"rows"))
    harness.ask(second, SECOND)
    *_, reserve = harness.openers[-1].read()
    assert isinstance(reserve, Reserve)
    assert not reserve.own
    harness.answer(Reserved())
    one, other = (each.stream for each in harness.streams.subscribers.values())
    assert list(map(inode, one.cache)) == list(map(inode, other.cache))
    assert (other.cached_rows, other.attach().cached) == (7, True)


def share(name: str = "search", join: Join = "epoch", data: bytes = b"d") -> Share:
    return Share(name, join, seeded=True, data=data)


def kinds(line: Channel) -> list[str]:
    """What a client heard: classes of messages, of errors those of the errors."""
    return [one.kind if isinstance(one, Refused) else type(one).__name__ for one in heard(line)]


def test_clients_that_ask_while_a_shared_stream_opens_join_it_when_it_is_open(loop: Loop) -> None:
    harness = Harness(loop)
    clients = [harness.client() for _ in range(3)]
    for _, line in clients:
        harness.ask(line, share=share())
    assert len(harness.openers) == 1
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    harness.answer(Reserved())
    opened = [heard(line)[0] for _, line in clients]
    assert all(isinstance(one, Opened) and one.joined for one in opened)
    assert len(harness.streams.streams) == 1
    assert len(harness.streams.subscribers) == 3


def test_another_opens_the_stream_when_the_first_who_asked_is_gone(loop: Loop) -> None:
    harness = Harness(loop)
    (_, first), (_, second) = harness.client(), harness.client()
    for line in (first, second):
        harness.ask(line, share=share())
    first.close()
    loop.turn(0)
    assert len(harness.openers) == 2
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    harness.answer(Reserved())
    assert kinds(second) == ["Opened"]


def test_nothing_is_left_of_one_that_is_gone_while_it_waited_for_a_shared_stream(
    loop: Loop,
) -> None:
    harness = Harness(loop)
    (_, first), (_, second) = harness.client(), harness.client()
    harness.ask(first, share=share())
    before = open_fds()
    harness.ask(second, share=share())
    second.close()
    loop.turn(0)
    assert open_fds() == before - 2  # both ends of its connection
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    harness.answer(Reserved())
    assert kinds(first) == ["Opened"]


def test_a_shared_stream_is_closed_with_its_last_subscriber(loop: Loop) -> None:
    harness = Harness(loop)
    _, first = harness.open(share())
    (number,) = harness.streams.streams
    _, second = harness.client()
    harness.ask(second, share=share())
    assert kinds(second) == ["Opened"]
    for line, closed in ((first, []), (second, [number])):
        line.close()
        loop.turn(0)
        assert harness.closed == closed
    assert not harness.streams.streams


def test_a_name_that_is_open_is_refused_to_another_dataset(loop: Loop) -> None:
    harness = Harness(loop)
    harness.open(share())
    _, line = harness.client()
    harness.ask(line, share=share(data=b"other"))
    assert kinds(line) == ["InvalidArgument"]


def test_one_that_is_detached_has_a_stream_of_its_own(loop: Loop) -> None:
    harness = Harness(loop)
    harness.open(share())
    harness.open(share(join="alone"))
    assert len(harness.streams.streams) == 2


def test_a_shared_stream_gives_its_ring_up_only_when_all_its_clients_are_silent(
    loop: Loop,
) -> None:
    harness = Harness(loop, memory=ring_bytes())
    first, _ = harness.open(share())
    second, line = harness.client()
    harness.ask(line, share=share())
    first.heard_at -= IDLE_SECONDS + 1
    _, other = harness.client()
    harness.ask(other)
    harness.answer(Listed(SAMPLES, 1, len(TABLE)), segment.publish(TABLE))
    assert kinds(other) == ["RoomTaken"]
    second.heard_at -= IDLE_SECONDS + 1
    heard(line)
    harness.open()
    assert kinds(line) == ["RingReclaimed"]


def test_a_trainer_for_whom_the_others_have_waited_is_told_and_a_silent_one_loses_what_is_ready(
    loop: Loop,
) -> None:
    harness = Harness(loop, share_lag=2.0)
    reads, _ = harness.open(share())
    slow, line = harness.client()
    harness.ask(line, share=share())
    heard(line)
    (stream,) = harness.streams.streams.values()
    shared = harness.sharing.of(stream.id)
    assert shared is not None
    harness.fill(stream.id)
    harness.read(reads, stream.id)
    readers = harness.streams.subscribers.of(stream.id)
    for waited_s, told in ((0, []), (1, []), (3, ["LeftBehind"])):
        readers[reads.subscriber or 0].note(Ack((), (), 4, 32, waited_s * 10**9), 0.0)
        harness.sharing.check(stream, harness.streams.subscribers, 2.0)
        assert [kind for kind in kinds(line) if kind != "Ready"] == told
    assert shared.held(slow.subscriber or 0, State.READY) == 4
    slow.heard_at -= IDLE_SECONDS + 1
    harness.sharing.check(stream, harness.streams.subscribers, 2.0)
    assert shared.held(slow.subscriber or 0, State.READY) == 0
