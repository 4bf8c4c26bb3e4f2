"""The workers' manager: tells workers what to do, hears them, and watches them.

::

    supervisor ── assign, quarantine, detach, dismiss ──► Workers ── Attach, Chunk, ... ──► worker
        ▲                                                  │ ▲
        └──────────── WorkerEvents ────────────────────────┘ └─── WorkerReady, Attached, Progress,
                                                                  Bad, Done, BatchFailed, Waiting

It reports what happens, and decides nothing about chunks: who holds which is in the scheduler's
ledger. A worker that is silent for too long is told to write its stack to the log and to die, and
is killed if it does not. One that waits for storage says so; others stand in for it meanwhile.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from loaderd import storage
from loaderd.config import Settings
from loaderd.errors import BadImage, ProtocolError
from loaderd.ipc.channel import Closed
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
    Quarantine,
    Waiting,
    WorkerReady,
)
from loaderd.ipc.text import readable
from loaderd.supervisor.actions import Assign, Death
from loaderd.supervisor.children import Messages
from loaderd.supervisor.ledger import Assignment
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.once_log import OnceLog
from loaderd.supervisor.remote_hosts import RemoteHosts
from loaderd.supervisor.storage_waits import Wait, Waits
from loaderd.supervisor.streams import OpenStream
from loaderd.supervisor.worker import STORAGE, Worker
from loaderd.supervisor.worker_processes import (
    LAST_WORDS_SECONDS,
    SLOW_SECONDS,
    WorkerProcesses,
)

log = logging.getLogger("loaderd")


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """What the supervisor does about what happens to a worker, which is given by its number.

    ``done``, ``in_hand``, ``failed`` and ``declined`` raise ProtocolError if it does not hold that
    chunk; ``recalled`` gets the tickets of chunks that it has not seen; one that has ``declined`` a
    stream makes no chunk of it, not even those that it holds; a ``retired`` one shall be dismissed
    when it holds nothing; ``died`` gets how it died, and the same as text.
    """

    ready: Callable[[int], None]
    done: Callable[[int, Done], None]
    failed: Callable[[int, BatchFailed], None]
    in_hand: Callable[[int, Progress], None]
    bad_image: Callable[[Bad], None]
    waiting: Callable[[int], None]
    answered: Callable[[int], None]
    recalled: Callable[[int, set[int]], None]
    declined: Callable[[int, Declined], None]
    retired: Callable[[int], None]
    died: Callable[[int, Death, str], None]


class Workers:
    """The workers of one daemon.

    Args:
        processes: starts and counts them.
        loop: waits for what they say.
        held: the scheduler's ledger: the chunks that a worker holds, the one in hand first.
        events: is told what happens.

    Attributes:
        chunks: number of chunks that are done.
        waits: the workers that wait for storage.
        hosts: what the workers of other machines have done.
    """

    def __init__(
        self,
        processes: WorkerProcesses,
        loop: Loop,
        held: Callable[[int], Sequence[Assignment]],
        events: WorkerEvents,
    ) -> None:
        self.processes = processes
        self.chunks, self.waits, self.hosts = 0, Waits(), RemoteHosts()
        self._loop = loop
        self._held, self._events = held, events
        self._log_once = OnceLog(log)
        self._quarantine: list[Quarantine] = []

    def start(self, remote: bool = False) -> None:
        """Starts one worker, here or on another machine, if that works now."""
        worker = self.processes.start(remote)
        if worker is not None:
            self._loop.watch_channel(worker.child.channel, lambda: self._read(worker))
            worker.child.when_ended(lambda: self._died(worker))

    # -- what they say ---------------------------------------------------------------

    def _read(self, worker: Worker) -> bool:
        """Handles one message; returns whether there may be another."""
        try:
            self._handle(worker, worker.child.channel.receive())
        except BlockingIOError:
            return False
        except Closed:
            self._loop.forget(worker.child.channel.fileno())
            worker.child.kill()  # it may live on without its socket; ``_died`` follows
            return False
        except ProtocolError as error:
            log.error("%s is killed: %s", worker.label, error)
            worker.child.kill()
        return True

    def _handle(self, worker: Worker, message: Message) -> None:
        worker.heard_at = time.monotonic()
        if worker.id in self.waits and not isinstance(message, Waiting):
            self._answered(worker)
        match message:
            case Done():
                self._done(worker, message)
            case BatchFailed():
                self._failed(worker, message)
            case Progress():
                self._events.in_hand(worker.id, message)
            case Waiting():
                self._waiting(worker, message)
            case Bad():
                self._events.bad_image(message)
            case Attached():
                worker.attaching.discard(message.stream)
            case Declined():
                self._declined(worker, message)
            case WorkerReady():
                self._up(worker, message)
            case _:
                raise ProtocolError(f"it sent {type(message).__name__}")

    def _done(self, worker: Worker, done: Done) -> None:
        if done.trouble:  # before the trainer gets the batch
            self._log_once(logging.WARNING, done.trouble)
        self._events.done(worker.id, done)
        worker.count(done)
        if worker.is_remote:
            self.hosts.count(worker, done)
        self.chunks += 1

    def _failed(self, worker: Worker, failed: BatchFailed) -> None:
        if failed.kind != BadImage.__name__:  # bad images are logged once each
            log.warning("%s: %s", failed.kind, failed.text)
        self._events.failed(worker.id, failed)

    def _waiting(self, worker: Worker, waiting: Waiting) -> None:
        """Handles Waiting; a thread of the worker sends it, so the wait may be over by now."""
        stream = self._stream_in_hand(worker)
        if not waiting.path:
            self._answered(worker)
        elif stream is not None and waiting.seconds >= SLOW_SECONDS:
            new = worker.id not in self.waits
            wait = Wait(readable(waiting.path), worker.heard_at - waiting.seconds)
            self.waits[worker.id] = stream, wait
            if new:
                self._set_aside(worker, stream)

    def _set_aside(self, worker: Worker, stream: int) -> None:
        """Leaves a worker that waits for storage with the chunk in hand alone."""
        self._events.waiting(worker.id)
        if len(self._held(worker.id)) > 1:
            self._recall(worker)
        self.processes.stand_in(len(self.waits), worker.heard_at)
        if stream not in worker.attached:  # the stream was closed meanwhile
            worker.end(worker.heard_at, STORAGE)

    def _answered(self, worker: Worker) -> None:
        if self.waits.pop(worker.id, None) is not None:
            self._events.answered(worker.id)

    def _declined(self, worker: Worker, said: Declined) -> None:
        self._log_once(logging.WARNING, said.text)
        if said.ticket < 0 and said.stream in worker.attached:  # else it was closed meanwhile
            worker.attaching.discard(said.stream)
            worker.declined[said.stream] = said.text
        self._events.declined(worker.id, said)

    def _up(self, worker: Worker, said: WorkerReady) -> None:
        if said.pil:
            self._log_once(logging.INFO, f"images are decoded and resized by {said.pil}")
        self.processes.up(worker, said)
        for isolated in self._quarantine:
            _send(worker, isolated)
        self._events.ready(worker.id)
        self._renew_next()

    def _died(self, worker: Worker) -> None:
        while self._read(worker):
            pass  # what it said before it died still counts
        self._loop.forget(worker.child.channel.fileno())
        self.waits.pop(worker.id, None)
        attaching = self._stream_in_hand(worker) in worker.attaching
        death, cause = self.processes.reap(worker, attaching)
        if worker.is_remote:
            self.hosts.note_end(worker, time.monotonic())
        if worker.up_at is not None:
            self._events.died(worker.id, death, cause)
        self._renew_next()

    # -- what they are told ----------------------------------------------------------

    def assign(self, given: Assign, stream: OpenStream) -> None:
        """Gives a worker a chunk, and tells it of the stream if it does not know it."""
        worker, chunk = self.processes.workers[given.worker], given.chunk
        if self._held(worker.id)[0].chunk is chunk:
            worker.heard_at = time.monotonic()
        if stream.id not in worker.attached:
            worker.attached.add(stream.id)
            worker.attaching.add(stream.id)
            _send(worker, stream.attach(), stream.segments)
        _send(worker, chunk)

    def quarantine(self, isolated: Quarantine) -> None:
        """Tells all workers, and those that start later, of a sample that is no longer tried."""
        self._quarantine.append(isolated)
        for worker in self.processes.workers.values():
            if worker.up_at is not None:
                _send(worker, isolated)

    def detach(self, stream: int) -> None:
        """Tells workers that a stream is closed; those that wait for its storage are killed."""
        for waiting in self.waits.workers(stream):
            self.processes.workers[waiting].end(time.monotonic(), STORAGE)
        for worker in self.processes.workers.values():
            if stream in worker.attached:
                worker.attached.remove(stream)
                worker.declined.pop(stream, None)
                _send(worker, Detach(stream))

    def dismiss(self, number: int) -> None:
        """Ends a worker that holds nothing."""
        worker = self.processes.workers[number]
        worker.dismissed = True
        worker.child.kill()

    def check(self, now: float) -> None:
        """Looks for silent workers; to be called about once a second."""
        for worker in list(self.processes.workers.values()):
            self._check_worker(worker, now)
        self.processes.stand_in(len(self.waits), now)
        for surplus in self.processes.surplus_workers(self.waits):
            self._events.retired(surplus)

    def _check_worker(self, worker: Worker, now: float) -> None:
        silent, stream = now - worker.heard_at, self._stream_in_hand(worker)
        if worker.aborted_at is None and worker.hangs(silent, stream):
            reason = worker.silence_reason(stream, worker.id in self.waits)
            log.error("%s is killed: %s; its stack follows", worker.label, reason)
            worker.end(now, reason, signal.SIGABRT)
        elif worker.aborted_at is not None and now - worker.aborted_at > LAST_WORDS_SECONDS:
            worker.child.kill()
        if silent > SLOW_SECONDS and len(self._held(worker.id)) > 1:
            self._recall(worker)

    def _stream_in_hand(self, worker: Worker) -> int | None:
        """The stream of the chunk that a worker has in hand; None if it has none."""
        held = self._held(worker.id)
        return held[0].chunk.stream if held else None

    def _recall(self, worker: Worker) -> None:
        """Takes back what is queued behind a slow chunk, so that others get it."""
        back = worker.child.take_back()
        chunks = [message for message, _ in back if isinstance(message, Chunk)]
        # One that has not read its first chunk keeps it: it owes a sign of life for that.
        first = chunks[0] if len(chunks) == len(self._held(worker.id)) else None
        tickets = self._send_again(worker, back, first)
        streams = {chunk.stream for chunk in chunks}
        if any(isinstance(one, Attach) and one.stream not in streams for one, _ in back):
            worker.child.kill()  # it has read the chunk meanwhile, and knows no such stream
        unsent = [fd for _, fds in back for fd in fds]
        if unsent:
            storage.close(unsent)
        self._events.recalled(worker.id, tickets)

    def _send_again(self, worker: Worker, back: Messages, first: Chunk | None) -> set[int]:
        """Sends what the worker must have after all; returns the tickets that it does not get."""
        tickets: set[int] = set()
        for message, fds in back:
            match message:
                case Chunk() if message is not first:
                    tickets.add(message.ticket)
                case Attach() if first is None or message.stream != first.stream:
                    worker.attached.discard(message.stream)
                    worker.attaching.discard(message.stream)
                case _:
                    _send(worker, message, fds)
        return tickets

    def extend_deadlines(self, seconds: float) -> None:
        """Allows all workers more time, in which the supervisor itself stood still."""
        for worker in self.processes.workers.values():
            worker.heard_at += seconds
        self.waits.shift(seconds)

    def renew(self, settings: Settings) -> None:
        """Replaces all workers, one by one, by workers with these settings."""
        self.processes.renew(settings)
        self._renew_next()

    def _renew_next(self) -> None:
        worker = self.processes.next_to_renew()
        if worker is not None:
            self._events.retired(worker)


def _send(worker: Worker, message: Message, fds: Iterable[int] = ()) -> None:
    try:
        worker.child.channel.send(message, tuple(fds))
    except Closed:
        log.debug("%s is dying", worker.label)
    except OSError as error:  # no descriptors are left, or too many are on their way
        log.error("%s is killed: it cannot be told of a stream: %s", worker.label, error)
        worker.child.kill()
