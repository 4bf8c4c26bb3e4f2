"""One stream as the trainer sees it: batches by (epoch, position), in any order.

::

    daemon ── Ready(slot, place) ──► ready ── take ──► leased arrays ─┐ die
       ▲                               │ not wanted, no room          ▼
       └────────── Ack(taken, released) ◄────────────────── released slots

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

import os
import sys
from collections.abc import Callable
from time import monotonic, perf_counter_ns
from typing import TypeVar

from loaderd.errors import (
    LoaderdError,
    ProtocolError,
    StreamClosed,
    from_wire,
)
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import (
    IDLE_SECONDS,
    Ack,
    BatchFailed,
    Confirm,
    Confirmed,
    Message,
    Opened,
    Plan,
    Ready,
    Refused,
    Stalled,
)
from loaderd.ipc.opened import check_slot, take_over
from loaderd.ipc.prefetch import Place, Run
from loaderd.ipc.slot_layout import is_small
from loaderd.ipc.text import printable
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.spec import Spec
from loaderd_client.core.batch import Batch, RingBatches, Slot
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.lease import Ring
from loaderd_client.core.link import TELL_NS, Bell, Link
from loaderd_client.core.mapping import Mapping
from loaderd_client.core.subscription import BatchWait, Subscription

LONG_NS = 60_000_000_000
"""A wait so long is told to the user."""

Kind = tuple[str, Spec, int, tuple[tuple[str, tuple[int, ...], str], ...]]
"""What streams that follow one another have in common: all but the seed and the arrays' values."""

_Result = TypeVar("_Result")


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
        subscription: what its trainer has had of it, wants and holds.
        used_at: when a batch was last asked for, by ``time.monotonic``.
        is_small: whether its batches are made as fast as it is opened.
        kind: what the next stream on its connection must have in common with it; None if there
            shall be none.
    """

    kind: Kind | None = None

    def __init__(
        self, line: Channel, spec: Spec, run: Run, opened: Opened, ring: int, manifest: int
    ) -> None:
        given = take_over(spec, opened, ring, manifest, Mapping)
        self.manifest = given.manifest
        self.seed = opened.seed
        self.slots = opened.slots
        self.samples = opened.samples
        self.batches = EpochLayout(opened.samples, opened.batch_size).batches
        self.is_small = is_small(spec, given.layout.nbytes)
        self.used_at = monotonic()
        self._bell = Bell()
        self.subscription = Subscription(self.batches, opened.slots, run, self._bell)
        released = self.subscription.releases
        mapped = Ring(given.ring, given.layout, released.slots.append, released.tell)
        self._ring: RingBatches | None = RingBatches(mapped, given.layout, opened, spec)
        self._link = Link(line, self._bell)
        self._guard = Guard()
        self._complained = False
        self._owner = os.getpid()

    @property
    def ended(self) -> bool:
        """Whether nothing can be taken here any more; another stream of its spec can go on."""
        return self._link.end is not None or os.getpid() != self._owner

    def check(self) -> None:
        """Raises what the user must know before the stream is opened again, if it can be.

        Raises:
            TooManyBadImages: the dataset has too many of them.
            StorageTimeout: its disk did not answer; once, as the next request tries again.
        """
        self._link.check()

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
            raise _not_ours(self._owner)
        me = me or Caller()
        wait = self.subscription.begin_wait(me, place)
        try:
            while True:
                batch = self._step(me, lambda: self._try(wait))
                if batch is not None:
                    return batch
                self._link.sleep()
        finally:
            self.subscription.waits.pop(me, None)

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

    # -- steps, within the guard -----------------------------------------------------

    def _step(self, me: Caller, step: Callable[[], _Result]) -> _Result:
        """Makes a step.

        One that is left by an exception which is no error of ours does not give the guard back:
        the next one finds it torn.
        """
        self._guard.enter(me)
        if self._guard.torn and self._link.end is None:
            self._close()  # what we hold is not sure
        try:
            result = step()
        except LoaderdError:
            self._guard.give_back()
            raise
        self._guard.give_back()
        return result

    def _try(self, wait: BatchWait) -> Batch | None:
        """The batch, if it is there; else sees to it that it comes."""
        self.used_at = monotonic()
        if not self._is_ours(wait):
            return None
        place = wait.place
        if not self.subscription.has(place):
            self._link.read(self.slots, self._heard)
        if self.subscription.has(place):
            before = self._link.told_at
            batch = self._hand_out(place, self.subscription.take(place), wait)
            if monotonic() - before < IDLE_SECONDS:
                return batch
            # We stood still in between: the daemon may have taken the slot away before it heard.
            self._link.confirmed = False
            return None
        if self._link.end is not None:
            self._link.raise_end()
        self._send(*self.subscription.ask(place))
        if self._ring is not None:
            self._ring.ring.sweep()
        self._send(*self.subscription.make_room())
        self._tell(wait)
        self.subscription.prepare_to_sleep(self._link.end is not None)
        return None

    def _is_ours(self, wait: BatchWait) -> bool:
        """Whether what is ready may be read: after a long silence the daemon is asked first."""
        if self._link.is_sure(self.used_at):
            return True
        if not wait.confirming:
            wait.confirming, self._link.confirmed = True, False
            self._send(Confirm())
        self._link.read(self.slots, self._heard)
        if self._link.confirmed or self._link.end is not None:
            return True
        self.subscription.prepare_to_sleep(ended=False)
        return False

    def _forget(self) -> None:
        self.subscription.clear()
        self._ring = None  # arrays that live on hold the mapping themselves

    def _close(self) -> None:
        if isinstance(self._link.end, StreamClosed):
            return
        self._link.end = StreamClosed("the stream was closed")
        if self._ring is not None and self._ring.ring.is_leased:
            self._ring.ring.empty()
        self._forget()
        self._link.channel.shut_down()  # wakes whoever waits for it
        self._bell.ring()
        if not self.subscription.waits:
            self._link.channel.close()

    def _detach(self) -> Channel | None:
        if self.subscription.waits or self._ring is None or self._ring.ring.is_leased:
            return None
        if self.subscription.releases.slots:
            self._send(self.subscription.word())  # that the daemon knows that nobody reads them
        if self._link.end is not None or self._link.channel.unsent:
            return None
        self._link.end = StreamClosed("the stream was closed")
        self._forget()
        return self._link.channel

    def _let_go(self) -> None:
        if self._ring is not None and not isinstance(self._link.end, StreamClosed):
            self._ring.ring.empty()
        self._forget()

    def _tell(self, wait: BatchWait) -> None:
        """Tells the daemon of a long wait while it lasts, and the user of a very long one."""
        now = perf_counter_ns()
        if now - wait.untold >= TELL_NS:
            self._send(self.subscription.word(waited_ns=now - wait.untold))
            wait.untold = now
        if now - wait.begun > LONG_NS and not self._complained:
            self._complained = True
            _complain((now - wait.begun) / 1e9)

    def _hand_out(self, place: Place, slot: Slot, wait: BatchWait) -> Batch:
        assert self._ring is not None
        waited_ns, subscription = perf_counter_ns() - wait.untold, self.subscription
        error = self._ring.error(place, slot)
        if error is not None:
            self._send(subscription.refuse(place, slot, waited_ns))
            raise error
        self._send(*subscription.note(place, self._ring.rows(place, slot)))
        lend = self._ring.is_lent(slot) and subscription.may_lease
        batch = self._ring.make(place, slot, lend)
        self._send(subscription.took(slot, lend, waited_ns))
        return batch

    def _send(self, *messages: Ack | Plan | Confirm) -> None:
        for message in messages:
            self._link.send(message, self._heard)

    def _heard(self, message: Message) -> None:
        match message:
            case Ready() | BatchFailed():
                check_slot(message.slot, self.slots)
                if self._ring is not None:
                    place = (message.epoch, message.position)
                    self._send(*self.subscription.keep(place, Slot.of(message)))
            case Confirmed():
                self._link.confirmed = True
            case Stalled(text):
                print(f"loaderd: {printable(text)}", file=sys.stderr)
            case Refused(kind, text):
                self._link.finish(from_wire(kind, text))
            case _:
                raise ProtocolError(f"the daemon sent {type(message).__name__} to a stream")


def _not_ours(owner: int) -> StreamClosed:
    return StreamClosed(
        f"the stream belongs to process {owner}, and this is a forked child of it: open a stream "
        "here, or use a LoaderSequence, which does so by itself"
    )


def _complain(seconds: float) -> None:
    print(
        f"loaderd: no batch for {seconds:.0f} s; `loaderd-stat` shows what the daemon does, and "
        "its log may say why",
        file=sys.stderr,
    )
