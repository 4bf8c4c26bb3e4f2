"""What the scheduler wants done; the supervisor does it."""

from __future__ import annotations

import msgspec

from loaderd.wire.messages import Chunk, Place


class Assign(msgspec.Struct, frozen=True):
    """Give this chunk to this worker."""

    worker: int
    chunk: Chunk


class Deliver(msgspec.Struct, frozen=True):
    """Tell the client that the slot holds its batch."""

    stream: int
    slot: int
    place: Place
    attempt: int


class Failure(msgspec.Struct, frozen=True):
    """Why a batch could not be made: an error's class name and text, and the rows tried."""

    kind: str
    text: str
    first: int
    last: int


class Spoil(msgspec.Struct, frozen=True):
    """Tell the client that the batch could not be made."""

    stream: int
    slot: int
    place: Place
    error: Failure


Action = Assign | Deliver | Spoil
