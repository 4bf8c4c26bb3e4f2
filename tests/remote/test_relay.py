"""A relay is a worker to the supervisor, whatever becomes of the machine that it stands for.

The host of the worker runs in this process, in the place of Ray; its worker is a real one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from loaderd import config
from loaderd.gateway import relay as relays
from loaderd.gateway.cluster import Cluster
from loaderd.gateway.relay import Gone, Relay
from loaderd.gateway.streams import RelayedStreams
from loaderd.ipc import channel, manifest, messages
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import (
    Attach,
    Attached,
    Bad,
    BatchFailed,
    Chunk,
    Declined,
    Detach,
    Done,
    Message,
    Progress,
    WorkerReady,
)
from loaderd.ipc.slot_layout import slot_layout, view_slot
from loaderd.remote import fingerprint
from loaderd.remote.worker_host import SLOTS, Answer, WorkerHost
from loaderd.spec import spec as specs
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd.worker.stream_renderer import StreamRenderer
from loaderd.worker.work_queue import WorkQueue
from tests.support.daemons import DEADLINE
from tests.support.specs import stages

ROWS = 4
SETTINGS = config.load({"sample_timeout": "0.4"}, {})
FACTS = fingerprint.take()


class Machine:
    """In the place of a cluster: one host of a worker, whose calls run in threads."""

    def __init__(self) -> None:
        self.hosts: list[WorkerHost] = []
        self.refused: list[str] = []
        self.reachable = threading.Event()
        self.reachable.set()
        self.chunks = self.maximum_chunks = 0
        self._threads = ThreadPoolExecutor(16)

    def start(self, settings: config.Settings) -> WorkerHost:
        self.hosts.append(WorkerHost(settings, lambda: "node 1"))
        return self.hosts[-1]

    def call(self, host: WorkerHost, method: str, *args: object) -> asyncio.Future[Any]:
        is_chunk = method == "render"
        self.chunks += is_chunk
        self.maximum_chunks = max(self.maximum_chunks, self.chunks)

        def run() -> object:
            self.reachable.wait()
            try:
                return getattr(host, method)(*args)
            finally:
                self.chunks -= is_chunk

        return asyncio.wrap_future(self._threads.submit(run))

    def put(self, data: object) -> object:
        return data

    def refuse(self, node: str) -> None:
        self.refused.append(node)

    def kill(self, host: WorkerHost) -> None:
        host._process.kill()

    def close(self) -> None:
        self.reachable.set()
        for host in self.hosts:
            host._process.kill()
            host._process.wait()
        self._threads.shutdown()

    @property
    def worker(self) -> int:
        return self.hosts[-1]._process.pid


class Side:
    """The supervisor's: a stream of one batch of four photos, and its ring."""

    def __init__(self, folder: Path, machine: Machine, **stage: Any) -> None:
        self.machine = machine
        ours, theirs = channel.pair()
        self.channel, self._theirs = Channel(ours), theirs
        self.ended: Gone | None = None
        self.spec = Spec(
            source=Directory(directory=str(folder), extensions=(".jpg",)),
            **stages(target_size=(20, 24), rotation_range=20.0, **stage),
            batch=Batching(batch_size=ROWS, label_mode="sparse"),
            order=Order(shuffle=False, seed=1),
        )
        names = [b"cat/%03d.jpg" % number for number in range(ROWS)]
        self.table = manifest.pack(str(folder), ["cat"], names, np.zeros(ROWS, np.int32))
        self.layout = slot_layout(self.spec, 1)
        self.ring = os.memfd_create("ring")
        os.ftruncate(self.ring, 2 * self.layout.nbytes)

    async def __aenter__(self) -> Side:
        cluster = cast(Cluster, self.machine)
        streams = RelayedStreams(cluster)
        self.relay = Relay(Channel(self._theirs), SETTINGS, cluster, streams, FACTS)
        self.task = asyncio.create_task(self._run())
        return self

    async def _run(self) -> None:
        try:
            await self.relay.run()
        except Gone as gone:
            self.ended = gone

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.channel.close()
        os.close(self.ring)

    async def hear(self) -> Message:
        """The next message but heartbeats."""
        while True:
            said = await asyncio.wait_for(asyncio.to_thread(self._receive), DEADLINE)
            if not isinstance(said, Progress):
                return said

    def _receive(self) -> Message:
        self.channel.settimeout(DEADLINE)
        return self.channel.receive()

    def attach(self, stream: int = 7) -> None:
        encoded = specs.encode(specs.for_workers(self.spec))
        table = os.memfd_create("table")
        os.pwrite(table, self.table, 0)
        size = 2 * self.layout.nbytes
        attach = Attach(stream, encoded, 1, 2, size, len(self.table), (), True)
        self.channel.send(attach, [self.ring, table])
        os.close(table)

    def chunk(self, ticket: int, stream: int = 7, **where: int) -> None:
        rows = {"slot": 1, "first": 0, "last": ROWS} | where
        self.channel.send(Chunk(ticket, stream, epoch=3, position=0, **rows))

    def rows(self, slot: int = 1) -> bytes:
        memory = memoryview(os.pread(self.ring, 2 * self.layout.nbytes, 0))
        return view_slot(memory, self.layout, slot).images.tobytes()

    def expected(self) -> bytes:
        """What a worker of this machine writes."""
        ring, table = os.memfd_create("ring"), os.memfd_create("table")
        os.ftruncate(ring, self.layout.nbytes)
        copy = os.dup(ring)
        os.pwrite(table, self.table, 0)
        attach = Attach(7, b"", 1, 1, self.layout.nbytes, len(self.table), (), False)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            queue = WorkQueue(Channel(ours), {})
            renderer = StreamRenderer(attach, self.spec, [ring, table], queue, SETTINGS, {})
            renderer.write(Chunk(1, 7, 0, 3, 0, 0, ROWS))
        written = os.pread(copy, self.layout.images.nbytes, 0)
        os.close(copy)
        return written

    async def up(self) -> WorkerReady:
        ready = await self.hear()
        assert isinstance(ready, WorkerReady)
        return ready

    async def end(self) -> Gone:
        await asyncio.wait_for(asyncio.shield(self.task), DEADLINE)
        assert self.ended is not None
        return self.ended


@pytest.fixture
def machine() -> Iterator[Machine]:
    there = Machine()
    yield there
    there.close()


@pytest.fixture
def folder(photos: Path, tmp_path: Path) -> Path:
    shutil.copytree(photos / "cat", tmp_path / "cat")
    return tmp_path


Story = Callable[[Side], Awaitable[None]]


def told(folder: Path, machine: Machine, story: Story) -> None:
    async def run() -> None:
        async with Side(folder, machine) as side:
            await story(side)

    asyncio.run(run())


def test_chunks_are_written_as_by_a_worker_of_this_machine(folder: Path, machine: Machine) -> None:
    async def story(side: Side) -> None:
        ready = await side.up()
        assert (ready.pid, ready.host) == (machine.worker, socket.gethostname())
        side.attach()
        side.chunk(1, first=0, last=3)
        side.chunk(2, first=3, last=ROWS)
        assert await side.hear() == Attached(7)
        for ticket, rows in ((1, 3), (2, 1)):
            done = await side.hear()
            assert isinstance(done, Done)
            assert (done.ticket, done.rows) == (ticket, rows)
            assert done.crossed >= rows * 20 * 24 * 3 * 4
            assert done.held > 0
        assert side.rows() == side.expected()
        assert not any(side.rows(slot=0))
        side.channel.send(Detach(7))
        side.attach()
        side.chunk(3, slot=0)
        assert await side.hear() == Attached(7)
        assert isinstance(await side.hear(), Done)
        assert side.rows(slot=0) == side.expected()

    told(folder, machine, story)


def test_a_machine_has_no_more_chunks_at_once_than_slots(folder: Path, machine: Machine) -> None:
    async def story(side: Side) -> None:
        await side.up()
        side.attach()
        for ticket in range(8):  # as many as a worker has of a stream in an object store
            side.chunk(ticket, first=ticket % ROWS, last=ticket % ROWS + 1)
        assert await side.hear() == Attached(7)
        for ticket in range(8):
            done = await side.hear()
            assert isinstance(done, Done)
            assert done.ticket == ticket
        assert side.rows() == side.expected()
        assert machine.maximum_chunks == SLOTS

    told(folder, machine, story)


def test_a_machine_that_lacks_a_file_declines_the_stream(
    folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(side: Side) -> None:
        await side.up()
        there = [(os.fsencode(folder / "cat/000.jpg"), 1)]
        monkeypatch.setattr("loaderd.gateway.streams._landmarks", lambda table: there)
        side.attach()
        side.chunk(1)
        declined = await side.hear()
        assert isinstance(declined, Declined)
        assert declined.stream == 7
        assert f"does not reach the images of a stream: {folder}/cat/000.jpg has" in declined.text
        monkeypatch.undo()
        side.attach(8)
        side.chunk(2, stream=8)
        assert await side.hear() == Attached(8)  # it has outlived the answer for the first chunk
        assert isinstance(await side.hear(), Done)
        assert side.rows() == side.expected()
        assert side.ended is None

    told(folder, machine, story)


def test_an_image_that_cannot_be_read_there_alone_is_left_to_others(
    folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(side: Side) -> None:
        await side.up()
        side.attach()
        assert await side.hear() == Attached(7)
        (folder / "cat/002.jpg").write_bytes(b"no picture")
        side.chunk(1)
        declined = await side.hear()
        assert isinstance(declined, Declined)
        assert (declined.stream, declined.ticket) == (7, 1)
        assert "cannot make a chunk" in declined.text
        assert "002.jpg" in declined.text
        assert not any(side.rows())
        side.chunk(2, last=2)
        done = await side.hear()  # of the same stream
        assert isinstance(done, Done)
        assert done.ticket == 2
        assert side.ended is None

    told(folder, machine, story)


class Failing(Machine):
    """Whose worker fails as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[int, str] = {}

    def call(self, host: WorkerHost, method: str, *args: object) -> asyncio.Future[Any]:
        if method == "render":
            chunk = cast(Chunk, messages.decode(cast(bytes, args[1])))
            if chunk.ticket in self.kinds:
                failed = BatchFailed(self.kinds[chunk.ticket], "why", ticket=chunk.ticket)
                args = args[0], messages.encode(msgspec.structs.replace(chunk, last=1))
                answer = super().call(host, method, *args)
                return asyncio.ensure_future(in_place_of(answer, failed))
        return super().call(host, method, *args)


async def in_place_of(answer: asyncio.Future[Any], failed: BatchFailed) -> Answer:
    await answer
    return Answer([messages.encode(failed)], [], [])


@pytest.mark.parametrize(
    ("kind", "tickets"),
    [
        ("StorageTimeout", [1, 2, -1]),
        ("StorageRefused", [1, 2, -1]),
        ("BadImage", [1, 2, 3, 4]),
        ("RenderError", [-1]),
    ],
)
def test_a_stream_is_declined_only_by_a_machine_that_cannot_go_on_with_it(
    folder: Path, kind: str, tickets: list[int]
) -> None:
    machine = Failing()
    machine.kinds = dict.fromkeys(range(1, 5), kind)

    async def story(side: Side) -> None:
        await side.up()
        side.attach()
        assert await side.hear() == Attached(7)
        for ticket, expected in enumerate(tickets, 1):
            side.chunk(ticket)
            declined = await side.hear()
            assert isinstance(declined, Declined)
            assert declined.ticket == expected
        if tickets[-1] != -1:
            side.chunk(5)
            assert isinstance(await side.hear(), Done)
        assert side.ended is None

    try:
        told(folder, machine, story)
    finally:
        machine.close()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_how_a_worker_died_is_told(folder: Path, machine: Machine, number: signal.Signals) -> None:
    async def story(side: Side) -> None:
        await side.up()
        side.attach()
        assert await side.hear() == Attached(7)
        os.kill(machine.worker, signal.SIGSTOP)
        side.chunk(1)
        await asyncio.sleep(0)
        os.kill(machine.worker, number)
        os.kill(machine.worker, signal.SIGCONT)
        assert (await side.end()).code == -number

    told(folder, machine, story)


def test_a_machine_that_does_not_answer_is_given_up(
    folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "SILENT_SECONDS", 0.3)

    async def story(side: Side) -> None:
        await side.up()
        side.attach()
        assert await side.hear() == Attached(7)
        machine.reachable.clear()
        side.chunk(1)
        gone = await side.end()
        assert gone.code is None
        assert "has not answered for 0.3 s" in gone.trouble
        machine.reachable.set()

    told(folder, machine, story)


def test_a_machine_with_other_versions_is_refused(
    folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FACTS, "NumPy", "1.0")

    async def story(side: Side) -> None:
        gone = await side.end()
        assert "is refused, as it could render other bytes: NumPy: " in gone.trouble
        assert "1.0 here" in gone.trouble
        assert machine.refused == ["node 1"]

    told(folder, machine, story)


def test_the_end_of_the_socket_is_the_end_of_the_worker(folder: Path, machine: Machine) -> None:
    async def story(side: Side) -> None:
        await side.up()
        side.channel.shut_down()
        await side.end()
        assert machine.hosts[-1]._process.wait(DEADLINE)

    told(folder, machine, story)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_bad_image_is_one_if_the_same_file_is_here(
    folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    (folder / "cat/002.jpg").write_bytes(b"no picture")
    if not is_there:  # or is another one
        monkeypatch.setattr(relays, "size_of", lambda path: 4711)

    async def story(side: Side) -> None:
        side.spec = msgspec.structs.replace(side.spec, on_error="skip")
        await side.up()
        side.attach()
        assert await side.hear() == Attached(7)
        side.chunk(1)
        said = await side.hear()
        if is_there:
            assert isinstance(said, Bad)
            assert isinstance(await side.hear(), Done)
        else:
            assert isinstance(said, Declined)
            assert said.ticket == 1
            assert said.text.endswith(
                f"cannot make a chunk: an image cannot be read: {folder}/cat/002.jpg"
            )
            side.chunk(2, last=2)
            assert isinstance(await side.hear(), Done)

    told(folder, machine, story)


@pytest.mark.parametrize("method", ["_next", "_pulse"])
@pytest.mark.parametrize("turns", range(4))
def test_a_relay_that_is_cancelled_as_an_answer_comes_ends(method: str, turns: int) -> None:
    async def story() -> None:
        answer: asyncio.Future[list[bytes]] = asyncio.get_running_loop().create_future()
        cluster = SimpleNamespace(call=lambda *_: answer)
        ours, theirs = channel.pair()
        with ours, theirs:
            relay = Relay(Channel(ours), SETTINGS, cast(Any, cluster), cast(Any, None), FACTS)
            task = asyncio.create_task(for_ever(getattr(relay, method)))
            await asyncio.sleep(0)
            answer.set_result([])
            relay._calls.put_nowait(cast(Any, None))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            assert await asyncio.wait({task}, timeout=DEADLINE) == ({task}, set())
            assert task.cancelled()

    asyncio.run(story())


async def for_ever(ask: Callable[[], Awaitable[object]]) -> None:
    """Asks as a relay does, and then waits for what does not come."""
    await ask()
    await asyncio.get_running_loop().create_future()
