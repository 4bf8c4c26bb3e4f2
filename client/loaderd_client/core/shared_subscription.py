"""The client's state of one trainer in a shared stream, whose batches come in one order for all."""

from __future__ import annotations

from loaderd.errors import OutOfStep
from loaderd.ipc.messages import Ack, Joined, Plan
from loaderd.ipc.prefetch import Place, Run
from loaderd_client.core.batch import Slot
from loaderd_client.core.link import Waker
from loaderd_client.core.subscription import Subscription


class SharedSubscription(Subscription):
    """The slots of one trainer in a shared stream.

    Nothing is requested: each batch comes once, in its turn. One that has passed, or that is
    further away than the ring is long, is refused with ``OutOfStep``. Waiting for a batch releases
    those before it, as others wait for their slots.

    Args:
        batches: batches in an epoch.
        slots: slots of the ring.
        joined: the daemon's answer.
        notifier: wakes waiting threads.

    Attributes:
        first: the first batch that comes.
    """

    def __init__(self, batches: int, slots: int, joined: Joined, notifier: Waker) -> None:
        run = Run(joined.first, batches)
        super().__init__(batches, slots, run, notifier)
        self.first = self._coming = joined.first
        self._early: set[Place] = set()  # those that have come before ``_coming``
        self._run = run
        self._max_leases = joined.leases

    @property
    def may_lease(self) -> bool:
        """Whether it leases fewer slots than the daemon allows."""
        return len(self._leased) - len(self.releases.slots) < self._max_leases

    def ask(self, place: Place) -> list[Ack | Plan]:
        """Requests nothing, as the batch comes by itself.

        Raises:
            OutOfStep: it does not, or not soon.
        """
        (epoch, position), (coming, behind) = place, self._coming
        ahead = (epoch - coming) * self._run.end + position - behind
        if place in self._early or not 0 <= ahead <= self._slots:
            raise OutOfStep(f"the next batch of the shared stream is {self._coming}, not {place}")
        return []

    def make_room(self) -> list[Ack]:
        """Releases freed slots, and batches before those that are waited for."""
        messages = [self.ack()] if self.releases.slots else []
        waited_for = [wait.place for wait in tuple(self.waits.values())]
        return messages + (self._pass(min(waited_for)) if waited_for else [])

    def note(self, place: Place, samples: int) -> list[Ack]:
        """Counts a taken batch; releases those before it."""
        self._batches += 1
        self._samples += samples
        return self._pass(place)

    def _pass(self, place: Place) -> list[Ack]:
        passed = [other for other in self.ready if other < place and not self._waited_for(other)]
        slots = tuple(self.ready.pop(other).number for other in passed)
        return [self.ack(released=slots)] if slots else []

    def keep(self, place: Place, slot: Slot) -> list[Ack]:
        """Keeps a slot that is ready."""
        self.ready[place] = slot
        self._early.add(place)
        while self._coming in self._early:
            self._early.remove(self._coming)
            self._coming = self._run.after(self._coming)
        if len(self.waits) > 1 and self._waited_for(place):
            self._notifier.notify()
        return []
