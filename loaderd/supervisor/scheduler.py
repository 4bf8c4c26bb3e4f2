"""Who renders what, next: events in, actions out.

Theory of operation. A stream is an endless run of batches, (epoch, position) after
(epoch, position). Each batch is filled in a slot of the stream's ring, chunk by chunk::

    open, plan, took ─┐                     ┌─► Assign(worker, chunk)
    worker_up, down  ─┼──► Scheduler ───────┼─► Deliver(who, slot, place)
    done, failed     ─┤                     ├─► Fail(who, slot, place, why)
    waiting, answered─┤                     └─► Isolate(sample), Dismiss(worker)
    retire           ─┘

- The next batch is the first that the client wants out of turn, else the next of its
  run that is neither being filled nor in its hands. Before the client has taken a batch, the
  run goes ``COLD`` batches ahead: many streams are opened and never read.
- The oldest unfinished batch gets all workers before the next is begun.
- A stream goes first that has a chunk to do again, since its trainer may wait for just that
  one; then the one whose ring holds the smallest share of ready batches; of several, the one
  that has had the least of the workers' time. Batches that are ready count for nothing while
  the trainer needs others before it: else a full ring of them would starve it.
- Every worker has one chunk in hand and one queued, so that it never waits for us. While a stream
  reads from an object store it has more, as it fetches what is queued.
- A chunk of a dead worker is given away again, before all others. Tickets number the
  tries; a ticket that is not held by the worker who reports it counts for nothing.
- A chunk over which workers crashed twice in a row is tried sample by sample, and a sample
  that crashes its worker even then is isolated: it is no longer tried. A worker that was
  killed says nothing about its samples; its chunk comes back in halves, so that however
  often workers are killed, some of it gets done.
- While storage keeps a worker waiting, every stream is in doubt until one of its chunks comes
  back, and one in doubt has one chunk with workers at most. So a disk that does not answer
  does not take one worker after the other, and streams that read elsewhere go on at once.

No socket, no clock, no process here: the tests feed it histories.
"""

from __future__ import annotations

from collections.abc import Iterable

from loaderd.errors import ProtocolError
from loaderd.ipc.prefetch import Place, Run
from loaderd.supervisor.actions import Action, Assign, Death, Dismiss
from loaderd.supervisor.cursor import Cursor
from loaderd.supervisor.doubts import Doubts
from loaderd.supervisor.ledger import Assignment, Ledger
from loaderd.supervisor.scheduled_stream import ScheduledStream
from loaderd.supervisor.shared_stream import SharedCursor, SharedStream
from loaderd.supervisor.slots import SlotTable
from loaderd.supervisor.stream_shape import QUEUED, Shape

Slots = tuple[int, ...]

MAX_WANTED = 1024
"""Batches that a client may want out of turn."""


class Scheduler:
    """Gives chunks of streams to workers.

    Every method takes an event and returns the actions that follow from it, in the
    order in which they must be performed.

    Attributes:
        streams: the open streams by number.
        ledger: which worker holds which chunks.
    """

    def __init__(self) -> None:
        self.streams: dict[int, ScheduledStream] = {}
        self.ledger = Ledger()
        self._doubts = Doubts(self.streams)
        self._actions: list[Action] = []
        self._virtual_ns = 0.0
        self._draining, self._queued = False, QUEUED

    def drain(self) -> None:
        """Begins no further batch; those that are begun are finished."""
        self._draining = True

    @property
    def idle(self) -> bool:
        """Whether no batch is being filled."""
        return not any(stream.partial for stream in self.streams.values())

    def open(
        self,
        stream: int,
        shape: Shape,
        run: Run,
        is_small: bool = False,
        is_shared: bool = False,
    ) -> list[Action]:
        """Begins a stream.

        Args:
            stream: its number.
            shape: its sizes.
            run: what is made ahead.
            is_small: whether the first batch is given to one worker.
            is_shared: whether it has subscribers, which are added to it later.

        Raises:
            ProtocolError: there is no such run.
        """
        self.streams[stream] = state = _stream(stream, shape, run, is_shared)
        state.is_small, state.doubted = is_small, self._doubts.is_any
        self._queued = max(self._queued, shape.queued)
        return self.go_on()

    def close(self, stream: int) -> list[Action]:
        """Ends a stream; what workers report of its chunks is ignored from now on."""
        del self.streams[stream]
        self.ledger.forget(stream)
        self._queued = max((one.shape.queued for one in self.streams.values()), default=QUEUED)
        return self.go_on()

    def plan(self, stream: int, want: tuple[Place, ...], run: Run | None) -> list[Action]:
        """The client wants batches out of turn, or the run to go on elsewhere.

        Raises:
            ProtocolError: it asks for a batch that does not exist, or for too many.
        """
        state = self.streams[stream]
        cursor = state.cursor
        if isinstance(state, SharedStream):
            raise ProtocolError("a shared stream goes on in its own order")
        if len(cursor.want) + len(want) > MAX_WANTED:
            raise ProtocolError(f"more than {MAX_WANTED} batches wanted out of turn")
        for place in want:
            state.shape.check(place)
        if run is not None:
            cursor.run = state.shape.checked(run)
        cursor.want.extend(place for place in want if place not in state.made)
        state.count_missing()
        return self.go_on()

    def took(self, stream: int, taken: Slots, released: Slots, who: int = -1) -> list[Action]:
        """A subscriber took and released slots; -1 is a stream's only one.

        Raises:
            ProtocolError: a slot was not in its hands.
        """
        state, who = self.streams[stream], stream if who < 0 else who
        for slot in taken:
            state.take(slot, who)
        for slot in released:
            state.release(slot, who)
        return self.go_on()

    def worker_up(self, worker: int, is_remote: bool = False) -> list[Action]:
        """A worker, which may be one of another machine, is ready for chunks."""
        self.ledger.add(worker, is_remote)
        return self.go_on()

    def retire(self, worker: int) -> list[Action]:
        """A worker gets nothing more, and may go when it holds nothing."""
        self.ledger.retired.add(worker)
        self._dismiss(worker)
        return self._flush()

    def recall(self, worker: int, tickets: set[int]) -> list[Action]:
        """A worker takes long, and chunks that it has not seen yet were taken back from it.

        Others do them, and it gets nothing until it has reported.
        """
        self._take_back(self.ledger.recall(worker, tickets))
        if self.ledger.held(worker):  # else it has nothing to report
            self.ledger.slow.add(worker)
        elif worker in self.ledger.retired:
            self._dismiss(worker)
        return self.go_on()

    def decline(self, worker: int, stream: int, ticket: int = -1) -> list[Action]:
        """A worker declines a stream, or one chunk of it, which others make: see the ledger.

        Raises:
            ProtocolError: the worker does not hold that ticket.
        """
        self._take_back(self.ledger.decline(worker, stream, ticket))
        self._doubts.end(worker, None)
        if stream not in self.streams:
            self.ledger.forget(stream)
        if not self.ledger.held(worker):  # it has nothing to report
            self.ledger.slow.discard(worker)
            if worker in self.ledger.retired:
                self._dismiss(worker)
        return self.go_on()

    def _take_back(self, assignments: Iterable[Assignment]) -> None:
        for one in assignments:
            stream = self.streams.get(one.chunk.stream)
            if stream is not None:
                self._actions += stream.take_back(one.part)

    def waiting(self, worker: int) -> list[Action]:
        """The chunk in a worker's hand waits for storage: the worker gets nothing more.

        What is queued behind it is for ``recall``.
        """
        held = self.ledger.held(worker)
        if held:
            self._doubts.begin(worker, self.streams.get(held[0].chunk.stream))
            self.ledger.slow.add(worker)
        return []

    def answered(self, worker: int) -> list[Action]:
        """Storage has answered a worker that waited for it."""
        held = self.ledger.held(worker)
        self._doubts.end(worker, self.streams.get(held[0].chunk.stream) if held else None)
        return self.go_on()

    def worker_down(self, worker: int, death: Death, cause: str = "") -> list[Action]:
        """The kernel has confirmed that a worker is dead; its chunks are done again.

        Args:
            worker: the worker.
            death: how it died.
            cause: the same as text.
        """
        held = self.ledger.remove(worker)
        self._doubts.end(worker, None)
        while held:
            lost = held.pop()
            stream = self.streams.get(lost.chunk.stream)
            if stream is not None:
                # Only the chunk in hand can have to do with it, not the one behind it.
                self._actions += stream.take_back(lost.part, None if held else death, cause)
        return self.go_on()

    def done(self, worker: int, ticket: int, total_ns: int, skipped: int = 0) -> list[Action]:
        """A worker has written a chunk, and left out the rows of so many bad images.

        Raises:
            ProtocolError: the worker does not hold that ticket.
        """
        reported = self.ledger.report(worker, ticket)
        stream = self.streams.get(reported.chunk.stream)
        if stream is not None:
            self._actions += stream.written(reported.part, total_ns, skipped)
        return self._go_on(worker, stream)

    def failed(self, worker: int, ticket: int, kind: str, text: str) -> list[Action]:
        """A worker could not make a chunk: its batch is given up.

        Raises:
            ProtocolError: the worker does not hold that ticket.
        """
        reported = self.ledger.report(worker, ticket)
        stream = self.streams.get(reported.chunk.stream)
        if stream is not None:
            self._actions += stream.failed(reported.part, kind, text)
        return self._go_on(worker, stream)

    def _flush(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def go_on(self) -> list[Action]:
        """Gives chunks to all who have room, those with nothing first."""
        for length in range(1, self._queued + 1):
            for worker in self.ledger.with_room(length):
                if not self._assign(worker, length) and not _leaves(worker, self):
                    return self._flush()
        return self._flush()

    def _go_on(self, worker: int, stream: ScheduledStream | None) -> list[Action]:
        """A worker has reported a chunk of a stream, and has room for another."""
        in_doubt = self._doubts.is_any
        if in_doubt:  # the storage of this stream has answered
            self._doubts.end(worker, stream)
        if worker in self.ledger.retired:
            self._dismiss(worker)
        elif not in_doubt:
            self._assign(worker, self._queued)
        return self.go_on() if in_doubt else self._flush()

    def _dismiss(self, worker: int) -> None:
        if not self.ledger.held(worker):
            self._actions.append(Dismiss(worker))

    def _assign(self, worker: int, upto: int) -> bool:
        """Gives one worker chunks; returns whether there were enough."""
        held = self.ledger.held(worker)
        while len(held) < upto:
            if not self._assign_next(worker):
                return False
        return True

    def _assign_next(self, worker: int) -> bool:
        """Gives one worker the chunk that is most needed; returns whether there was one."""
        declined = self.ledger.declined(worker)
        streams: Iterable[ScheduledStream] = self.streams.values()
        if len(self.streams) > 1:
            streams = sorted(streams, key=ScheduledStream.turn)
        for stream in streams:
            if stream.id in declined or (stream.doubted and self.ledger.is_out(stream.id)):
                continue
            part = stream.next_part(self.ledger, self._draining, worker in self.ledger.remote)
            if part is not None:
                chunk = self.ledger.assign(worker, stream.id, part)
                self._virtual_ns = max(self._virtual_ns, stream.served_ns)
                stream.served_ns = self._virtual_ns + stream.cost_ns(part)
                self._actions.append(Assign(worker, chunk))
                return True
        return False


def _leaves(worker: int, scheduler: Scheduler) -> bool:
    """Whether a worker that takes no chunk may have left one to others."""
    ledger, streams = scheduler.ledger, scheduler.streams.values()
    if worker not in ledger.remote:
        return False
    return bool(ledger.declined(worker)) or any(stream.redo for stream in streams)


def _stream(number: int, shape: Shape, run: Run, is_shared: bool) -> ScheduledStream:
    run, slots = shape.checked(run), SlotTable(shape.slots)
    if is_shared:
        return SharedStream(number, shape, SharedCursor(shape.batches, run), slots)
    return ScheduledStream(number, shape, Cursor(shape.batches, run), slots)
