"""What one trainer wants of a stream, has had of it, and holds.

Methods return the messages that are to be sent to the daemon, in their order: a subscription
knows no connection. They are called within the guard of the stream; slots alone are released by
any thread at any time, which appends them to a deque.
"""

from __future__ import annotations

from time import perf_counter_ns

from loaderd.ipc.messages import Ack, Plan
from loaderd.ipc.prefetch import Place, Run, in_time
from loaderd_client.core.batch import Slot
from loaderd_client.core.guard import Caller
from loaderd_client.core.link import Bell, Releases
from loaderd_client.core.read_ahead import ReadAhead

SPARE_SLOTS = 2
"""When fewer than these would be left, a batch is copied and not leased."""


class BatchWait:
    """One call's wait for a batch."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.begun = self.untold = perf_counter_ns()
        self.confirming = False


class Subscription:
    """The cursor of one trainer in a stream, with what it asked for and what it holds.

    Args:
        batches: batches in an epoch.
        slots: slots of the ring.
        run: what the daemon was told to make ahead.
        bell: wakes those who wait.

    Attributes:
        waits: who waits for which batch.
        releases: slots whose arrays have died.
    """

    def __init__(self, batches: int, slots: int, run: Run, bell: Bell) -> None:
        self.waits: dict[Caller, BatchWait] = {}
        self.releases = Releases(bell)
        self._slots = slots
        self._bell = bell
        self._ahead = ReadAhead(batches, run.within(batches), slots, run.next is not None)
        self._asked: set[Place] = set()
        self._ready: dict[Place, Slot] = {}
        self._leased = 0
        self._batches = self._samples = self._waited_ns = 0

    @property
    def shape(self) -> Run:
        """How the trainer reads; without a beginning."""
        return self._ahead.shape

    @property
    def may_lease(self) -> bool:
        """Whether another slot can be leased, and enough are left."""
        return self._leased - len(self.releases.slots) + SPARE_SLOTS < self._slots

    def has(self, place: Place) -> bool:
        """Whether a batch is ready."""
        return place in self._ready

    def take(self, place: Place) -> Slot:
        """The slot of a batch that is ready, which is the caller's now."""
        return self._ready.pop(place)

    def clear(self) -> None:
        """Forgets what is ready: the ring is given up."""
        self._ready.clear()

    def begin_wait(self, me: Caller, place: Place) -> BatchWait:
        """A call begins to wait; what its thread waited for before was interrupted."""
        for caller in tuple(self.waits):
            if caller.thread == me.thread:
                self.waits.pop(caller, None)
        wait = self.waits[me] = BatchWait(place)
        return wait

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a batch."""
        return all(caller.left for caller in tuple(self.waits))

    def _waited_for(self, place: Place) -> bool:
        return any(wait.place == place for wait in tuple(self.waits.values()))

    def ask(self, place: Place) -> list[Ack | Plan]:
        """Asks for a batch, unless that was done before or the run brings it by itself."""
        if place in self._asked:  # not if another thread took what was asked for
            return []
        self._asked.add(place)
        if self._ahead.comes(place):
            return []
        run = self._ahead.ask(place)
        if run is None:
            return [Plan((place,), None)]
        told: list[Ack | Plan] = []
        if run.next is not None:
            window = self._ahead.window(place)
            for other in [other for other in self._ready if other not in window]:
                told += self._discard(other)
            run = run.at(run.after(place))
        # What others wait for may have been in the way of the run that ends here.
        waits = {wait.place for wait in tuple(self.waits.values())} - {place}
        others = [other for other in waits if other not in self._ready]
        return [*told, Plan((place, *others), run)]

    def make_room(self) -> list[Ack]:
        """Gives the daemon a slot to work with, if we hold all of them."""
        told = [self.word()] if self.releases.slots else []
        if self._leased + len(self._ready) < self._slots:
            return told
        idle = [place for place in self._ready if not self._waited_for(place)]
        return told + (self._discard(max(idle, key=in_time)) if idle else [])

    def _discard(self, place: Place) -> list[Ack]:
        if self._waited_for(place):
            return []
        self._ahead.lost(place)
        return [self.word(released=(self._ready.pop(place).number,))]

    def refuse(self, place: Place, slot: Slot, waited_ns: int) -> Ack:
        """Gives a slot back that holds no batch."""
        self._ahead.lost(place)
        return self.word(released=(slot.number,), waited_ns=waited_ns)

    def note(self, place: Place, samples: int) -> list[Ack]:
        """Keeps what is taken; what was left unread in older epochs is given up."""
        self._ahead.took(place)
        first = in_time((place[0], 0))
        old = [other for other in self._ready if in_time(other) < first]
        told = [word for other in old for word in self._discard(other)]
        self._batches += 1
        self._samples += samples
        return told

    def took(self, slot: Slot, lent: bool, waited_ns: int) -> Ack:
        """A batch was handed out: on its slot, which is leased now, or as a copy."""
        self._leased += lent
        released = () if lent else (slot.number,)
        return self.word((slot.number,), released, waited_ns)

    def keep(self, place: Place, slot: Slot) -> list[Ack]:
        """A slot is ready; one that nobody wants goes back."""
        wanted = place in self._asked or self._ahead.expects(place)
        self._asked.discard(place)
        waited_for = self._waited_for(place)
        if place in self._ready or not (wanted or waited_for):
            # To keep it would hold a slot, and have the daemon think that we have enough.
            if place not in self._ready:
                self._ahead.lost(place)
            return [self.word(released=(slot.number,))]
        self._ready[place] = slot
        if waited_for and len(self.waits) > 1:
            self._bell.ring()
        return []

    def prepare_to_sleep(self, ended: bool) -> None:
        """Stops the bell, unless it rings for somebody who is about to look."""
        self.releases.heard = True
        waits = tuple(self.waits.items())
        for caller, wait in waits:
            if len(waits) > 1 and wait.place in self._ready and not caller.left:
                return
        if not ended and not self.releases.slots:
            self._bell.silence()

    def word(
        self, taken: tuple[int, ...] = (), released: tuple[int, ...] = (), waited_ns: int = 0
    ) -> Ack:
        """What the daemon is told: slots taken and given back, and the wait since the last word."""
        slots = self.releases.slots
        dead = [slots.popleft() for _ in range(len(slots))]
        self._leased -= len(dead)
        self._waited_ns += waited_ns
        return Ack(taken, (*released, *dead), self._batches, self._samples, self._waited_ns)
