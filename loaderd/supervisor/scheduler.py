"""Who renders what, next: events in, actions out.

Theory of operation. A stream is an endless run of batches, (epoch, position) after
(epoch, position). Each batch is filled in a slot of the stream's ring, chunk by chunk::

    open, plan, took ─┐                     ┌─► Assign(worker, chunk)
    worker_up, down  ─┼──► Scheduler ───────┼─► Deliver(stream, slot, place)
    done, spoilt     ─┤                     ├─► Spoil(stream, slot, place, why)
    waiting, answered─┤                     └─► Isolate(sample), Dismiss(worker)
    retire           ─┘

- The next batch is the first that the client wants out of turn, else the next of its
  run that is neither being filled nor in its hands. Before the client has taken a batch, the
  run goes ``COLD`` batches ahead: many streams are opened and never read.
- The oldest unfinished batch gets all workers before the next is begun.
- A stream goes first that has a chunk to do again, since its trainer may wait for just that
  one; then the one whose ring holds the smallest share of ready batches; of several, the one
  that was served longest ago. Batches that are ready count for nothing while the trainer needs
  others before it: else a full ring of them would starve it.
- Every worker has one chunk in hand and one queued, so that it never waits for us.
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

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from loaderd.errors import ProtocolError
from loaderd.ipc.messages import Chunk
from loaderd.ipc.prefetch import Place, Run, waits_for_request
from loaderd.supervisor.actions import (
    Action,
    Assign,
    Death,
    Deliver,
    Dismiss,
    Failure,
    Isolate,
    Spoil,
)
from loaderd.supervisor.slots import Event, SlotTable, State
from loaderd.supervisor.stream_shape import Shape

QUEUED = 2
"""Chunks that a worker holds: one in hand, one queued behind it."""

CRASHES = 2
"""After so many workers that crashed in a row over a chunk, its samples are tried alone."""

KILLS = 20
"""A batch is given up when so many were killed in a row over a chunk, as by lack of memory."""

ATTACHES = 3
"""And when so many in a row died before they could write anything of its stream."""

SHORTEST_NS, LONGEST_NS = 2_000_000, 10_000_000
"""What a chunk should take: long against a message, short against a batch."""

LEASED = 2
"""Slots that the trainer holds as a rule: they cannot be filled."""

COLD = 2
"""Batches that are made ahead for a client that has taken none: TensorFlow looks at two."""

MAX_WANTED = 1024
"""Batches that a client may want out of turn."""


@dataclass(slots=True)
class _Filling:
    """A batch on its way into a slot."""

    slot: int
    place: Place
    rows: int
    given: int = 0
    """Rows that were cut into chunks."""
    open: int = 0
    """Chunks that are with workers or wait to be given again."""
    attempt: int = 0
    skipped: int = 0
    error: Failure | None = None


@dataclass(slots=True)
class _Part:
    """Rows of a batch that are tried (again): how many workers died over them in a row."""

    filling: _Filling
    first: int
    last: int
    crashes: int = 0
    kills: int = 0
    isolated: bool = False

    def pieces(self) -> list[_Part]:
        """What is given away next: each row alone after crashes, halves after a kill."""
        if self.last - self.first == 1:
            return [self]
        if self.crashes >= CRASHES:
            cuts = list(range(self.first, self.last + 1))
        elif self.kills:
            cuts = [self.first, (self.first + self.last) // 2, self.last]
        else:
            return [self]
        return [
            _Part(self.filling, first, last, self.crashes, self.kills)
            for first, last in pairwise(cuts)
        ]


@dataclass(slots=True)
class Stream:
    """What the scheduler knows of a stream; others read, only the scheduler writes."""

    id: int
    shape: Shape
    run: Run
    """Where the run goes on; if there is none, only what is wanted is made."""
    slots: SlotTable
    is_small: bool = False
    """Whether its first batch is given to one worker."""
    taken: int = 0
    """Batches that the client has taken."""
    want: deque[Place] = field(default_factory=deque)
    missing: int = 0
    """Batches, not cut into chunks yet, that the trainer needs before those that are ready."""
    places: dict[int, Place] = field(default_factory=dict)
    """What lies in the slots that are FILLING or READY."""
    held: set[Place] = field(default_factory=set)
    """The same without the slots."""
    filling: dict[int, _Filling] = field(default_factory=dict)
    cutting: _Filling | None = None
    """The one batch of which rows are left to be cut into chunks."""
    redo: deque[_Part] = field(default_factory=deque)
    attaches: int = 0
    """Workers that died in a row before they wrote anything."""
    doubted: bool = False
    """Whether its storage may be what a worker waits for: nothing has come back since."""
    row_ns: float = 0.0
    errors: int = 0
    served: int = 0
    """The last ticket."""

    def turn(self) -> tuple[bool, float, int]:
        """Whose turn it is: the least comes first."""
        ready = 0 if self.missing else self.slots.count(State.READY)
        return not self.redo, ready / len(self.slots), self.served

    def begin(self, place: Place) -> _Filling:
        """Takes a free slot for a batch."""
        filling = _Filling(self.slots.fill(), place, self.shape.rows(place[1]))
        self.filling[filling.slot] = filling
        self.places[filling.slot] = place
        self.held.add(place)
        return filling

    def let_go(self, slot: int) -> None:
        """What lay in a slot may be made again."""
        place = self.places.pop(slot, None)
        if place is not None:
            self.held.remove(place)

    def count_missing(self) -> None:
        """Follows a change of what is wanted, or of the run."""
        self.missing = len(self.want) + self._gap() + (self.cutting is not None)

    def _gap(self) -> int:
        """Batches that the run has to make until it comes to those that are there already."""
        place = self.run.next
        if place is None:
            return 0
        for count in range(len(self.slots)):
            if place in self.held:
                return count
            place = self.run.after(place)
        return 0  # all that is there comes before the run, as it does if nothing is out of turn

    def cut(self) -> None:
        """The batch that was being cut into chunks is cut, or given up."""
        self.cutting = None
        self.missing = max(0, self.missing - 1)

    def next_place(self) -> Place | None:
        """The batch to begin next: wanted out of turn, else the next of the run, if any."""
        if self._rests:
            return None
        while self.want:
            place = self.want.popleft()
            if place not in self.held:
                if place == self.run.next:
                    self._pass(place)
                return place
            self.missing = max(0, self.missing - 1)
        next_one = self.run.next
        if next_one is None:
            return None
        while next_one in self.held:
            next_one = self.run.after(next_one)
        self._pass(next_one)
        return next_one

    def _pass(self, place: Place) -> None:
        self.run = self.run.at(self.run.after(place))

    @property
    def _rests(self) -> bool:
        """Whether enough is made for a client that may read no further, and wants nothing else."""
        if self.run.next is None or not self._is_cold:
            return False
        return all(place in self.held for place in self.want)

    @property
    def _is_cold(self) -> bool:
        if waits_for_request(self.shape.batches, self.taken):
            return True
        return not self.taken and len(self.held) >= min(COLD, self.shape.batches)


@dataclass(slots=True)
class _Held:
    """A chunk that a worker holds."""

    chunk: Chunk
    part: _Part

    @property
    def filling(self) -> _Filling:
        """The batch."""
        return self.part.filling


class Scheduler:
    """Streams, workers, and the chunks between them.

    Every method takes an event and returns the actions that follow from it, in the
    order in which they must be performed.
    """

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self._workers: dict[int, deque[_Held]] = {}
        self._retired: set[int] = set()
        self._slow: set[int] = set()
        self._waiting: set[int] = set()
        self._actions: list[Action] = []
        self._ticket = 0
        self._draining = False

    def drain(self) -> None:
        """Starts no further batch; what is begun is finished."""
        self._draining = True

    @property
    def idle(self) -> bool:
        """Whether no batch is being filled."""
        return not any(stream.filling for stream in self.streams.values())

    def held(self, worker: int) -> list[Chunk]:
        """The chunks that a worker holds: the one in hand, then the one queued behind it."""
        return [entry.chunk for entry in self._workers.get(worker, ())]

    def open(self, stream: int, shape: Shape, run: Run, is_small: bool = False) -> list[Action]:
        """A stream begins.

        Args:
            stream: its number.
            shape: its sizes.
            run: what is made ahead.
            is_small: whether the first batch is given to one worker.

        Raises:
            ProtocolError: there is no such run.
        """
        run = run.within(shape.batches)
        shape.check_run(run)
        self.streams[stream] = Stream(
            stream,
            shape,
            run,
            SlotTable(shape.slots),
            is_small=is_small,
            doubted=bool(self._waiting),
        )
        return self._assign_all()

    def is_still(self, stream: int) -> bool:
        """Whether no slot is being written, and none is in use: another stream may have them."""
        state = self.streams[stream]
        return not state.filling and not state.slots.count(State.LEASED)

    def close(self, stream: int) -> list[Action]:
        """A stream ends; its chunks that are with workers count for nothing."""
        del self.streams[stream]
        return self._assign_all()

    def plan(self, stream: int, want: tuple[Place, ...], run: Run | None) -> list[Action]:
        """The client wants batches out of turn, or the run to go on elsewhere.

        Raises:
            ProtocolError: it asks for a batch that does not exist, or for too many.
        """
        state = self.streams[stream]
        if len(state.want) + len(want) > MAX_WANTED:
            raise ProtocolError(f"more than {MAX_WANTED} batches wanted out of turn")
        for place in want:
            state.shape.check(place)
        if run is not None:
            run = run.within(state.shape.batches)
            state.shape.check_run(run)
            state.run = run
        state.want.extend(place for place in want if place not in state.held)
        state.count_missing()
        return self._assign_all()

    def took(self, stream: int, taken: tuple[int, ...], released: tuple[int, ...]) -> list[Action]:
        """The client took and released slots.

        Raises:
            ProtocolError: a slot was not in the client's hands.
        """
        state = self.streams[stream]
        for slot in taken:
            state.slots.apply(slot, Event.TAKE)
            state.let_go(slot)
            state.taken += 1
        for slot in released:
            state.slots.apply(slot, Event.RELEASE)
            state.let_go(slot)
        return self._assign_all()

    def worker_up(self, worker: int) -> list[Action]:
        """A worker is ready for chunks."""
        self._workers[worker] = deque()
        return self._assign_all()

    def retire(self, worker: int) -> list[Action]:
        """A worker gets nothing more, and may go when it holds nothing."""
        self._retired.add(worker)
        self._dismiss(worker)
        return self._flush()

    def recall(self, worker: int, tickets: set[int]) -> list[Action]:
        """A worker takes long, and chunks that it has not seen yet were taken back from it.

        Others do them, and it gets nothing until it has reported.
        """
        held = self._workers[worker]
        for entry in [entry for entry in held if entry.chunk.ticket in tickets]:
            held.remove(entry)
            stream = self.streams.get(entry.chunk.stream)
            if stream is not None:
                self._return(stream, entry, None, "")
        if held:  # else it has nothing to report
            self._slow.add(worker)
        elif worker in self._retired:
            self._dismiss(worker)
        return self._assign_all()

    def waiting(self, worker: int) -> list[Action]:
        """The chunk in a worker's hand waits for storage: the worker gets nothing more.

        What is queued behind it is for ``recall``.
        """
        held = self._workers[worker]
        if not held:
            return []
        if not self._waiting:
            for stream in self.streams.values():
                stream.doubted = True
        self._waiting.add(worker)
        self._slow.add(worker)
        stuck = self.streams.get(held[0].chunk.stream)
        if stuck is not None:
            stuck.doubted = True
        return []

    def answered(self, worker: int) -> list[Action]:
        """Storage has answered a worker that waited for it."""
        held = self._workers[worker]
        self._waiting.discard(worker)
        self._trust(self.streams.get(held[0].chunk.stream) if held else None)
        return self._assign_all()

    def worker_down(self, worker: int, death: Death, cause: str = "") -> list[Action]:
        """The kernel has confirmed that a worker is dead; its chunks are done again.

        Args:
            worker: the worker.
            death: how it died.
            cause: the same for people.
        """
        held = self._workers.pop(worker, deque())
        self._retired.discard(worker)
        self._slow.discard(worker)
        if worker in self._waiting:
            self._waiting.remove(worker)
            self._trust(None)
        while held:
            entry = held.pop()
            stream = self.streams.get(entry.chunk.stream)
            if stream is not None:
                # Only the chunk in hand can have to do with it, not the one behind it.
                self._return(stream, entry, None if held else death, cause)
        return self._assign_all()

    def done(self, worker: int, ticket: int, total_ns: int, skipped: int = 0) -> list[Action]:
        """A worker has written a chunk, and left out the rows of so many bad images.

        Raises:
            ProtocolError: the worker does not hold that ticket.
        """
        entry = self._take_back(worker, ticket)
        stream = self.streams.get(entry.chunk.stream)
        if stream is not None:
            _learn(stream, entry.chunk, total_ns)
            stream.attaches = 0
            entry.filling.skipped += skipped
            self._close_chunk(stream, entry.filling)
        return self._go_on(worker, stream)

    def spoilt(self, worker: int, ticket: int, kind: str, text: str) -> list[Action]:
        """A worker could not make a chunk: its batch is given up.

        Raises:
            ProtocolError: the worker does not hold that ticket.
        """
        entry = self._take_back(worker, ticket)
        stream = self.streams.get(entry.chunk.stream)
        if stream is not None:
            _give_up(stream, entry.part, kind, text)
            self._close_chunk(stream, entry.filling)
        return self._go_on(worker, stream)

    def _take_back(self, worker: int, ticket: int) -> _Held:
        held = self._workers[worker]
        if not held or held[0].chunk.ticket != ticket:
            raise ProtocolError(f"worker {worker} reports chunk {ticket}, which it does not hold")
        self._slow.discard(worker)
        return held.popleft()

    def _return(self, stream: Stream, entry: _Held, death: Death | None, cause: str) -> None:
        part, filling = entry.part, entry.filling
        if filling.error is None:
            self._blame(stream, part, death, cause)
        if filling.error is not None:
            self._close_chunk(stream, filling)
            return
        filling.attempt += 1
        pieces = part.pieces() if death else [part]
        filling.open += len(pieces) - 1
        stream.redo.extendleft(reversed(pieces))

    def _blame(self, stream: Stream, part: _Part, death: Death | None, cause: str) -> None:
        part.crashes += death is Death.CRASHED
        part.kills += death is Death.KILLED
        stream.attaches += death is Death.ATTACHING
        if part.crashes > CRASHES:
            self._isolate(stream, part, cause)
        elif part.kills >= KILLS:
            text = f"{KILLS} workers were killed over it ({cause}); is memory short?"
            _give_up(stream, part, "WorkerCrashed", text)
        elif stream.attaches >= ATTACHES:
            text = f"{ATTACHES} workers died before they could begin ({cause})"
            _give_up(stream, part, "WorkerCrashed", text)
            stream.attaches = 0

    def _isolate(self, stream: Stream, part: _Part, cause: str) -> None:
        if part.isolated:
            text = f"{CRASHES + 1} workers crashed over it ({cause}) though it was not tried"
            _give_up(stream, part, "WorkerCrashed", text)
        else:
            self._actions.append(Isolate(stream.id, part.filling.place, part.first, cause))
            part.crashes, part.isolated = 0, True

    def _close_chunk(self, stream: Stream, filling: _Filling) -> None:
        filling.open -= 1
        if filling.open or (filling.given < filling.rows and filling.error is None):
            return
        del stream.filling[filling.slot]
        stream.slots.apply(filling.slot, Event.FINISH)
        if filling.error is None:
            out: Action = Deliver(
                stream.id, filling.slot, filling.place, filling.attempt, filling.skipped
            )
        else:
            stream.errors += 1
            out = Spoil(stream.id, filling.slot, filling.place, filling.error)
        self._actions.append(out)

    def _flush(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def _assign_all(self) -> list[Action]:
        """Gives chunks to all who have room, those with nothing first."""
        for length in range(1, QUEUED + 1):
            for worker, held in self._workers.items():
                if len(held) >= length or worker in self._retired or worker in self._slow:
                    continue
                if not self._assign(worker, length):
                    return self._flush()
        return self._flush()

    def _go_on(self, worker: int, stream: Stream | None) -> list[Action]:
        """A worker has reported a chunk of a stream, and has room for another."""
        if self._waiting:
            return self._go_on_in_doubt(worker, stream)
        if worker in self._retired:
            self._dismiss(worker)
        else:
            self._assign(worker, QUEUED)
        return self._flush()

    def _go_on_in_doubt(self, worker: int, stream: Stream | None) -> list[Action]:
        """The same while somebody waits for storage: that of this stream has answered."""
        self._waiting.discard(worker)
        self._trust(stream)
        if worker in self._retired:
            self._dismiss(worker)
        return self._assign_all()

    def _trust(self, stream: Stream | None) -> None:
        """A stream's storage answers; if nobody waits any more, that of all does."""
        if stream is not None:
            stream.doubted = False
        if not self._waiting:
            for other in self.streams.values():
                other.doubted = False

    def _dismiss(self, worker: int) -> None:
        if not self._workers[worker]:
            self._actions.append(Dismiss(worker))

    def _assign(self, worker: int, upto: int) -> bool:
        """Gives one worker chunks; returns whether there were enough."""
        held = self._workers[worker]
        while len(held) < upto:
            entry = self._next()
            if entry is None:
                return False
            held.append(entry)
            self._actions.append(Assign(worker, entry.chunk))
        return True

    def _next(self) -> _Held | None:
        streams: Iterable[Stream] = self.streams.values()
        if len(self.streams) > 1:
            streams = sorted(streams, key=Stream.turn)
        for stream in streams:
            entry = self._next_of(stream)
            if entry is not None:
                return entry
        return None

    def _next_of(self, stream: Stream) -> _Held | None:
        if stream.doubted and self._is_with_workers(stream):
            return None
        if stream.redo:
            return self._hold(stream, stream.redo.popleft())
        if stream.cutting is None:
            if self._draining or not stream.slots.count(State.FREE):
                return None
            place = stream.next_place()
            if place is None:
                return None
            stream.cutting = stream.begin(place)
        return self._cut(stream, stream.cutting)

    def _is_with_workers(self, stream: Stream) -> bool:
        held = (entry for entries in self._workers.values() for entry in entries)
        return any(entry.chunk.stream == stream.id for entry in held)

    def _cut(self, stream: Stream, filling: _Filling) -> _Held:
        first = filling.given
        filling.given += self._chunk_rows(stream, filling.rows - first)
        filling.open += 1
        if filling.given == filling.rows:
            stream.cut()
        return self._hold(stream, _Part(filling, first, filling.given))

    def _chunk_rows(self, stream: Stream, rows: int) -> int:
        """So many of the rows that are left that all chunks are of one size.

        Few chunks mean few messages, so they are as long as may be, and no longer than
        leaves every worker its two of the batches for which there are slots.
        """
        chunks = -(-rows // -(-stream.shape.batch_size // self._shares(stream)))
        if stream.row_ns:
            chunks = min(chunks, max(1, int(rows * stream.row_ns / SHORTEST_NS)))
            chunks = max(chunks, -(-rows // max(1, int(LONGEST_NS / stream.row_ns))))
        return -(-rows // chunks)

    def _shares(self, stream: Stream) -> int:
        """Chunks that a batch must have at least; the first ones are shared out among all."""
        workers = max(1, len(self._workers))
        if not stream.row_ns:
            return 1 if stream.is_small else workers
        fillable = max(1, len(stream.slots) - LEASED)
        return -(-QUEUED * workers // fillable)

    def _hold(self, stream: Stream, part: _Part) -> _Held:
        self._ticket += 1
        stream.served = self._ticket
        slot, (epoch, position) = part.filling.slot, part.filling.place
        chunk = Chunk(self._ticket, stream.id, slot, epoch, position, part.first, part.last)
        return _Held(chunk, part)


def _give_up(stream: Stream, part: _Part, kind: str, text: str) -> None:
    """The batch is spoilt: none of its chunks is given (again)."""
    filling = part.filling
    filling.error = filling.error or Failure(kind, text, part.first, part.last)
    if stream.cutting is filling:
        stream.cut()
    waiting = [redo for redo in stream.redo if redo.filling is filling]
    for redo in waiting:
        stream.redo.remove(redo)
        filling.open -= 1


def _learn(stream: Stream, chunk: Chunk, total_ns: int) -> None:
    """Follows what a row costs, slowly, so that one odd image changes little."""
    cost = total_ns / (chunk.last - chunk.first)
    stream.row_ns += (cost - stream.row_ns) * (0.2 if stream.row_ns else 1.0)
