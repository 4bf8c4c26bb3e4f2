"""The workers at work: what they are told, what they say, and what becomes of them.

::

    scheduler ── Assign, Isolate, Dismiss ──► Crew ── Attach, Chunk, Quarantine ──► worker
        ▲                                      ▲ │
        └─ worker_up, done, spoilt, down ──────┘ └◄── Up, Attached, Progress, Bad, Done, Spoilt,
           waiting, answered                          Waiting

It carries and watches; who renders what is the scheduler's to say. A worker of which nothing
is heard is told to write its stack to the log and to die, and is killed if it does not. One that
waits for storage says so; others stand in for it meanwhile.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from loaderd import storage
from loaderd.config import Settings
from loaderd.errors import BadImage, ProtocolError
from loaderd.ipc.channel import Closed
from loaderd.ipc.messages import (
    Attach,
    Attached,
    Bad,
    Chunk,
    Detach,
    Done,
    Message,
    Progress,
    Quarantine,
    Spoilt,
    Up,
    Waiting,
)
from loaderd.ipc.text import readable
from loaderd.supervisor.actions import Action, Assign, Dismiss
from loaderd.supervisor.children import ForkServer, Messages
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.storage_waits import Wait, Waits
from loaderd.supervisor.streams import Stream
from loaderd.supervisor.worker_processes import SLOW_SECONDS, STOPPED, STORAGE, Pool, Work, Worker

log = logging.getLogger("loaderd")


class Crew:
    """The workers of one daemon.

    Args:
        settings: how many there are and what they may do.
        loop: waits for what they say.
        forks: where they come from, and what tells of their deaths.
        scheduler: hears of both.
        streams: those that are open; others add and remove.
        work: what a worker process runs on its end of the socket.
        perform: performs the scheduler's actions.
        on_up: called when a worker is ready.
        on_bad: called when an image could not be read.

    Attributes:
        pool: the processes.
        chunks: those that are done.
        waits: those of them that wait for storage.
    """

    def __init__(
        self,
        settings: Settings,
        loop: Loop,
        forks: ForkServer,
        scheduler: Scheduler,
        streams: Mapping[int, Stream],
        work: Work,
        perform: Callable[[Iterable[Action]], None],
        on_up: Callable[[], None],
        on_bad: Callable[[Bad], None],
    ) -> None:
        self.pool = Pool(settings, forks, work)
        self.chunks = 0
        self.waits = Waits()
        self._loop = loop
        self._scheduler = scheduler
        self._streams = streams
        self._perform = perform
        self._on_up = on_up
        self._on_bad = on_bad
        self._troubles: set[str] = set()
        self._pils: set[str] = set()
        self._quarantine: list[Quarantine] = []
        self._to_renew: deque[int] = deque()
        self._retiring: int | None = None
        self._leaving: set[int] = set()

    def start(self) -> None:
        """Starts one worker, if that works now."""
        worker = self.pool.start()
        if worker is None:
            return
        self._loop.watch_channel(worker.child.line, lambda: self._read(worker))
        worker.child.when_ended(lambda: self._died(worker))

    # -- what they say ---------------------------------------------------------------

    def _read(self, worker: Worker) -> bool:
        """Takes in one message; returns whether there may be another."""
        try:
            self._heard(worker, worker.child.line.receive())
        except BlockingIOError:
            return False
        except Closed:
            self._loop.forget(worker.child.line.fileno())
            worker.child.kill()  # it may live on without its socket; its death is waited for
            return False
        except ProtocolError as error:
            log.error("worker %d is killed: %s", worker.pid, error)
            worker.child.kill()
        return True

    def _heard(self, worker: Worker, message: Message) -> None:
        worker.since = time.monotonic()
        if worker.id in self.waits and not isinstance(message, Waiting):
            self._answered(worker)
        match message:
            case Done():
                self._done(worker, message)
            case Spoilt():
                self._spoilt(worker, message)
            case Progress():
                pass  # it lives, and that is all
            case Waiting():
                self._waiting(worker, message)
            case Bad():
                self._on_bad(message)
            case Attached():
                worker.attaching.discard(message.stream)
            case Up():
                self._tell_pil(message.pil)
                self._up(worker)
            case _:
                raise ProtocolError(f"it sent {type(message).__name__}")

    def _done(self, worker: Worker, done: Done) -> None:
        actions = self._scheduler.done(worker.id, done.ticket, done.total, done.skipped)
        worker.in_hand.popleft()
        worker.count(done)
        self.chunks += 1
        if done.trouble:
            self._warn_once(done.trouble)
        self._perform(actions)

    def _spoilt(self, worker: Worker, spoilt: Spoilt) -> None:
        kind, words = spoilt.kind, spoilt.text
        if kind != BadImage.__name__:  # those are logged once each
            log.warning("%s: %s", kind, words)
        actions = self._scheduler.spoilt(worker.id, spoilt.ticket, kind, words)
        worker.in_hand.popleft()
        self._perform(actions)

    def _waiting(self, worker: Worker, waiting: Waiting) -> None:
        """It may be known already, or over: a worker's thread says it, not the one that works."""
        if not waiting.path:
            self._answered(worker)
        elif worker.in_hand and waiting.seconds >= SLOW_SECONDS:
            new = worker.id not in self.waits
            wait = Wait(readable(waiting.path), worker.since - waiting.seconds)
            self.waits.note(worker.id, worker.in_hand[0], wait)
            if new:
                self._set_aside(worker)

    def _set_aside(self, worker: Worker) -> None:
        """A worker that waits for storage holds up nobody but its chunk."""
        self._perform(self._scheduler.waiting(worker.id))
        if len(worker.in_hand) > 1:
            self._recall(worker)
        self.pool.stand_in(len(self.waits), worker.since)
        if worker.in_hand[0] not in self._streams:
            worker.end(worker.since, STORAGE)  # nobody wants what it reads

    def _answered(self, worker: Worker) -> None:
        if worker.id in self.waits:
            self.waits.forget(worker.id)
            self._perform(self._scheduler.answered(worker.id))

    def _tell_pil(self, pil: str) -> None:
        """Which PIL the workers have, once for each that they ever have."""
        if pil and pil not in self._pils:
            self._pils.add(pil)
            log.info("images are decoded and resized by %s", pil)

    def _warn_once(self, trouble: str) -> None:
        """Every worker meets a full disk; people need to hear of it once."""
        if trouble not in self._troubles:
            self._troubles.add(trouble)
            log.warning("%s", trouble)

    def _up(self, worker: Worker) -> None:
        self.pool.up(worker)
        for isolated in self._quarantine:
            _tell(worker, isolated)
        self._perform(self._scheduler.worker_up(worker.id))
        self._renew_next()
        self._on_up()

    def _died(self, worker: Worker) -> None:
        while self._read(worker):
            pass  # what it said before it died still counts
        self._loop.forget(worker.child.line.fileno())
        self.waits.forget(worker.id)
        death, cause = self.pool.bury(worker)
        if worker.up_at is not None:
            self._perform(self._scheduler.worker_down(worker.id, death, cause))
        if worker.id == self._retiring:
            self._retiring = None
            self._renew_next()

    # -- what they are told ----------------------------------------------------------

    def assign(self, action: Assign) -> None:
        """Gives a worker a chunk, and tells it of the stream if it does not know it."""
        worker = self.pool.workers[action.worker]
        stream = self._streams[action.chunk.stream]
        if not worker.in_hand:
            worker.since = time.monotonic()
        worker.in_hand.append(stream.id)
        if stream.id not in worker.attached:
            worker.attached.add(stream.id)
            worker.attaching.add(stream.id)
            _tell(worker, stream.attach(), stream.segments)
        _tell(worker, action.chunk)

    def quarantine(self, isolated: Quarantine) -> None:
        """Tells all workers of a sample that is no longer tried, and those that are yet to come."""
        self._quarantine.append(isolated)
        for worker in self.pool.workers.values():
            if worker.up_at is not None:
                _tell(worker, isolated)

    def detach(self, stream: int) -> None:
        """Tells those who know a stream that it is closed; who waits for its storage is ended."""
        for waiting in self.waits.workers(stream):
            self.pool.workers[waiting].end(time.monotonic(), STORAGE)
        for worker in self.pool.workers.values():
            if stream in worker.attached:
                worker.attached.remove(stream)
                _tell(worker, Detach(stream))

    def dismiss(self, action: Dismiss) -> None:
        """Ends a worker that holds nothing."""
        worker = self.pool.workers[action.worker]
        worker.dismissed = True
        worker.child.kill()

    # -- what becomes of them --------------------------------------------------------

    def check(self, now: float) -> None:
        """To be called about once a second: who gives no sign of life?"""
        for worker in list(self.pool.workers.values()):
            self._check_worker(worker, now)
        self.pool.stand_in(len(self.waits), now)
        self._retire_surplus()

    def _retire_surplus(self) -> None:
        """Those that stood in for others go again, the last that came first."""
        self._leaving &= self.pool.workers.keys()
        for worker in reversed(list(self.pool.workers.values())):
            if self.pool.surplus <= len(self._leaving):
                return
            busy = worker.id in self.waits or worker.id in self._leaving
            if worker.up_at is not None and not busy:
                self._leaving.add(worker.id)
                self._perform(self._scheduler.retire(worker.id))

    def _check_worker(self, worker: Worker, now: float) -> None:
        silent = now - worker.since
        if worker.condemned_at is not None:
            worker.finish(now)
        elif silent > worker.patience or (silent > worker.stop_patience and worker.stopped):
            fate = self._fate(worker)
            log.error("worker %d is killed: %s; its stack follows", worker.pid, fate)
            worker.condemn(now, fate)
        if len(worker.in_hand) > 1 and silent > SLOW_SECONDS:
            self._recall(worker)

    def _fate(self, worker: Worker) -> str:
        if worker.stopped:
            return STOPPED
        return STORAGE if worker.id in self.waits else f"no sign of life for {worker.patience:g} s"

    def _recall(self, worker: Worker) -> None:
        """What is queued behind a chunk that takes long is given to others."""
        back = worker.child.take_back()
        chunks = [message for message, _ in back if isinstance(message, Chunk)]
        # If it has not even read the first, that one stays its own: it owes us a sign of life.
        first = chunks[0] if len(chunks) == len(worker.in_hand) else None
        tickets = self._resend(worker, back, first)
        streams = {chunk.stream for chunk in chunks}
        if any(isinstance(one, Attach) and one.stream not in streams for one, _ in back):
            worker.child.kill()  # it has read the chunk meanwhile, and knows no such stream
        unsent = [fd for _, fds in back for fd in fds]
        if unsent:
            storage.close(unsent)
        self._perform(self._scheduler.recall(worker.id, tickets))

    def _resend(self, worker: Worker, back: Messages, first: Chunk | None) -> set[int]:
        """Gives it back what it must have; returns the chunks that it shall not have."""
        tickets: set[int] = set()
        for message, fds in back:
            match message:
                case Chunk() if message is not first:
                    tickets.add(message.ticket)
                    worker.in_hand.pop()
                case Attach() if first is None or message.stream != first.stream:
                    worker.attached.discard(message.stream)
                    worker.attaching.discard(message.stream)
                case _:
                    _tell(worker, message, fds)
        return tickets

    def forgive(self, seconds: float) -> None:
        """Nobody could be heard for so long, since we ourselves stood still."""
        for worker in self.pool.workers.values():
            worker.since += seconds
        self.waits.shift(seconds)

    def renew(self, settings: Settings) -> None:
        """Replaces all workers, one by one, by such as the settings say."""
        log.info("replacing %d workers one by one", len(self.pool.workers))
        self.pool.settings = settings
        self._to_renew = deque(self.pool.workers)
        self._renew_next()

    def _renew_next(self) -> None:
        """One worker goes when all the others are there."""
        while self._to_renew and self._retiring is None and self.pool.complete:
            worker = self.pool.workers.get(self._to_renew.popleft())
            if worker is not None and worker.up_at is not None:
                self._retiring = worker.id
                self._perform(self._scheduler.retire(worker.id))


def _tell(worker: Worker, message: Message, fds: Iterable[int] = ()) -> None:
    try:
        worker.child.line.send(message, tuple(fds))
    except Closed:
        log.debug("worker %d is dying", worker.pid)
    except OSError as error:  # no descriptors are left, or too many are on their way
        log.error("worker %d is killed: it cannot be told of a stream: %s", worker.pid, error)
        worker.child.kill()
