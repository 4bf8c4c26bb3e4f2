"""The client side of one stream: batches by (epoch, position), in any order.

::

    daemon ── Ready(slot, place) ──► ready ── take ──► leased arrays ─┐ die
       ▲                               │ not wanted, no room          ▼
       └────────── Ack(taken, released) ◄────────────────── released slots

The daemon makes batches ahead, in the order of the run. A requested batch that is not ready is
planned explicitly, and a ready batch that no call waits for is discarded if no other slot is
left. So any order of requests terminates, and reading in order costs no extra message.

Threads: every step runs under a guard, and no step blocks. Threads wait in ``poll``, for the socket
and for the notifier; the first to wake reads the messages and notifies the others. Slots are
released by any thread, also by the garbage collector during a step: this only appends to a deque
and notifies.

Exceptions: an interrupted wait leaves no state behind. An interrupted step is detected by the next
one (``Guard.torn``), which ends the stream, as its state may be inconsistent.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from time import monotonic, perf_counter_ns
from typing import NamedTuple

from loaderd.errors import LeftBehind, ProtocolError, StreamClosed, from_wire
from loaderd.ipc.bundle import Bundle
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import (
    IDLE_SECONDS,
    Ack,
    BatchFailed,
    Confirm,
    Confirmed,
    Leave,
    Message,
    Opened,
    Plan,
    Ready,
    Refused,
    Share,
    Stalled,
)
from loaderd.ipc.opened import check_slot, take_over
from loaderd.ipc.prefetch import Place, Run
from loaderd.ipc.slot_layout import is_small
from loaderd.ipc.text import printable
from loaderd.spec.spec import Spec
from loaderd_client.core.batch import Batch, RingBatches, Slot, epoch_layout
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.lease import Ring
from loaderd_client.core.link import REPORT_NS, Link, Waker
from loaderd_client.core.mapping import Mapping
from loaderd_client.core.shared_subscription import SharedSubscription
from loaderd_client.core.subscription import BatchWait, Subscription

LONG_NS = 60_000_000_000
"""A wait longer than this is reported to the user, once."""


class StreamRequest(NamedTuple):
    """What a stream is opened for: the arguments of ``Session.open``."""

    spec: Spec
    slots: int
    run: Run
    bundles: Sequence[Bundle]
    share: Share | None = None


Kind = tuple[str, Spec, int, tuple[tuple[str, tuple[int, ...], str], ...]]
"""What streams on one connection must share: all but the seed and the arrays' values."""


class Stream:
    """An open stream.

    Args:
        channel: its connection.
        spec: the spec that was requested.
        run: the run that the daemon was given.
        opened: the daemon's answer.
        ring: descriptor of the ring; owned by the stream.
        manifest: descriptor of the manifest; owned by the stream.

    Attributes:
        manifest: names and labels of all samples.
        seed: the seed of order and draws.
        slots: of the ring.
        batches, samples: in an epoch.
        subscription: its trainer's requests and slots.
        first: of a shared stream: the first batch that comes; else None.
        used_at: when a batch was last requested, by ``time.monotonic``.
        is_small: whether its batches are made as fast as it is opened.
        kind: what the next stream on its connection must share; None if its connection is not
            reused.
    """

    kind: Kind | None = None

    def __init__(
        self, channel: Channel, spec: Spec, run: Run, opened: Opened, ring: int, manifest: int
    ) -> None:
        layout, memory, self.manifest = take_over(spec, opened, ring, manifest, Mapping)
        self.seed = opened.seed
        self.slots = opened.slots
        self.samples = opened.samples
        self.batches = epoch_layout(opened, spec).batches
        self.is_small = is_small(spec, layout.nbytes)
        self.used_at = monotonic()
        self._notifier = Waker()
        self.subscription = _subscription(opened, self.batches, run, self._notifier)
        self.first = None if opened.joined is None else opened.joined.first
        memory.companion = None if opened.joined is None else channel  # its end is that of arrays
        released = self.subscription.releases
        slots = Ring(memory, layout, released.slots.append, released.notify)
        self._ring: RingBatches | None = RingBatches(slots, layout, opened, spec)
        self._link = Link(channel, self._notifier)
        self._guard = Guard()
        self._warned = False
        self._owner = os.getpid()

    @property
    def ended(self) -> bool:
        """Whether no batch can be taken any more; another stream of its spec can continue."""
        return self._link.end is not None or os.getpid() != self._owner

    def check(self) -> None:
        """Raises an error of an ended stream that must reach the user before it is reopened.

        Raises:
            TooManyBadImages: the dataset has too many of them.
            StorageTimeout: its disk did not answer; raised once, as the next request retries.
            StorageRefused: its object store refuses; the same.
        """
        self._link.check()

    def take(self, place: Place, me: Caller | None = None) -> Batch:
        """Waits for a batch and takes it; a place may be taken more than once.

        Args:
            place: (epoch, position).
            me: the call that waits; None for this one.

        Raises:
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away.
            RingReclaimed: the stream was idle, and its memory was needed.
            StreamClosed: the stream was closed, or a step of it was interrupted, or the
                stream belongs to another process.
        """
        if os.getpid() != self._owner:
            raise StreamClosed(
                f"the stream belongs to process {self._owner}, and this is a forked child of it: "
                "open a stream here, or use a LoaderSequence, which does so by itself"
            )
        if self.subscription.should_collect():
            gc.collect()  # the iterator of a fit that was stopped is in a reference cycle of Keras
        me = me or Caller()
        wait = self.subscription.begin_wait(me, place)
        try:
            while True:
                batch = self._guard.run(lambda: self._try(wait), me, self._mend)
                if batch is not None:
                    return batch
                self._link.sleep()
        finally:
            self.subscription.waits.pop(me, None)

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        if os.getpid() == self._owner:  # in a forked child the connection is its parent's
            self._guard.run(self._close, mend=self._mend)

    def detach(self) -> Channel | None:
        """Ends an unused stream, so that another one can be opened on its connection.

        Returns:
            The connection; None if arrays of the stream are alive, or it has ended before.
        """
        return None if self.ended else self._guard.run(self._detach, mend=self._mend)

    def release_ring(self) -> None:
        """Releases the ring of an ended stream. Arrays that were handed out stay valid.

        They keep the mapping alive; the memory of all slots that are not leased is freed.
        """
        if os.getpid() != self._owner:
            self._forget()
        else:
            self._guard.run(self._release_ring, mend=self._mend)

    # -- steps, within the guard -----------------------------------------------------

    def _mend(self) -> None:
        """Ends the stream after an interrupted step: its state may be inconsistent."""
        if self._link.end is None:
            self._close()

    def _try(self, wait: BatchWait) -> Batch | None:
        """Returns the batch if it is ready; else requests it and returns None."""
        self.used_at = monotonic()
        if not self._is_ours(wait):
            return None
        place = wait.place
        if place not in self.subscription.ready:
            self._link.read(self.slots, self._handle)
        if place in self.subscription.ready:
            before = self._link.sent_at
            batch = self._hand_out(place, self.subscription.ready.pop(place), wait)
            if monotonic() - before < IDLE_SECONDS:
                return batch
            # Suspended in between: the daemon may have reclaimed the slot before our Ack came.
            self._link.confirmed = False
            return None
        if self._link.end is not None:
            self._link.raise_end()
        self._send(*self.subscription.ask(place))
        if self._ring is not None:
            self._ring.ring.sweep()
        self._send(*self.subscription.make_room())
        self._report(wait)
        self.subscription.prepare_to_sleep(self._link.end is not None)
        return None

    def _is_ours(self, wait: BatchWait) -> bool:
        """Whether ready slots may be read; after a long silence asks the daemon first."""
        if self._link.is_sure(self.used_at):
            return True
        if not wait.confirming:
            wait.confirming, self._link.confirmed = True, False
            self._send(Confirm())
        self._link.read(self.slots, self._handle)
        if self._link.confirmed or self._link.end is not None:
            return True
        self.subscription.prepare_to_sleep(ended=False)
        return False

    def _forget(self) -> None:
        self.subscription.ready.clear()
        self._ring = None  # arrays that are alive hold the mapping

    def _empty(self) -> None:
        if self._ring is not None and self.first is None:  # of a shared one others read it
            self._ring.ring.empty()

    def _close(self) -> None:
        if isinstance(self._link.end, StreamClosed):
            return
        is_leased = self._ring is not None and self._ring.ring.is_leased
        stays = is_leased and self.first is not None
        if stays and self._link.end is None:
            self._send(self.subscription.give_up(), Leave())
        self._link.end = StreamClosed("the stream was closed")
        if is_leased:
            self._empty()
        self._forget()
        self._notifier.notify()
        if not stays:  # else the arrays hold the connection, by whose end the daemon knows theirs
            self._link.hang_up(is_polled=bool(self.subscription.waits))

    def _detach(self) -> Channel | None:
        if self.subscription.waits or self._ring is None or self._ring.ring.is_leased:
            return None
        if self.subscription.releases.slots:
            self._send(self.subscription.ack())  # the daemon may write these slots again
        if self._link.end is not None or self._link.channel.unsent:
            return None
        self._link.end = StreamClosed("the stream was closed")
        self._forget()
        return self._link.channel

    def _release_ring(self) -> None:
        if not isinstance(self._link.end, StreamClosed):
            self._empty()
        self._forget()

    def _report(self, wait: BatchWait) -> None:
        """Reports a long wait to the daemon while it lasts, and a very long one to the user."""
        now = perf_counter_ns()
        if now - wait.reported_at >= REPORT_NS:
            self._send(self.subscription.ack(waited_ns=now - wait.reported_at))
            wait.reported_at = now
        if now - wait.begun > LONG_NS and not self._warned:
            self._warned = True
            warn(
                f"no batch for {(now - wait.begun) / 1e9:.0f} s; `loaderd-stat` shows what the "
                "daemon does, and its log may say why"
            )

    def _hand_out(self, place: Place, slot: Slot, wait: BatchWait) -> Batch:
        assert self._ring is not None
        waited_ns, subscription = perf_counter_ns() - wait.reported_at, self.subscription
        error = self._ring.error(place, slot)
        if error is not None:
            self._send(subscription.refuse(place, slot, waited_ns))
            raise error
        self._send(*subscription.note(place, self._ring.rows(place, slot)))
        leased = self._ring.is_leasable(slot) and subscription.may_lease
        batch = self._ring.make(place, slot, leased)
        self._send(subscription.took(slot, leased, waited_ns))
        return batch

    def _send(self, *messages: Ack | Plan | Leave | Confirm) -> None:
        for message in messages:
            self._link.send(message, self._handle)

    def _handle(self, message: Message) -> None:
        match message:
            case Ready() | BatchFailed():
                check_slot(message.slot, self.slots)
                if self._ring is not None:
                    place = (message.epoch, message.position)
                    self._send(*self.subscription.keep(place, Slot.of(message)))
            case Confirmed():
                self._link.confirmed = True
            case Stalled(text):
                warn(printable(text))
            case Refused(kind, text):
                self._link.finish(from_wire(kind, text))
                if kind == LeftBehind.__name__:
                    self._send(self.subscription.give_up())
            case _:
                raise ProtocolError(f"the daemon sent {type(message).__name__} to a stream")


def has_come(stream: Stream, place: Place) -> bool:
    """Whether a batch can be taken without waiting; reads the messages that have come."""

    def look() -> bool:
        if place not in stream.subscription.ready:
            stream._link.read(stream.slots, stream._handle)
        return place in stream.subscription.ready

    return not stream.ended and stream._guard.run(look, mend=stream._mend)


def _subscription(opened: Opened, batches: int, run: Run, notifier: Waker) -> Subscription:
    if opened.joined is not None:
        return SharedSubscription(batches, opened.slots, opened.joined, notifier)
    return Subscription(batches, opened.slots, run, notifier)


def warn(words: str) -> None:
    """Prints a line to stderr, unless the program has closed it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"loaderd: {words}", file=sys.stderr)
