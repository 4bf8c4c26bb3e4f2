"""The sizes of a stream; pure."""

from __future__ import annotations

from dataclasses import dataclass

from loaderd.errors import ProtocolError
from loaderd.ipc.prefetch import Place, Run
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.spec.spec import Spec
from loaderd.spec.url import is_url

EPOCHS = 2**63
"""No stream comes so far."""

QUEUED = 2
"""Chunks that a worker holds: one in hand, one queued behind it."""

QUEUED_REMOTE = 8
"""The same of a stream that reads from an object store: those that are queued are being fetched,
and have as much time for it as those before them take, some 20 ms each."""


def queued_of(spec: Spec) -> int:
    """Chunks of a stream that a worker holds."""
    return QUEUED_REMOTE if is_url(spec.source.directory) else QUEUED


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape(EpochLayout):
    """The sizes of a stream: how its epochs are divided, and the slots of its ring.

    Attributes:
        slots: batches that its ring has room for.
        queued: chunks of it that a worker holds.
    """

    slots: int
    queued: int = QUEUED

    def check(self, place: Place) -> None:
        """Raises ProtocolError if there is no such batch."""
        epoch, position = place
        if not 0 <= epoch < EPOCHS or not 0 <= position < self.batches:
            raise ProtocolError(f"there is no batch {position} in epoch {epoch}")

    def steps(self, first: Place, last: Place) -> int:
        """Batches from one place to another; negative if that is before it."""
        return (last[0] - first[0]) * self.batches + last[1] - first[1]

    def checked(self, run: Run) -> Run:
        """The run within these epochs; raises ProtocolError if there is no such run."""
        run = run.within(self.batches)
        if run.next is not None:
            self.check(run.next)
        ends = 0 < run.end <= self.batches if run.stride > 0 else -1 <= run.end < self.batches
        begins = 0 <= run.first < self.batches and run.reads(run.first)
        if not (ends and begins) or not run.stride or not 1 <= run.step < EPOCHS:
            raise ProtocolError(f"there is no {run} in {self.batches} batches")
        return run
