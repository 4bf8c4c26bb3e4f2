"""The client's state of one trainer in a stream: batches requested, ready, leased and taken.

Methods return the messages to send to the daemon, in order; there is no I/O here. They are called
under the stream's guard, except that any thread may release a slot by appending it to a deque.
"""

from __future__ import annotations

from time import perf_counter_ns

from loaderd.ipc.messages import Ack, Plan
from loaderd.ipc.prefetch import Place, Run, in_time
from loaderd_client.core.batch import Slot
from loaderd_client.core.guard import Caller
from loaderd_client.core.link import Releases, Waker
from loaderd_client.core.read_ahead import ReadAhead

SPARE_SLOTS = 2
"""A batch is copied, not leased, if fewer slots than this would be left."""

MAX_LEASE_AGE = 32
"""A lease that outlives so many batches is not of one that a trainer reads ahead."""


class BatchWait:
    """One call's wait for a batch."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.begun = self.reported_at = perf_counter_ns()
        self.confirming = False


class Subscription:
    """The cursor of one trainer in a stream, with its requests and its slots.

    Args:
        batches: batches in an epoch.
        slots: slots of the ring.
        run: the run that the daemon was given.
        notifier: wakes waiting threads.

    Attributes:
        waits: the wait of each waiting call.
        releases: slots whose arrays have been freed.
        ready: the slots of ready batches; emptied when the ring is released.
    """

    def __init__(self, batches: int, slots: int, run: Run, notifier: Waker) -> None:
        self.waits: dict[Caller, BatchWait] = {}
        self.releases = Releases(notifier)
        self._slots = slots
        self._notifier = notifier
        self._ahead = ReadAhead(batches, run.within(batches), slots, run.next is not None)
        self._asked: set[Place] = set()
        self.ready: dict[Place, Slot] = {}
        self._leased: dict[int, int] = {}  # slot → batches taken before, oldest first
        self._has_garbage = False
        self._max_age = MAX_LEASE_AGE
        self._batches = self._samples = self._waited_ns = 0

    @property
    def shape(self) -> Run:
        """The run (end, step, stride) without a start."""
        return self._ahead.shape

    @property
    def may_lease(self) -> bool:
        """Whether ``SPARE_SLOTS`` slots are left if another one is leased."""
        return len(self._leased) - len(self.releases.slots) + SPARE_SLOTS < self._slots

    def should_collect(self) -> bool:
        """Whether to collect garbage, which may hold leases; true once for each reason."""
        due, self._has_garbage = self._has_garbage, False
        return due

    def begin_wait(self, me: Caller, place: Place) -> BatchWait:
        """Registers a wait; drops earlier waits of this thread, which were interrupted."""
        for caller in tuple(self.waits):
            if caller.thread == me.thread:
                self.waits.pop(caller, None)
        wait = self.waits[me] = BatchWait(place)
        return wait

    @property
    def idle(self) -> bool:
        """Whether no call waits for a batch."""
        return all(caller.left for caller in tuple(self.waits))

    def _waited_for(self, place: Place) -> bool:
        return any(wait.place == place for wait in tuple(self.waits.values()))

    def ask(self, place: Place) -> list[Ack | Plan]:
        """Requests a batch, unless it was requested before or comes next in the run."""
        if place in self._asked:  # False if another thread took the batch
            return []
        self._asked.add(place)
        if self._ahead.comes(place):
            return []
        run = self._ahead.ask(place)
        if run is None:
            return [Plan((place,), None)]
        messages: list[Ack | Plan] = []
        if run.next is not None:
            window = self._ahead.window(place)
            for other in [other for other in self.ready if other not in window]:
                messages += self._discard(other)
            run = run.at(run.after(place))
        # Other waiting calls may have relied on the run that ends here: request theirs too.
        waits = {wait.place for wait in tuple(self.waits.values())} - {place}
        others = [other for other in waits if other not in self.ready]
        return [*messages, Plan((place, *others), run)]

    def make_room(self) -> list[Ack]:
        """Releases freed slots; discards a ready batch if the client holds every slot."""
        messages = [self.ack()] if self.releases.slots else []
        if len(self._leased) + len(self.ready) < self._slots:
            return messages
        idle = [place for place in self.ready if not self._waited_for(place)]
        return messages + (self._discard(max(idle, key=in_time)) if idle else [])

    def _discard(self, place: Place) -> list[Ack]:
        if self._waited_for(place):
            return []
        self._ahead.lost(place)
        return [self.ack(released=(self.ready.pop(place).number,))]

    def refuse(self, place: Place, slot: Slot, waited_ns: int) -> Ack:
        """Releases a slot that holds no batch."""
        self._ahead.lost(place)
        return self.ack(released=(slot.number,), waited_ns=waited_ns)

    def note(self, place: Place, samples: int) -> list[Ack]:
        """Counts a taken batch; releases unread batches of earlier epochs."""
        self._ahead.took(place)
        first = in_time((place[0], 0))
        old = [other for other in self.ready if in_time(other) < first]
        messages = [ack for other in old for ack in self._discard(other)]
        self._batches += 1
        self._samples += samples
        return messages

    def took(self, slot: Slot, leased: bool, waited_ns: int) -> Ack:
        """Acknowledges a taken batch: its slot is leased, or was copied and is released."""
        if not leased:
            self._check_leases()
            return self.ack((slot.number,), (slot.number,), waited_ns)
        self._leased[slot.number] = self._batches
        return self.ack((slot.number,), waited_ns=waited_ns)

    def _check_leases(self) -> None:
        """Notes that garbage may hold leases: the oldest is old, and leaves only copies to give.

        Notes it again when the oldest is twice as old, as collections are slow and may not help.
        """
        age = self._batches - next(iter(self._leased.values()), self._batches)
        if age < MAX_LEASE_AGE:
            self._max_age = MAX_LEASE_AGE
        elif age >= self._max_age and not self.may_lease:
            self._has_garbage = True
            self._max_age = 2 * age

    def keep(self, place: Place, slot: Slot) -> list[Ack]:
        """Keeps a slot that is ready; releases it if its batch is not wanted."""
        wanted = place in self._asked or self._ahead.expects(place)
        self._asked.discard(place)
        waited_for = self._waited_for(place)
        if place in self.ready or not (wanted or waited_for):
            # Kept, it would hold a slot and count as READY in the daemon's scheduling.
            if place not in self.ready:
                self._ahead.lost(place)
            return [self.ack(released=(slot.number,))]
        self.ready[place] = slot
        if waited_for and len(self.waits) > 1:
            self._notifier.notify()
        return []

    def prepare_to_sleep(self, ended: bool) -> None:
        """Clears the notifier, unless another waiting call has yet to see its ready batch."""
        self.releases.notifies = True
        waits = tuple(self.waits.items())
        for caller, wait in waits:
            if len(waits) > 1 and wait.place in self.ready and not caller.left:
                return
        if not ended and not self.releases.slots:
            self._notifier.clear()

    def give_up(self) -> Ack:
        """Releases all that is ready."""
        slots = tuple(slot.number for slot in self.ready.values())
        self.ready.clear()
        return self.ack(released=slots)

    def ack(
        self, taken: tuple[int, ...] = (), released: tuple[int, ...] = (), waited_ns: int = 0
    ) -> Ack:
        """An ``Ack``: slots taken and released, and nanoseconds waited since the last one."""
        slots = self.releases.slots
        dead = [slots.popleft() for _ in range(len(slots))]
        for slot in dead:
            self._leased.pop(slot, None)  # absent if an error came between the lease and its note
        self._waited_ns += waited_ns
        return Ack(taken, (*released, *dead), self._batches, self._samples, self._waited_ns)
