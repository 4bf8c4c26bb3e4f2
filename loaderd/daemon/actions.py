"""What the scheduler wants done; the supervisor does it."""

from __future__ import annotations

from dataclasses import dataclass

from loaderd.wire.messages import Chunk, Place


@dataclass(frozen=True, slots=True)
class Assign:
    """Give this chunk to this worker."""

    worker: int
    chunk: Chunk


@dataclass(frozen=True, slots=True)
class Deliver:
    """Tell the client that the slot holds its batch."""

    stream: int
    slot: int
    place: Place
    attempt: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a batch could not be made: an error's class name and text, and the rows tried."""

    kind: str
    text: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Spoil:
    """Tell the client that the batch could not be made."""

    stream: int
    slot: int
    place: Place
    error: Failure


Action = Assign | Deliver | Spoil
