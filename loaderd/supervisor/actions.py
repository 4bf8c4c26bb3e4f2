"""What the scheduler wants done; the supervisor does it."""

from __future__ import annotations

import enum

import msgspec

from loaderd.ipc.messages import Chunk
from loaderd.ipc.prefetch import Place


class Assign(msgspec.Struct, frozen=True):
    """Give this chunk to this worker."""

    worker: int
    chunk: Chunk


class Deliver(msgspec.Struct, frozen=True):
    """Tell a subscriber that the slot holds its batch."""

    subscriber: int
    slot: int
    place: Place
    attempt: int
    skipped: int


class Failure(msgspec.Struct, frozen=True):
    """Why a batch could not be made: an error's class name and text, and the rows tried."""

    kind: str
    text: str
    first: int
    last: int


class Fail(msgspec.Struct, frozen=True):
    """Tell a subscriber that the batch could not be made."""

    subscriber: int
    slot: int
    place: Place
    error: Failure


class Isolate(msgspec.Struct, frozen=True):
    """Tell all workers that a sample is no longer tried: the one in this row of a batch.

    It is a row of the batch of all trainers that share the epoch.
    """

    stream: int
    place: Place
    row: int
    cause: str


class Dismiss(msgspec.Struct, frozen=True):
    """A worker that was retired holds nothing any more: it may go."""

    worker: int


Action = Assign | Deliver | Fail | Isolate | Dismiss


class Death(enum.Enum):
    """How a worker died, as far as it matters for what it held.

    CRASHED: of itself, or it gave no sign of life: the sample in hand may be the reason.
    KILLED: by the kernel for its memory, or by a person: no sample is to blame.
    ATTACHING: over a stream that it was told of, before any sample.
    """

    CRASHED = 0
    KILLED = 1
    ATTACHING = 2
