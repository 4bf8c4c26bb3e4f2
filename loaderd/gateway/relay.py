"""A worker on another machine, as the supervisor sees it: one relay stands for one.

::

    supervisor ── Attach, Chunk, ... ──► Relay ── attach, render, tell ──► WorkerHost (an actor)
        ▲                                 │  ▲                               │
        └── Done, Bad, Progress, ... ─────┤  └──── what was said, and rows ──┘
                                          └──► rows of the slot

Chunks are passed on as they come, so that the link's latency is hidden behind the chunk in hand.
While one takes long the actor is asked for the worker's pulse. A remote worker fails no batch: what
it cannot make is made by others. It declines a chunk with an image that cannot be read there, or
whose storage has not answered, and the stream if it cannot go on with that.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import Counter
from time import perf_counter_ns
from typing import Any, NamedTuple

import msgspec

from loaderd.config import Settings
from loaderd.errors import STORAGE_ERRORS, BadImage, NoDescriptor, ProtocolError
from loaderd.gateway.cluster import Cluster
from loaderd.gateway.streams import RelayedStream, RelayedStreams
from loaderd.ipc import descriptors, messages
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    Attach,
    BatchFailed,
    Chunk,
    Declined,
    Detach,
    Done,
    Ended,
    Fingerprint,
    Message,
    Progress,
    Quarantine,
    WorkerReady,
)
from loaderd.ipc.text import readable
from loaderd.remote import fingerprint
from loaderd.remote.worker_host import SLOTS, Answer, Landmarks, Place, Said, size_of

SILENT_SECONDS = 10.0
"""An actor that does not answer for so long is given up: its machine, or the link, is gone."""

IDLE_SECONDS = 5.0
"""How often one that has nothing to do is asked whether it lives."""

PASSING = STORAGE_ERRORS | {BadImage.__name__}
"""Errors for which a worker declines a chunk, and may make the next."""

TRIES = 3
"""A worker whose storage fails for so many chunks of a stream in a row does not serve it."""

Facts = dict[str, str]


class Gone(Exception):
    """The worker will do nothing more.

    Attributes:
        code: its exit code, -N for signal N; None if it is not known.
        trouble: why, where that is known better.
    """

    def __init__(self, code: int | None, trouble: str = "") -> None:
        super().__init__(trouble)
        self.code = code
        self.trouble = trouble


class _Call(NamedTuple):
    """A stream or a chunk that is with the actor, and since when it is here (ns)."""

    message: Attach | Chunk
    answer: asyncio.Future[Any]
    came: int


class Relay:
    """Stands for one worker.

    Args:
        channel: the worker's end of its socket.
        settings: the daemon's.
        cluster: starts the actor, and calls it.
        streams: those of all relays.
        facts: the fingerprint of this machine.
    """

    def __init__(
        self,
        channel: Channel,
        settings: Settings,
        cluster: Cluster,
        streams: RelayedStreams,
        facts: Facts,
    ) -> None:
        self._channel = channel
        self._settings = settings
        self._cluster = cluster
        self._streams = streams
        self._facts = facts
        self._actor: Any = None
        self._place = Place("", "")
        self._order = 0
        self._attached: dict[int, RelayedStream] = {}
        self._declined: set[int] = set()
        self._silent: Counter[int] = Counter()  # by stream: chunks in a row without its storage
        self._inbox: asyncio.Queue[tuple[Message, list[int]] | None] = asyncio.Queue()
        self._calls: asyncio.Queue[_Call] = asyncio.Queue()
        # A worker here may have more chunks queued, but there are so many slots there.
        self._room = asyncio.Semaphore(SLOTS)
        self._delivered = 0

    async def run(self) -> None:
        """Works until the worker ends; afterwards no slot is written any more.

        Raises:
            Gone: always, unless it is cancelled.
        """
        try:
            self._actor = self._cluster.start(self._settings)
            await self._join()
            await self._serve()
        except Gone:
            raise
        except Closed:
            raise Gone(0) from None
        except Exception as error:  # any of Ray's, of which there are dozens
            raise Gone(None, f"{self._named()}: {_told(error)}") from error
        finally:
            self._end()

    def signal(self, number: int) -> None:
        """Sends the worker a signal; for SIGKILL, cancel ``run``."""
        if self._place.host:
            self._cluster.call(self._actor, "signal", number).add_done_callback(_ignore)

    async def _serve(self) -> None:
        loop, fd = asyncio.get_running_loop(), self._channel.fileno()
        loop.add_reader(fd, self._read)
        both = {loop.create_task(self._pass_on()), loop.create_task(self._deliver())}
        try:
            done, _ = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            loop.remove_reader(fd)
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)

    def _end(self) -> None:
        if self._actor is not None:
            self._cluster.kill(self._actor)
        self._channel.close()
        for number in self._attached:
            self._streams.detach(number)
        while not self._inbox.empty():
            _, fds = self._inbox.get_nowait() or (None, ())
            descriptors.close_all(fds)

    def _named(self) -> str:
        return f"the worker on {self._place.host}" if self._place.host else "a cluster's worker"

    # -- what the supervisor says ------------------------------------------------------

    def _read(self) -> None:
        """Takes in what has come."""
        try:
            while True:
                self._inbox.put_nowait(self._channel.receive_with_fds(socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except (Closed, ProtocolError, NoDescriptor):
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._inbox.put_nowait(None)

    async def _pass_on(self) -> None:
        while (received := await self._inbox.get()) is not None:
            message, fds = received
            try:
                await self._handle(message, fds)
            finally:
                descriptors.close_all(fds)
        raise Closed

    async def _handle(self, message: Message, fds: list[int]) -> None:
        match message:
            case Attach():
                self._attach(message, fds)
            case Chunk(stream=number) if number not in self._attached:
                raise Gone(-signal.SIGKILL)  # its Attach was withdrawn: see the worker's loop
            case Chunk(stream=number) if number not in self._declined:
                await self._room.acquire()
                self._submit(message, "render", messages.encode(message))
            case Quarantine():
                await self._call("tell", messages.encode(message))
            case Detach(number) if self._attached.pop(number, None) is not None:
                self._streams.detach(number)
                await self._call("tell", messages.encode(message))

    def _attach(self, attach: Attach, fds: list[int]) -> None:
        stream = self._attached[attach.stream] = self._streams.attach(attach, fds)
        if stream.obstacle:
            self._decline(attach.stream, f"other machines do not serve a stream: {stream.obstacle}")
            return
        self._submit(attach, "attach", stream.attach, stream.landmarks, *stream.parts)

    def _submit(self, message: Attach | Chunk, method: str, *args: object) -> None:
        came = perf_counter_ns()
        self._calls.put_nowait(_Call(message, self._call(method, *args), came))

    def _call(self, method: str, *args: object) -> asyncio.Future[Any]:
        """Has the actor do something in its turn."""
        order, self._order = self._order, self._order + 1
        return self._cluster.call(self._actor, method, order, *args)

    # -- what the worker says ----------------------------------------------------------

    async def _join(self) -> None:
        """Waits until the actor has a place, and the worker there is ready."""
        place, said = await self._cluster.call(self._actor, "join")
        self._place = Place(*place)
        match [messages.decode(one) for one in said]:
            case [Fingerprint(facts), WorkerReady(pid, pil)]:
                self._compare(facts)
                self._channel.send(WorkerReady(pid, pil, self._place.host))
            case [*_, Ended(_, code)]:
                raise Gone(code)
            case _:
                raise ProtocolError("the worker does not begin as it should")

    def _compare(self, facts: Facts) -> None:
        differs = fingerprint.differences(self._facts, facts)
        if differs:
            self._cluster.refuse(self._place.node)
            why = f"{self._place.host} is refused, as it could render other bytes: {differs}"
            raise Gone(None, why)

    async def _deliver(self) -> None:
        while True:
            call = await self._next()
            answer = await self._watched(call)
            if isinstance(call.message, Chunk):
                await self._report(call.message, call.came, answer)
                self._room.release()
            else:
                self._forward(call.message, answer)

    async def _next(self) -> _Call:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_SECONDS):  # wait_for may lose a cancellation
                    return await self._calls.get()
            self._forward(None, await self._pulse())

    async def _watched(self, call: _Call) -> Any:
        """An answer; meanwhile what the worker says within its chunk is passed on."""
        while not (await asyncio.wait({call.answer}, timeout=self._settings.silence))[0]:
            self._forward(call.message, await self._pulse(), ends=False)
        return call.answer.result()

    async def _pulse(self) -> Said:
        answer = self._cluster.call(self._actor, "pulse")
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                said: Said = await answer
        except TimeoutError:
            why = f"{self._named()} has not answered for {SILENT_SECONDS:g} s"
            raise Gone(None, why) from None
        return said

    async def _report(self, chunk: Chunk, came: int, answer: Answer) -> None:
        """Writes the rows of a chunk, and passes on what was said up to its end."""
        if chunk.stream in self._declined:  # there may be no answer
            return
        *before, end = answer.said
        last, stream = messages.decode(end), self._attached.get(chunk.stream)
        if isinstance(last, Done) and stream is not None and answer.bad:
            differs = await asyncio.to_thread(_differing, answer.bad)
            if differs:
                last = BatchFailed(BadImage.__name__, f"an image cannot be read: {differs}")
        if isinstance(last, BatchFailed) and stream is not None:
            self._leave(chunk, last)
        elif isinstance(last, Done) and stream is not None:
            self._silent.pop(chunk.stream, None)
            crossed = stream.write(chunk, answer.rows)
            self._forward(chunk, before)
            self._channel.send(self._counted(last, came, crossed))
        else:  # nobody reads the stream any more, or the worker has ended
            self._forward(chunk, answer.said)

    def _counted(self, done: Done, came: int, crossed: int) -> Done:
        """With what the link had to do with it."""
        now = perf_counter_ns()
        held, self._delivered = now - max(came, self._delivered), now
        return msgspec.structs.replace(done, crossed=crossed, held=held)

    def _forward(self, about: Attach | Chunk | None, said: Said, ends: bool = True) -> None:
        """Passes on what the worker has said about a stream or a chunk.

        Its end counts only if it ``ends``: not before what it has said of chunks that are done.
        """
        for message in map(messages.decode, said):
            match message:
                case Ended(_, code):
                    if ends:
                        raise Gone(code)
                case Declined(number, text):
                    self._decline(number, text)
                case Progress(ticket) if not (isinstance(about, Chunk) and about.ticket == ticket):
                    continue  # of the next chunk, while this one's rows are on their way
                case _ if about is not None and about.stream not in self._declined:
                    self._channel.send(message)

    def _leave(self, chunk: Chunk, failed: BatchFailed) -> None:
        """Has others make a chunk, or all of the stream if the worker cannot make any."""
        self._silent[chunk.stream] += failed.kind in STORAGE_ERRORS
        what, ticket = "serve a stream", -1
        if failed.kind in PASSING and self._silent[chunk.stream] < TRIES:
            what, ticket = "make a chunk", chunk.ticket
        self._decline(chunk.stream, f"{self._named()} cannot {what}: {failed.text}", ticket)

    def _decline(self, stream: int, text: str, ticket: int = -1) -> None:
        """Has others make one chunk, or all of the stream, those that are on their way too."""
        if ticket < 0:
            self._declined.add(stream)
        self._channel.send(Declined(stream, messages.fitting(text), ticket))


def _differing(bad: Landmarks) -> str:
    """An image that could not be read there, and may be readable here; empty for none.

    A member of an archive is no file on either machine, and is as bad here. Whether an object of a
    store can be read here is not known.
    """
    for path, size in bad:
        if not os.path.isabs(path) or size_of(path) != size:
            return readable(path)
    return ""


def _told(error: Exception) -> str:
    """An error of Ray's, or of what the actor ran, in one line."""
    cause = getattr(error, "cause", None) or error
    first = str(cause).strip().split("\n")[0]
    return f"{type(cause).__name__}: {first}" if first else type(cause).__name__


def _ignore(answer: asyncio.Future[Any]) -> None:
    """Takes note of an answer that nobody waits for."""
    if not answer.cancelled():
        answer.exception()
