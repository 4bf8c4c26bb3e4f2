"""One stream as the trainer sees it: batches by (epoch, position), in any order.

::

    daemon ── Ready(slot, place) ──► ready ── take ──► leased arrays ─┐ die
       ▲                               │ not wanted, no room          ▼
       └────────── Took(taken, released) ◄────────────────── released slots

The daemon makes batches ahead, in the order of the run. A batch that is asked for and not
there is planned explicitly, and a ready batch that nobody waits for gives up its slot
where there is no other: so any order of requests ends, and the common one costs nothing.

Threads: every step is made within a guard, and no step waits. All threads that wait do so in
``poll``, for the socket and for a bell; whoever comes first reads what the daemon has sent, and
rings for the others. Released slots arrive from any thread, even from the garbage collector in
the middle of a step; they only append to a deque and ring.

Exceptions: whoever is interrupted while waiting leaves nothing behind. A step that was interrupted
is found out by the next one (``Guard.torn``), and the stream ends: what it knew is not sure.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import weakref
from collections import deque
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import (
    BadImage,
    DaemonGone,
    LoaderdError,
    ProtocolError,
    StorageTimeout,
    StreamClosed,
    TooManyBadImages,
    from_wire,
)
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    IDLE_SECONDS,
    Confirm,
    Confirmed,
    Opened,
    Plan,
    Ready,
    Refused,
    Spoilt,
    Stalled,
    Took,
)
from loaderd.ipc.opened import check_slot, take_over
from loaderd.ipc.owned import Owned
from loaderd.ipc.prefetch import Place, Run, in_time
from loaderd.ipc.slot_layout import is_small
from loaderd.ipc.text import printable
from loaderd.spec.spec import Spec
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.lease import Ring
from loaderd_client.core.mapping import Mapping
from loaderd_client.core.read_ahead import ReadAhead

if TYPE_CHECKING:
    from loaderd_client.core.spare_streams import Kind

SPARE_SLOTS = 2
"""When fewer than these would be left, a batch is copied and not leased."""

_COPIED = 2**15
"""Bytes of a slot whose batch is copied in less time than a lease takes."""

TELL_NS = 500_000_000
"""A wait is told to the daemon after so long, and not only when it ends."""

LONG_NS = 60_000_000_000
"""A wait so long is told to the user."""


_Result = TypeVar("_Result")


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

    def first(self, rows: int) -> Batch:
        """The batch's first rows alone."""
        labels = None if self.labels is None else self.labels[:rows]
        weights = None if self.weights is None else self.weights[:rows]
        return self._replace(
            images=self.images[:rows], labels=labels, weights=weights, ids=self.ids[:rows]
        )


def _gone() -> DaemonGone:
    return DaemonGone(
        "the daemon went away (its log says why); once one runs again (`loaderd start`), go on: "
        "nothing is lost"
    )


_bells = Owned(os.close)


class _Bell:
    """Wakes all who wait in ``poll``; the stream's."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        _bells.watch(self, self.fd)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class _Releases:
    """Slots whose leases have ended.

    Leases know this and not the stream, so that a stream which nobody uses any more goes
    at once, with its connection and its bell, whatever arrays are still held.
    """

    def __init__(self, bell: _Bell) -> None:
        self.slots: deque[int] = deque()
        self.heard = False
        self._bell = weakref.ref(bell)

    def tell(self) -> None:
        """A lease has ended. Runs in any thread, perhaps in the middle of a step."""
        bell = self._bell() if self.heard else None
        if bell is not None:
            bell.ring()


class _Slot(NamedTuple):
    """A slot in our hands: a batch, or why there is none."""

    number: int
    attempt: int
    skipped: int
    error: LoaderdError | None


class _Wait:
    """One call's wait for a batch."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.begun = self.untold = perf_counter_ns()
        self.confirming = False


class Stream:
    """An open stream.

    Args:
        line: the connection that it hangs on.
        spec: what was asked for.
        run: what the daemon was told to make ahead.
        opened: what was given.
        ring: descriptor of the ring, which is now ours.
        manifest: descriptor of the manifest, which is now ours.

    Attributes:
        manifest: names and labels of all samples.
        seed: the seed of order and draws.
        slots: slots of the ring.
        batches: batches in an epoch.
        samples: samples in an epoch.
        used_at: when a batch was last asked for, by ``time.monotonic``.
        is_small: whether its batches are made as fast as it is opened.
        kind: what the next stream on its connection must have in common with it; None if there
            shall be none.
    """

    kind: Kind | None = None

    def __init__(
        self,
        line: Channel,
        spec: Spec,
        run: Run,
        opened: Opened,
        ring: int,
        manifest: int,
    ) -> None:
        given = take_over(spec, opened, ring, manifest, Mapping)
        self.manifest = given.manifest
        self.seed = opened.seed
        self.slots = opened.slots
        self.samples = opened.samples
        self.batches = -(-opened.samples // opened.batch_size)
        self.used_at = self._told_at = monotonic()
        self._batch_size = opened.batch_size
        self.is_small = is_small(spec, given.layout.nbytes)
        self._copies = given.layout.nbytes <= _COPIED
        self._directory = spec.dataset.directory
        self._has_labels = given.layout.labels is not None
        self._bell = _Bell()
        self._releases = _Releases(self._bell)
        self._ring: Ring | None = Ring(
            given.ring, given.layout, self._releases.slots.append, self._releases.tell
        )
        self._line = line
        self._line.settimeout(0)
        self._guard = Guard()
        self._ready: dict[Place, _Slot] = {}
        self._waits: dict[Caller, _Wait] = {}
        self._leased = 0
        may_run = run.next is not None
        self._ahead = ReadAhead(self.batches, run.within(self.batches), self.slots, may_run)
        self._asked: set[Place] = set()
        self._confirmed = True
        self._counts = [0, 0, 0]  # batches, samples, nanoseconds waited
        self._end: LoaderdError | None = None
        self._end_told = False
        self._hung_up = False
        self._complained = False
        self._owner = os.getpid()

    def rows(self, position: int) -> int:
        """Samples in the batch at ``position``."""
        return min(self._batch_size, self.samples - position * self._batch_size)

    @property
    def ended(self) -> bool:
        """Whether nothing can be taken here any more; another stream of its spec can go on."""
        return self._end is not None or os.getpid() != self._owner

    @property
    def lost(self) -> bool:
        """Whether it ended without our doing."""
        return self._end is not None and not isinstance(self._end, StreamClosed)

    def check(self) -> None:
        """Raises what the user must know before the stream is opened again, if it can be.

        Raises:
            TooManyBadImages: the dataset has too many of them.
            StorageTimeout: its disk did not answer; once, as the next request tries again.
        """
        if isinstance(self._end, TooManyBadImages):
            raise TooManyBadImages(*self._end.args)
        if isinstance(self._end, StorageTimeout) and not self._end_told:
            self._raise_end()

    def _raise_end(self) -> NoReturn:
        assert self._end is not None
        self._end_told = True
        raise type(self._end)(*self._end.args)

    def take(self, place: Place, me: Caller | None = None) -> Batch:
        """Waits for a batch and takes it; the same place may be taken again.

        Args:
            place: (epoch, position).
            me: the call that it is for; None for this one.

        Raises:
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away.
            RingReclaimed: the stream was silent for long, and its room was needed.
            StreamClosed: the stream was closed, or a step of it was interrupted, or the
                stream is another process's.
        """
        if os.getpid() != self._owner:
            raise self._not_ours()
        me = me or Caller()
        self._forget_waits_of(me.thread)
        wait = self._waits[me] = _Wait(place)
        try:
            while True:
                batch = self._step(me, lambda: self._try(wait))
                if batch is not None:
                    return batch
                self._sleep()
        finally:
            self._waits.pop(me, None)

    def _forget_waits_of(self, thread: int) -> None:
        """Those that were interrupted: a thread waits for one batch at a time."""
        for caller in tuple(self._waits):
            if caller.thread == thread:
                self._waits.pop(caller, None)

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        if os.getpid() != self._owner:
            return  # a forked child: the connection is its parent's
        me = Caller()
        self._step(me, self._close)

    def detach(self) -> Channel | None:
        """Ends a stream that nobody has any more, so that another is opened on its connection.

        Returns:
            The connection; None if arrays of the stream live, or it has ended before.
        """
        if self.ended:
            return None
        me = Caller()
        return self._step(me, self._detach)

    def let_go(self) -> None:
        """Gives the ring of an ended stream up. Arrays that were handed out stay valid.

        They keep the mapping: of a ring that is lost, as its daemon is gone, the rest is emptied.
        """
        me = Caller()
        if os.getpid() != self._owner:
            self._forget()
        else:
            self._step(me, self._let_go)

    @property
    def ahead(self) -> Run:
        """How the trainer reads; without a beginning."""
        return self._ahead.shape

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a batch of it."""
        return all(caller.left for caller in tuple(self._waits))

    # -- steps, within the guard -----------------------------------------------------

    def _step(self, me: Caller, step: Callable[[], _Result]) -> _Result:
        """Makes a step.

        One that is left by an exception which is no error of ours does not give the guard back:
        the next one finds it torn.
        """
        self._guard.enter(me)
        if self._guard.torn and self._end is None:
            self._close()  # what we hold is not sure
        try:
            result = step()
        except LoaderdError:
            self._guard.give_back()
            raise
        self._guard.give_back()
        return result

    def _not_ours(self) -> StreamClosed:
        return StreamClosed(
            f"the stream belongs to process {self._owner}, and this is a forked child of it: open "
            "a stream here, or use a LoaderSequence, which does so by itself"
        )

    def _try(self, wait: _Wait) -> Batch | None:
        """The batch, if it is there; else sees to it that it comes."""
        self.used_at = monotonic()
        if not self._is_ours(wait):
            return None
        place = wait.place
        if place not in self._ready:
            self._read()
        if place in self._ready:
            before = self._told_at
            batch = self._hand_out(place, self._ready.pop(place), wait)
            if monotonic() - before < IDLE_SECONDS:
                return batch
            # We stood still in between: the daemon may have taken the slot away before it heard.
            self._confirmed = False
            return None
        if self._end is not None:
            self._raise_end()
        if place not in self._asked:  # again, if another thread took what we asked for
            self._ask(place)
        self._make_room()
        self._tell(wait)
        self._prepare_to_sleep()
        return None

    def _is_ours(self, wait: _Wait) -> bool:
        """Whether what is ready may be read: after a long silence the daemon is asked first."""
        if self._end is not None:
            return True
        if self._confirmed and self.used_at - self._told_at < IDLE_SECONDS / 2:
            return True
        if not wait.confirming:
            wait.confirming, self._confirmed = True, False
            self._send(Confirm())
        self._read()
        if not self._confirmed and self._end is None:
            self._prepare_to_sleep()
            return False
        return True

    def _forget(self) -> None:
        self._ready.clear()
        self._ring = None  # arrays that live on hold the mapping themselves

    def _close(self) -> None:
        if isinstance(self._end, StreamClosed):
            return
        self._end = StreamClosed("the stream was closed")
        if self._ring is not None and self._ring.is_leased:
            self._ring.empty()
        self._forget()
        self._line.shut_down()  # wakes whoever waits for it
        self._bell.ring()
        if not self._waits:
            self._line.close()

    def _detach(self) -> Channel | None:
        if self._waits or self._ring is None or self._ring.is_leased:
            return None
        if self._releases.slots:
            self._send_took((), (), 0)  # that the daemon knows that nobody reads them
        if self._end is not None or self._line.unsent:
            return None
        self._end = StreamClosed("the stream was closed")
        self._forget()
        return self._line

    def _let_go(self) -> None:
        if self._ring is not None and self.lost:
            self._ring.empty()
        self._forget()

    def _tell(self, wait: _Wait) -> None:
        """Tells the daemon of a long wait while it lasts, and the user of a very long one."""
        now = perf_counter_ns()
        if now - wait.untold >= TELL_NS:
            self._send_took((), (), now - wait.untold)
            wait.untold = now
        if now - wait.begun > LONG_NS and not self._complained:
            self._complained = True
            print(
                f"loaderd: no batch for {(now - wait.begun) / 1e9:.0f} s; `loaderd-stat` shows "
                "what the daemon does, and its log may say why",
                file=sys.stderr,
            )

    def _waited_for(self, place: Place) -> bool:
        return any(wait.place == place for wait in tuple(self._waits.values()))

    def _ask(self, place: Place) -> None:
        """Asks for a batch, unless the run brings it by itself."""
        self._asked.add(place)
        if self._ahead.comes(place):
            return
        run = self._ahead.ask(place)
        if run is None:
            self._send(Plan((place,), None))
            return
        if run.next is not None:
            self._give_up_outside(self._ahead.window(place))
            run = run.at(run.after(place))
        # What others wait for may have been in the way of the run that ends here.
        waits = {wait.place for wait in tuple(self._waits.values())} - {place}
        others = [other for other in waits if other not in self._ready]
        self._send(Plan((place, *others), run))

    def _give_up_outside(self, window: set[Place]) -> None:
        for other in [other for other in self._ready if other not in window]:
            self._discard(other)

    def _make_room(self) -> None:
        """Gives the daemon a slot to work with, if we hold all of them."""
        if self._ring is not None:
            self._ring.sweep()
        if self._releases.slots:
            self._send_took((), (), 0)
        if self._leased + len(self._ready) < self.slots:
            return
        idle = [place for place in self._ready if not self._waited_for(place)]
        if idle:
            self._discard(max(idle, key=in_time))

    def _discard(self, place: Place) -> None:
        if not self._waited_for(place):
            self._ahead.lost(place)
            self._send_took((), (self._ready.pop(place).number,), 0)

    def _hand_out(self, place: Place, slot: _Slot, wait: _Wait) -> Batch:
        waited_ns = perf_counter_ns() - wait.untold
        left = self.rows(place[1]) - slot.skipped
        error = slot.error or self._nothing_left(place, left)
        if error is not None:
            self._ahead.lost(place)
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
        scarce = self._leased - len(self._releases.slots) + SPARE_SLOTS >= self.slots
        if scarce or self._copies:
            return self._copied(slot, rows, waited_ns), ids
        return self._lent(slot, rows, waited_ns), ids

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
        self._ahead.took(place)
        first = in_time((place[0], 0))
        for old in [other for other in self._ready if in_time(other) < first]:
            self._discard(old)
        self._counts[0] += 1
        self._counts[1] += samples

    def _send_took(self, taken: tuple[int, ...], given_up: tuple[int, ...], ns: int) -> None:
        released = (*given_up, *self._drain_released())
        self._counts[2] += ns
        self._send(Took(taken, released, *self._counts))

    def _drain_released(self) -> list[int]:
        released = self._releases.slots
        slots = [released.popleft() for _ in range(len(released))]
        self._leased -= len(slots)
        return slots

    def _send(self, message: Took | Plan | Confirm) -> None:
        try:
            self._line.send(message)
            self._told_at = monotonic()
        except (Closed, OSError):
            self._hear_last_words()

    def _finish(self, error: LoaderdError) -> None:
        self._end = self._end or error
        self._bell.ring()

    def _read(self) -> None:
        """Takes in what the daemon has sent, and sends what it could not take before."""
        try:
            self._line.flush()
        except (Closed, OSError):
            self._hear_last_words()
        else:
            # Not all: in place of what we give back others may come for ever.
            self._hear(self.slots)

    def _hear_last_words(self) -> None:
        """The daemon has hung up; the reason may stand behind what it sent before."""
        if not self._hung_up:
            self._hung_up = True
            self._hear(sys.maxsize)
            self._finish(_gone())

    def _hear(self, most: int) -> None:
        try:
            for _ in range(most):
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
                check_slot(message.slot, self.slots)
                error = from_wire(message.kind, message.text)
                self._keep((message.epoch, message.position), _Slot(message.slot, 0, 0, error))
            case Confirmed():
                self._confirmed = True
            case Stalled(text):
                print(f"loaderd: {printable(text)}", file=sys.stderr)
            case Refused(kind, text):
                self._finish(from_wire(kind, text))
            case _:
                raise ProtocolError(f"the daemon sent {type(message).__name__} to a stream")

    def _keep(self, place: Place, slot: _Slot) -> None:
        if self._ring is None:
            return
        wanted = place in self._asked or self._ahead.expects(place)
        self._asked.discard(place)
        waited_for = self._waited_for(place)
        if place in self._ready or not (wanted or waited_for):
            # To keep it would hold a slot, and have the daemon think that we have enough.
            if place not in self._ready:
                self._ahead.lost(place)
            self._send_took((), (slot.number,), 0)
            return
        self._ready[place] = slot
        if waited_for and len(self._waits) > 1:
            self._bell.ring()

    # -- waiting, outside the guard --------------------------------------------------

    def _prepare_to_sleep(self) -> None:
        """Stops the bell, unless it rings for somebody who is about to look."""
        self._releases.heard = True
        waits = tuple(self._waits.items())
        for caller, wait in waits:
            if len(waits) > 1 and wait.place in self._ready and not caller.left:
                return
        if self._end is None and not self._releases.slots:
            self._bell.silence()

    def _sleep(self) -> None:
        """Until a message or a released slot is there, or what was not sent can be."""
        poll = select.poll()
        poll.register(self._line.fileno(), select.POLLIN | self._line.unsent * select.POLLOUT)
        poll.register(self._bell.fd, select.POLLIN)
        poll.poll(TELL_NS // 1_000_000)
