"""One stream as the trainer sees it: batches by (epoch, position), in any order.

::

    daemon ── Ready(slot, place) ──► ready ── take ──► leased arrays ─┐ die
       ▲                               │ not wanted, no room          ▼
       └────────── Took(taken, released) ◄────────────────── released slots

The daemon makes batches ahead, in the order of the run. A batch that is asked for and not
there is planned explicitly, and a ready batch that nobody waits for gives up its slot
where there is no other: so any order of requests ends, and the common one costs nothing.

Threads: all state is under one lock. Of several waiting threads one reads the socket and
wakes the others. Released slots arrive from any thread, even from the garbage collector
inside our own lock; they only append to a deque and wake the reader.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import weakref
from collections import Counter, deque
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import (
    BadImage,
    DaemonGone,
    LoaderdError,
    ProtocolError,
    StreamClosed,
    TooManyBadImages,
    from_wire,
)
from loaderd.wire.channel import Channel, Closed
from loaderd.wire.messages import Opened, Place, Plan, Ready, Refused, Spoilt, Took
from loaderd.wire.opened import check_slot, take_over
from loaderd.wire.spec import Spec
from loaderd.wire.text import printable
from loaderd_client.lease import Ring
from loaderd_client.run import Run

SPARE_SLOTS = 2
"""When fewer than these would be left, a batch is copied and not leased."""

TELL_NS = 500_000_000
"""A wait is told to the daemon after so long, and not only when it ends."""

LONG_NS = 60_000_000_000
"""A wait so long is told to the user."""


class Batch(NamedTuple):
    """One batch.

    Attributes:
        images: (rows, height, width, channels) of the stream's dtype.
        labels: one row for each image, or None.
        weights: float32 (rows,): 1, and ``substitute_weight`` for substitutes; or None.
        ids: int32 (rows,): sample numbers, as ``filenames`` counts them.
        place: (epoch, position).
        attempt: how often chunks of it were given again after a worker's death.
    """

    images: NDArray[Any]
    labels: NDArray[Any] | None
    weights: NDArray[np.float32] | None
    ids: NDArray[np.int32]
    place: Place
    attempt: int


def _gone() -> DaemonGone:
    return DaemonGone(
        "the daemon went away (its log says why); once one runs again (`loaderd start`), go on: "
        "nothing is lost"
    )


class _Releases:
    """Slots whose leases have ended, and a bell for whoever waits.

    Leases know this and not the stream, so that a stream which nobody uses any more goes
    at once, with its connection, whatever arrays are still held.
    """

    def __init__(self) -> None:
        self.slots: deque[int] = deque()
        self.heard = False
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        weakref.finalize(self, os.close, self.bell)

    def add(self, slot: int) -> None:
        """A lease has ended. Runs in any thread, perhaps inside our lock: takes none."""
        self.slots.append(slot)
        if self.heard:
            os.eventfd_write(self.bell, 1)

    def silence(self) -> None:
        """Stops the bell."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)


class _Slot(NamedTuple):
    """A slot in our hands: a batch, or why there is none."""

    number: int
    attempt: int
    skipped: int
    error: LoaderdError | None


class Stream:
    """An open stream.

    Args:
        line: the connection that it hangs on.
        spec: what was asked for.
        start: the first batch of the run.
        opened: what was given.
        ring: descriptor of the ring, which is now ours.
        manifest: descriptor of the manifest, which is now ours.

    Attributes:
        manifest: names and labels of all samples.
        seed: the seed of order and draws.
        slots: slots of the ring.
        batches: batches in an epoch.
    """

    def __init__(
        self,
        line: Channel,
        spec: Spec,
        start: Place | None,
        opened: Opened,
        ring: int,
        manifest: int,
    ) -> None:
        given = take_over(spec, opened, ring, manifest)
        self.manifest = given.manifest
        self.seed = opened.seed
        self.slots = opened.slots
        self.batches = -(-opened.samples // opened.batch_size)
        self._samples = opened.samples
        self._batch_size = opened.batch_size
        self._directory = spec.dataset.directory
        self._has_labels = given.layout.labels is not None
        self._releases = _Releases()
        self._ring: Ring | None = Ring(given.ring, given.layout, self._releases.add)
        self._line = line
        self._line.settimeout(0)
        self._lock = threading.Condition(threading.Lock())
        self._ready: dict[Place, _Slot] = {}
        self._waiting: Counter[Place] = Counter()
        self._leased = 0
        self._run = Run(self.batches, start)
        self._asked: set[Place] = set()
        self._reading = False
        self._counts = [0, 0]
        self._end: LoaderdError | None = None
        self._hung_up = False
        self._complained = False
        self._owner = os.getpid()

    def rows(self, position: int) -> int:
        """Samples in the batch at ``position``."""
        return min(self._batch_size, self._samples - position * self._batch_size)

    def take(self, place: Place, *, restart: bool = False) -> Batch:
        """Waits for a batch and takes it; the same place may be taken again.

        Args:
            place: (epoch, position).
            restart: the batches that follow are wanted next.

        Raises:
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away.
            StreamClosed: the stream was closed, or a signal's exception went through here,
                or the stream is another process's.
        """
        if os.getpid() != self._owner:  # its lock may be held by a thread that is not here
            raise self._not_ours()
        try:
            with self._lock:
                return self._take(place, restart)
        except LoaderdError:
            raise
        except BaseException:
            # Ctrl-C may strike between any two steps: what we hold is no longer sure.
            self.close()
            raise

    def _not_ours(self) -> StreamClosed:
        return StreamClosed(
            f"the stream belongs to process {self._owner}, and this is a forked child of it: open "
            "a stream here, or use a LoaderSequence, which does so by itself"
        )

    @property
    def ended(self) -> bool:
        """Whether nothing can be taken here any more; another stream of its spec can go on."""
        return self._end is not None or os.getpid() != self._owner

    @property
    def lost(self) -> bool:
        """Whether it ended without our doing."""
        return self._end is not None and not isinstance(self._end, StreamClosed)

    def let_go(self) -> None:
        """Gives the ring of an ended stream up. Arrays that were handed out stay valid.

        They keep the mapping: of a ring that is lost, as its daemon is gone, the rest is emptied.
        """
        if os.getpid() != self._owner:  # its lock may be held by a thread that is not here
            self._forget()
            return
        with self._lock:
            if self._ring is not None and self.lost:
                self._ring.empty()
            self._forget()

    def check(self) -> None:
        """Raises what makes it useless to open the stream again.

        Raises:
            TooManyBadImages: the dataset has too many of them.
        """
        if isinstance(self._end, TooManyBadImages):
            raise TooManyBadImages(*self._end.args)

    # -- under the lock --------------------------------------------------------------

    def _forget(self) -> None:
        self._ready.clear()
        self._ring = None  # arrays that live on hold the mapping themselves

    def _take(self, place: Place, restart: bool) -> Batch:
        self._waiting[place] += 1
        try:
            slot, since = self._obtain(place, restart)
        finally:
            self._waiting[place] -= 1
            if not self._waiting[place]:
                del self._waiting[place]
        return self._hand_out(place, slot, perf_counter_ns() - since)

    def _obtain(self, place: Place, restart: bool) -> tuple[_Slot, int]:
        """The batch's slot, and since when its wait was not told to the daemon."""
        since = begun = perf_counter_ns()
        if place not in self._ready and not self._reading:
            self._read()
        while place not in self._ready:
            if self._end is not None:
                raise type(self._end)(*self._end.args)
            if place not in self._asked:  # again, if another thread took what we asked for
                self._ask(place, restart)
            self._make_room()
            self._wait()
            since = self._tell(since)
            self._tell_user(since - begun)
        return self._ready.pop(place), since

    def _tell(self, since: int) -> int:
        """Tells the daemon of a long wait while it lasts, so that it can be watched."""
        now = perf_counter_ns()
        if now - since < TELL_NS:
            return since
        self._send_took((), (), now - since)
        return now

    def _tell_user(self, waited_ns: int) -> None:
        """Tells the user of a wait for which there is no good reason, once."""
        if waited_ns > LONG_NS and not self._complained:
            self._complained = True
            print(
                f"loaderd: no batch for {waited_ns / 1e9:.0f} s; `loaderd-stat` shows what the "
                "daemon does, and its log may say why",
                file=sys.stderr,
            )

    def _ask(self, place: Place, restart: bool) -> None:
        """Asks for a batch, unless the run brings it by itself."""
        self._asked.add(place)
        if self._run.comes(place):
            return
        aim = restart or self._run.follows(place)
        if restart:
            self._give_up_outside(self._run.window(place, self.slots))
        if aim:
            self._aim(place)
        else:
            self._send(Plan((place,), None))

    def _aim(self, place: Place) -> None:
        """Lets the run go on from ``place``; what others wait for may have been in its way."""
        self._run.aim(place)
        others = [other for other in self._waiting if other != place and other not in self._ready]
        self._send(Plan((place, *others), self._run.after(place)))

    def _give_up_outside(self, window: set[Place]) -> None:
        for other in [other for other in self._ready if other not in window]:
            self._discard(other)

    def _make_room(self) -> None:
        """Gives the daemon a slot to work with, if we hold all of them."""
        if self._releases.slots:
            self._send_took((), (), 0)
        if self._leased + len(self._ready) < self.slots:
            return
        idle = [place for place in self._ready if not self._waiting[place]]
        if idle:
            self._discard(max(idle))

    def _discard(self, place: Place) -> None:
        if not self._waiting[place]:
            self._run.lost(place)
            self._send_took((), (self._ready.pop(place).number,), 0)

    def _hand_out(self, place: Place, slot: _Slot, waited_ns: int) -> Batch:
        left = self.rows(place[1]) - slot.skipped
        error = slot.error or self._nothing_left(place, left)
        if error is not None:
            self._run.lost(place)
            self._send_took((), (slot.number,), waited_ns)
            raise error
        self._note(place, left)
        arrays, ids = self._arrays(slot, self.rows(place[1]), waited_ns)
        images, *others = arrays
        labels = others.pop(0) if self._has_labels else None
        weights = others.pop() if others else None
        return Batch(images, labels, weights, ids, place, slot.attempt)

    def _arrays(
        self, slot: _Slot, rows: int, waited_ns: int
    ) -> tuple[list[NDArray[Any]], NDArray[np.int32]]:
        """The batch's arrays and sample numbers, without the rows that are left out."""
        assert self._ring is not None
        ids = self._ring.ids(slot.number, rows)
        if slot.skipped:
            kept = ids >= 0
            copies = self._copied(slot, rows, waited_ns)
            return [array[kept] for array in copies], ids[kept]
        if self._leased - len(self._releases.slots) + SPARE_SLOTS < self.slots:
            return self._lent(slot, rows, waited_ns), ids
        return self._copied(slot, rows, waited_ns), ids

    def _nothing_left(self, place: Place, rows: int) -> BadImage | None:
        if rows > 0:
            return None
        return BadImage(
            f"every image of batch {place} of {printable(self._directory)} could not be read "
            "(`loaderd errors` says why)"
        )

    def _lent(self, slot: _Slot, rows: int, waited_ns: int) -> list[NDArray[Any]]:
        assert self._ring is not None
        self._leased += 1
        arrays = self._ring.lease(slot.number, rows)
        self._send_took((slot.number,), (), waited_ns)
        return arrays

    def _copied(self, slot: _Slot, rows: int, waited_ns: int) -> list[NDArray[Any]]:
        assert self._ring is not None
        arrays = self._ring.copy(slot.number, rows)
        self._send_took((slot.number,), (slot.number,), waited_ns)
        return arrays

    def _note(self, place: Place, samples: int) -> None:
        """Keeps what was taken; what was left unread in older epochs is given up."""
        self._run.took(place)
        for old in [other for other in self._ready if other[0] < place[0]]:
            self._discard(old)
        self._counts[0] += 1
        self._counts[1] += samples

    def _send_took(self, taken: tuple[int, ...], given_up: tuple[int, ...], ns: int) -> None:
        released = (*given_up, *self._drain_released())
        batches, samples = self._counts
        self._send(Took(taken, released, batches, samples, ns))

    def _drain_released(self) -> list[int]:
        released = self._releases.slots
        slots = [released.popleft() for _ in range(len(released))]
        self._leased -= len(slots)
        return slots

    def _send(self, message: Took | Plan) -> None:
        try:
            self._line.send(message)
        except (Closed, OSError):
            self._hear_last_words()

    def _finish(self, error: LoaderdError) -> None:
        self._end = self._end or error
        self._lock.notify_all()

    def _wait(self) -> None:
        """Waits until something may have changed; the lock is free meanwhile."""
        if self._reading:
            self._lock.wait()
            return
        self._reading = self._releases.heard = True
        try:
            if not self._releases.slots:
                self._sleep()
            self._read()
        finally:
            self._reading = self._releases.heard = False
            self._lock.notify_all()
            if isinstance(self._end, StreamClosed):
                self._line.close()

    def _sleep(self) -> None:
        """Until a message or a released slot is there, or what was not sent can be."""
        poll = select.poll()
        poll.register(self._line.fileno(), select.POLLIN | self._line.unsent * select.POLLOUT)
        poll.register(self._releases.bell, select.POLLIN)
        self._lock.release()
        try:
            poll.poll(TELL_NS // 1_000_000)
        finally:
            self._lock.acquire()
        self._releases.silence()

    def _read(self) -> None:
        """Takes in what the daemon has sent, and sends what it could not take before."""
        try:
            self._line.flush()
        except (Closed, OSError):
            self._hear_last_words()
        else:
            self._hear_all()

    def _hear_last_words(self) -> None:
        """The daemon has hung up; the reason may stand behind what it sent before."""
        if not self._hung_up:
            self._hung_up = True
            self._hear_all()
            self._finish(_gone())

    def _hear_all(self) -> None:
        try:
            while True:
                self._heard(self._line.receive())
        except BlockingIOError:
            return
        except (Closed, OSError):
            self._finish(_gone())
        except ProtocolError as error:
            self._finish(error)

    def _heard(self, message: object) -> None:
        match message:
            case Ready(slot, epoch, position, attempt, skipped):
                check_slot(slot, self.slots)
                self._keep((epoch, position), _Slot(slot, attempt, skipped, None))
            case Spoilt():
                error = from_wire(message.kind, message.text)
                self._keep((message.epoch, message.position), _Slot(message.slot, 0, 0, error))
            case Refused(kind, text):
                self._finish(from_wire(kind, text))
            case _:
                raise ProtocolError(f"the daemon sent {type(message).__name__} to a stream")

    def _keep(self, place: Place, slot: _Slot) -> None:
        if self._ring is None:
            return
        self._asked.discard(place)
        unwanted = self._run.stale(place) and not self._waiting[place]
        if unwanted or place in self._ready:
            self._send_took((), (slot.number,), 0)
        else:
            self._ready[place] = slot

    # -- from anywhere ---------------------------------------------------------------

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        if os.getpid() != self._owner:
            return  # a forked child: the connection is its parent's
        with self._lock:
            if isinstance(self._end, StreamClosed):
                return
            self._end = StreamClosed("the stream was closed")
            self._forget()
            self._line.shut_down()  # wakes whoever waits for it
            self._lock.notify_all()
            if not self._reading:
                self._line.close()
