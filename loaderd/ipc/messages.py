"""Control messages: what is said over the sockets. Pixels are never among them.

Every message is a small struct, encoded as MessagePack with its tag in front::

    client → daemon      Hello  Open  Plan  Ack  Confirm  Observe  ListBad  Stop
    owner → daemon       Connect  Stop
    daemon → client      Welcome  Opened  Ready  BatchFailed  Confirmed  Stalled  Refused  Observed
                         BadList  Stopping
    supervisor → worker  Attach  Chunk  Quarantine  Detach
    worker → supervisor  WorkerReady  Attached  Progress  Waiting  Bad  Done  BatchFailed
    supervisor → opener  List  Reserve
    opener → supervisor  Waiting  Listed  Reserved  Refused
    supervisor → forks   Fork  Signal
    forks → supervisor   Forked  Ended

No sockets here: :mod:`loaderd.ipc.channel` carries what this module encodes.
"""

from __future__ import annotations

import msgspec

from loaderd import errors
from loaderd.errors import ProtocolError, RequestRefused
from loaderd.ipc.prefetch import Place, Run
from loaderd.ipc.snapshot import Snapshot
from loaderd.ipc.text import encodable

PROTOCOL = 8
"""Raised whenever a message or a layout changes its meaning."""

LONGEST_TEXT = 8000
"""Error texts are cut to this many characters, so that every message fits a packet."""

ENOUGH_SLOTS = 4
"""Two that the trainer holds, one that is ready, one that is being filled.

With fewer a stream works too, but for room for so many idle streams give way.
"""

IDLE_SECONDS = 5.0
"""A client that has said nothing for so long may lose its stream, if its room is needed.

So one that has been silent for half of it asks (``Confirm``) before it reads what is ready.
"""


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages."""


class Hello(_Message, frozen=True):
    """The first message of a client."""

    protocol: int
    version: str
    pid: int


class Welcome(_Message, frozen=True):
    """The daemon's answer to Hello."""

    protocol: int
    version: str
    pid: int


class Connect(_Message, frozen=True):
    """Hands a private daemon its end of a new connection, which travels along."""


class Open(_Message, frozen=True):
    """Asks for a stream. The spec comes as JSON in the first descriptor that travels along.

    Attributes:
        spec_bytes: length of the spec.
        bundles: lengths of the bundles, whose descriptors come behind it.
        slots: slots wished for; the daemon may give fewer.
        run: what is made ahead.
    """

    spec_bytes: int
    bundles: tuple[int, ...]
    slots: int
    run: Run


class Opened(_Message, frozen=True):
    """The stream is there; the descriptors of ring and manifest travel along."""

    stream: int
    seed: int
    samples: int
    batch_size: int
    classes: int
    slots: int
    ring_bytes: int
    manifest_bytes: int


class Plan(_Message, frozen=True):
    """Which batches the client wants next.

    Attributes:
        want: made first, in this order, unless the client has or will have them unread.
        run: what is made ahead from now on; None leaves that as it is.
    """

    want: tuple[Place, ...]
    run: Run | None


class Ack(_Message, frozen=True):
    """What the trainer did with its slots since the last such message, and its counters.

    The counters are totals since the stream was opened.

    Attributes:
        taken: slots that are now leased.
        released: slots that may be written again.
        batches: batches taken.
        samples: samples taken.
        waited_ns: nanoseconds that the trainer waited for batches.
    """

    taken: tuple[int, ...]
    released: tuple[int, ...]
    batches: int
    samples: int
    waited_ns: int


class Confirm(_Message, frozen=True):
    """Asks whether the stream is still there, after a long silence."""


class Confirmed(_Message, frozen=True):
    """It is, and what was sent before still counts."""


class Observe(_Message, frozen=True):
    """Asks for a Snapshot."""


class Observed(_Message, frozen=True):
    """The daemon as it is now."""

    snapshot: Snapshot


class ListBad(_Message, frozen=True):
    """Asks for the images that could not be read, from the ``first`` on."""

    first: int = 0


class BadSample(msgspec.Struct, frozen=True, array_like=True):
    """An image that could not be read.

    Attributes:
        path: as the file system has it.
        reason: why.
        directory: of its dataset.
        times: how often it was met since the daemon's start.
        quarantined: whether it is no longer tried, since it killed its workers.
        lacking: whether the fault is the installation's, which cannot decode it.
    """

    path: bytes
    reason: str
    directory: str
    times: int
    quarantined: bool
    lacking: bool = False


class BadList(_Message, frozen=True):
    """Some of the ``total`` bad images, as many as fit into a packet."""

    total: int
    samples: tuple[BadSample, ...]


class Stop(_Message, frozen=True):
    """Asks the daemon to drain and end."""


class Stopping(_Message, frozen=True):
    """The daemon ends."""


class Ready(_Message, frozen=True):
    """A slot holds a finished batch, of which ``skipped`` rows are left out."""

    slot: int
    epoch: int
    position: int
    attempt: int
    skipped: int = 0


class BatchFailed(_Message, frozen=True):
    """A batch could not be made. From a worker: ``ticket`` is set, and only that.

    To a client: the slot holds no batch, and is released like any other.
    """

    kind: str
    text: str
    slot: int = -1
    epoch: int = -1
    position: int = -1
    ticket: int = -1


class Stalled(_Message, frozen=True):
    """Storage keeps the stream waiting, or answers again; a line for the user."""

    text: str


class Refused(_Message, frozen=True):
    """The daemon would not do what it was asked; an error's class name and text."""

    kind: str
    text: str


class Attach(_Message, frozen=True):
    """Tells a worker of a stream.

    ``spec`` is encoded, as names in it need not be UTF-8; its dataset is the manifest's. Ring and
    manifest travel along, then the bundles, then the cache and the rows of its
    files, if it is ``cached``.
    """

    stream: int
    spec: bytes
    classes: int
    slots: int
    ring_bytes: int
    manifest_bytes: int
    bundles: tuple[int, ...]
    cached: bool


class Detach(_Message, frozen=True):
    """Tells a worker that a stream is closed."""

    stream: int


class Chunk(_Message, frozen=True):
    """Rows ``first`` to ``last`` (excluded) of one batch, to be written to a slot."""

    ticket: int
    stream: int
    slot: int
    epoch: int
    position: int
    first: int
    last: int


class Quarantine(_Message, frozen=True):
    """Tells a worker of a sample that is no longer tried.

    Attributes:
        key: its path, or what stands for it where it has none.
        function: the user's code that ran on it; empty for none.
        reason: why; what people read.
    """

    key: bytes
    function: str
    reason: str


class WorkerReady(_Message, frozen=True):
    """A worker is ready for chunks; ``pil`` says which PIL it has, for people."""

    pid: int
    pil: str = ""


class Attached(_Message, frozen=True):
    """A worker can write a stream, or knows why it cannot."""

    stream: int


class Progress(_Message, frozen=True):
    """A sign of life from within a chunk that takes long: a sample of it was finished."""

    ticket: int


class Waiting(_Message, frozen=True):
    """Storage does not answer: said again and again while that lasts, and once when it is over.

    Attributes:
        path: what is waited for, as the file system has it; empty when it has answered.
        seconds: for how long.
    """

    path: bytes = b""
    seconds: float = 0.0


class Bad(_Message, frozen=True):
    """An image of a stream could not be read; comes before the Done or BatchFailed of its chunk.

    Attributes:
        stream: the stream.
        path: as the file system has it.
        reason: why.
        lacking: whether the fault is the installation's, which cannot decode it.
    """

    stream: int
    path: bytes
    reason: str
    lacking: bool = False


class Done(_Message, frozen=True):
    """A chunk is written. Times in nanoseconds: the whole, and by stage.

    ``cached`` rows came from the cache; ``trouble`` says why nothing is written there any
    more, once. ``skipped`` rows are left out.
    """

    ticket: int
    rows: int
    total: int
    read: int
    decode: int
    resize: int
    augment: int
    cached: int = 0
    trouble: str = ""
    skipped: int = 0


class List(_Message, frozen=True):
    """Has the opener list a dataset; spec and bundles travel along, as with Open."""

    spec_bytes: int
    bundles: tuple[int, ...]


class Listed(_Message, frozen=True):
    """What the opener found; the manifest's descriptor travels along.

    ``samples`` are those of an epoch. ``cache_keys`` are names of the caches that may hold these
    images, which take ``cache_bytes`` there; none if no cache is wanted.
    """

    samples: int
    classes: int
    manifest_bytes: int
    cache_keys: tuple[str, ...] = ()
    cache_bytes: int = 0


class Reserve(_Message, frozen=True):
    """Asks the opener to reserve the pages of the ring whose descriptor travels along.

    A cache in memory travels along too, which may fill ``cache_room`` bytes, and what openers
    lock to take turns.
    """

    ring_bytes: int
    cache_room: int = 0


class Reserved(_Message, frozen=True):
    """The pages are there; cache and rows travel along, if there is one.

    ``rows`` of the dataset's samples fit in the cache; ``trouble`` says of one that was
    wanted that there is none, or that not all fit.
    """

    cached: bool = False
    rows: int = 0
    trouble: str = ""


class Fork(_Message, frozen=True):
    """Asks the fork server for a child. What it runs, pickled, and its socket travel along.

    Attributes:
        child: the number that the supervisor gives it.
    """

    child: int


class Signal(_Message, frozen=True):
    """Asks the fork server to send a signal to a child, if that has not ended."""

    child: int
    signal: int


class Forked(_Message, frozen=True):
    """A child's own first word: it is there, and nothing has been run in it yet."""

    child: int
    pid: int


class Ended(_Message, frozen=True):
    """A child is dead, and its memory is gone; or there is none.

    Attributes:
        child: its number.
        code: its exit code, -N for signal N; None where it could not be started.
        trouble: why not.
    """

    child: int
    code: int | None
    trouble: str = ""


Message = (
    Hello
    | Welcome
    | Connect
    | Open
    | Opened
    | Plan
    | Ack
    | Confirm
    | Confirmed
    | Observe
    | ListBad
    | BadList
    | Stop
    | Stopping
    | Ready
    | BatchFailed
    | Stalled
    | Refused
    | Attach
    | Detach
    | Chunk
    | Quarantine
    | WorkerReady
    | Attached
    | Progress
    | Waiting
    | Bad
    | Done
    | List
    | Listed
    | Reserve
    | Reserved
    | Observed
    | Fork
    | Signal
    | Forked
    | Ended
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """One message as bytes."""
    return _encoder.encode(message)


def decode(data: bytes | bytearray | memoryview) -> Message:
    """One message from bytes.

    Raises:
        ProtocolError: the bytes are no message.
    """
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(f"not a message of protocol {PROTOCOL}: {error}") from error


def refusal(error: BaseException) -> Refused:
    """The message that carries an error to the other side, as a class that both know."""
    known = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return Refused(next(known, RequestRefused).__name__, fitting(str(error)))


def fitting(text: str) -> str:
    """A text as a message can carry it: as UTF-8, and without its middle if it is long."""
    text = encodable(text)
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2 - 5
    return f"{text[:half]}\n[...]\n{text[-half:]}"
