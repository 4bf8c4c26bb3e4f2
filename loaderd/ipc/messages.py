"""Control messages of the sockets; pixels are never among them.

Every message is a small struct, encoded as MessagePack with its tag in front::

    client → daemon      Hello  Open  Plan  Ack  Leave  Confirm  Observe  ListBad  Describe
                         SetWorkers  Stop
    owner → daemon       Connect  Stop
    daemon → client      Welcome  Indexing  Opened  Ready  BatchFailed  Confirmed  Stalled  Refused
                         Observed  BadList  Described  Stopping
    supervisor → worker  Attach  Chunk  Quarantine  Detach
    worker → supervisor  WorkerReady  Attached  Progress  Waiting  Bad  Done  BatchFailed  Declined
    supervisor → opener  List  Reserve
    opener → supervisor  Waiting  Indexing  Listed  Reserved  Refused
    supervisor → forks   Fork  Signal
    forks → supervisor   Forked  Ended
    gateway → supervisor Connected  Refused  Ended
    worker → gateway     Fingerprint

The gateway is asked for workers on other machines as the fork server is for those of this one, and
what it says for such a worker is what the worker would say.

No sockets here: :mod:`loaderd.ipc.channel` carries what this module encodes.
"""

from __future__ import annotations

import functools
import operator
from typing import Literal

import msgspec

from loaderd import errors
from loaderd.errors import ProtocolError, RequestRefused
from loaderd.ipc.prefetch import Place, Run
from loaderd.ipc.snapshot import Snapshot
from loaderd.ipc.text import encodable

PROTOCOL = 13
"""Incremented whenever a message or a layout changes its meaning."""

LONGEST_TEXT = 8000
"""Error texts are cut to this many characters, so that every message fits a packet."""

ENOUGH_SLOTS = 4
"""Two leased by the trainer, one ready, one being filled.

A stream works with fewer, but idle streams are evicted to make room for this number.
"""

IDLE_SECONDS = 5.0
"""After so long without a message a client's stream may be evicted, if its room is needed.

After half of it a client sends ``Confirm`` before it reads a ready batch.
"""


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The base of all messages; a new subclass in this module is sent like the others."""


class Hello(Message, frozen=True):
    """The first message of a client."""

    protocol: int
    version: str
    pid: int


class Welcome(Message, frozen=True):
    """The daemon's answer to Hello."""

    protocol: int
    version: str
    pid: int


class Connect(Message, frozen=True):
    """Gives a private daemon its end of a new connection, as a descriptor."""


Join = Literal["epoch", "now", "place", "alone"]
"""Where a subscriber of a shared stream begins; see ``Share``."""


class Share(msgspec.Struct, frozen=True, array_like=True):
    """The shared stream that a client asks for.

    Attributes:
        name: of the stream.
        join: where the client begins: with an ``epoch``, with what is made next (``now``), or at
            the ``place`` where the run begins, if the stream is near to it. ``alone``: nowhere, as
            it goes on with a stream of its own.
        seeded: whether the spec's seed was asked for; else the stream's is taken.
        data: digest of the source and of the bundles that were asked for at first.
    """

    name: str
    join: Join
    seeded: bool
    data: bytes


class Joined(msgspec.Struct, frozen=True, array_like=True):
    """How a client takes part in a shared stream.

    Attributes:
        first: the first batch that it gets; all that follow come in order.
        leases: slots that it may lease at once.
    """

    first: Place
    leases: int


class Open(Message, frozen=True):
    """Asks for a stream. Descriptors: the spec as JSON, then the bundles.

    Attributes:
        spec_bytes: length of the spec.
        bundles: lengths of the bundles.
        slots: slots requested; the daemon may give fewer.
        run: the batches to prefetch.
        share: the shared stream to join, or to open; None for a stream of the client's own.
    """

    spec_bytes: int
    bundles: tuple[int, ...]
    slots: int
    run: Run
    share: Share | None = None


class Opened(Message, frozen=True):
    """The stream is open. Descriptors: ring, manifest.

    ``joined`` is None unless it is shared.
    """

    stream: int
    seed: int
    samples: int
    batch_size: int
    classes: int
    slots: int
    ring_bytes: int
    manifest_bytes: int
    joined: Joined | None = None


class Plan(Message, frozen=True):
    """The batches that the client needs next.

    Attributes:
        want: made first, in this order, except those already ready or being made.
        run: the batches to prefetch from now on; None leaves them unchanged.
    """

    want: tuple[Place, ...]
    run: Run | None


class Ack(Message, frozen=True):
    """Slots leased and released by the trainer since the last Ack, and its counters.

    The counters are totals since the stream was opened.

    Attributes:
        taken: slots now leased.
        released: slots free to be written again.
        batches: batches taken.
        samples: samples taken.
        waited_ns: nanoseconds that the trainer waited for batches.
    """

    taken: tuple[int, ...]
    released: tuple[int, ...]
    batches: int
    samples: int
    waited_ns: int


class Leave(Message, frozen=True):
    """The client takes nothing more of a shared stream; its arrays may live on.

    When the last has died it closes the connection, and the daemon may write their slots again.
    """


class Confirm(Message, frozen=True):
    """Asks whether the stream is still open, after a long pause."""


class Confirmed(Message, frozen=True):
    """The stream is open, and earlier messages are still valid."""


class Observe(Message, frozen=True):
    """Asks for a Snapshot."""


class Observed(Message, frozen=True):
    """The daemon as it is now."""

    snapshot: Snapshot


class ListBad(Message, frozen=True):
    """Asks for the images that could not be read, from number ``first`` on."""

    first: int = 0


class BadSample(msgspec.Struct, frozen=True, array_like=True):
    """An image that could not be read.

    Attributes:
        path: the file system's bytes.
        reason: why.
        directory: of its dataset.
        times: failures since the daemon's start.
        quarantined: whether it is no longer tried, since it killed its workers.
        lacking: whether the installation lacks its decoder, and the file may be good.
    """

    path: bytes
    reason: str
    directory: str
    times: int
    quarantined: bool
    lacking: bool = False


class BadList(Message, frozen=True):
    """As many of the ``total`` bad images as fit into a packet."""

    total: int
    samples: tuple[BadSample, ...]


class SetWorkers(Message, frozen=True):
    """Sets how many workers there are, until the daemon reads its settings; a Confirmed answers."""

    count: int


class Stop(Message, frozen=True):
    """Asks the daemon to drain and exit."""


class Stopping(Message, frozen=True):
    """The daemon drains and exits."""


class Ready(Message, frozen=True):
    """A slot holds a finished batch, of which ``skipped`` rows are left out."""

    slot: int
    epoch: int
    position: int
    attempt: int
    skipped: int = 0


class BatchFailed(Message, frozen=True):
    """A batch could not be made. A worker sets ``ticket`` alone.

    To a client: the slot holds no batch, and is released like any other.
    """

    kind: str
    text: str
    slot: int = -1
    epoch: int = -1
    position: int = -1
    ticket: int = -1


class Stalled(Message, frozen=True):
    """Storage does not respond, or responds again; a line of text for the user."""

    text: str


class Refused(Message, frozen=True):
    """The daemon refuses a request; an error's class name and text."""

    kind: str
    text: str


class Attach(Message, frozen=True):
    """Gives a worker a stream.

    ``spec`` is encoded, as names in it need not be UTF-8; its dataset is the manifest's.
    Descriptors: ring, manifest, bundles, and, if ``cached``, the cache and the rows of its files.
    """

    stream: int
    spec: bytes
    classes: int
    slots: int
    ring_bytes: int
    manifest_bytes: int
    bundles: tuple[int, ...]
    cached: bool


class Describe(Message, frozen=True):
    """Asks for everything that the batches of a stream are rendered from.

    Attributes:
        subscriber: the number of who reads it.
    """

    subscriber: int


class Described(Message, frozen=True):
    """What a worker knows of a stream. Descriptors: manifest, bundles.

    Attributes:
        attach: the stream, without ring and cache.
        epoch: of the batch that is made next, as in Chunk.
        position: of the same.
        max_pixels: the daemon's setting.
    """

    attach: Attach
    epoch: int
    position: int
    max_pixels: int | None


class Detach(Message, frozen=True):
    """Has a worker close a stream."""

    stream: int


class Chunk(Message, frozen=True):
    """Has a worker write rows ``first`` to ``last`` (excluded) of one batch to a slot."""

    ticket: int
    stream: int
    slot: int
    epoch: int
    position: int
    first: int
    last: int


class Quarantine(Message, frozen=True):
    """Has a worker skip a sample from now on.

    Attributes:
        key: see :func:`loaderd.ipc.manifest.sample_key`.
        function: the user's code that ran on it; empty for none.
        reason: why, as text for the user.
    """

    key: bytes
    function: str
    reason: str


class WorkerReady(Message, frozen=True):
    """A worker is ready for chunks.

    Attributes:
        pid: its process id.
        pil: names its PIL for the log.
        host: the machine that it runs on, if that is another one.
    """

    pid: int
    pil: str = ""
    host: str = ""


class Fingerprint(Message, frozen=True):
    """The first message of a worker on another machine: what its bytes depend on, by name."""

    facts: dict[str, str]


class Attached(Message, frozen=True):
    """A worker has opened a stream, or has recorded the error that it failed with."""

    stream: int


class Declined(Message, frozen=True):
    """A worker on another machine cannot serve a stream, as it does not reach the files.

    It has written no chunk of it that it has not reported, and will not write one.

    Attributes:
        stream: which one.
        text: why.
        ticket: that of the chunk in hand, if it is only this one that the worker cannot make.
    """

    stream: int
    text: str
    ticket: int = -1


class Progress(Message, frozen=True):
    """Heartbeat from within a long chunk: one of its samples was finished.

    Attributes:
        ticket: the chunk's.
        row: of the batch of all trainers that share the epoch, which is tried from now on though
            it is not the chunk's, as a partner; -1: the chunk's own rows are.
    """

    ticket: int
    row: int = -1


class Waiting(Message, frozen=True):
    """Storage does not respond: repeated while that lasts, and sent once when it is over.

    Attributes:
        path: the file waited for, as the file system's bytes; empty once it has responded.
        seconds: time waited.
    """

    path: bytes = b""
    seconds: float = 0.0


class Bad(Message, frozen=True):
    """An image of a stream could not be read; sent before the Done or BatchFailed of its chunk.

    Attributes: as of :class:`BadSample`.
    """

    stream: int
    path: bytes
    reason: str
    lacking: bool = False


class Done(Message, frozen=True):
    """A chunk is written. Times in nanoseconds: total, and by stage.

    ``cached`` rows came from the cache, ``skipped`` rows are left out; ``trouble`` is the reason
    why the cache is no longer written, reported once. Of a chunk from another machine ``crossed``
    are the bytes that came over the link, and ``held`` is the time for which the worker had the
    chunk in hand, as seen from here. ``waited`` is the
    part of the total in which nothing was done, as bytes were on their way from an object store.
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
    crossed: int = 0
    held: int = 0
    waited: int = 0


class List(Message, frozen=True):
    """Has the opener list a dataset. Descriptors: spec and bundles, as with Open."""

    spec_bytes: int
    bundles: tuple[int, ...]


class Indexing(Message, frozen=True):
    """How far the indexing of archives is; sent about twice a second, before the listing.

    Attributes:
        share: of all bytes, from 0 to 1, that were looked through.
        archives: that are indexed.
        total: how many there are.
    """

    share: float
    archives: int
    total: int


class Listed(Message, frozen=True):
    """A dataset is listed. Descriptor: the manifest.

    ``samples`` are those of an epoch. ``cache_keys`` name the caches that may hold these images,
    which take ``cache_bytes`` there; empty without a cache.
    """

    samples: int
    classes: int
    manifest_bytes: int
    cache_keys: tuple[str, ...] = ()
    cache_bytes: int = 0


class Reserve(Message, frozen=True):
    """Has the opener reserve a ring's pages.

    Descriptors: the ring and, with a cache in memory of at most ``cache_room`` bytes, that cache
    and the lock of its openers. ``own`` is False where nothing was listed for the stream: it has
    the listing, and any cache, of another.
    """

    ring_bytes: int
    cache_room: int = 0
    own: bool = True


class Reserved(Message, frozen=True):
    """The ring's pages are reserved. Descriptors, if ``cached``: the cache, its rows.

    ``rows`` of the dataset's samples fit in the cache; ``trouble`` says if a requested cache
    could not be opened, or not all samples fit.
    """

    cached: bool = False
    rows: int = 0
    trouble: str = ""


class Fork(Message, frozen=True):
    """Asks the fork server for a child. Descriptors: what it runs, pickled, and its socket.

    Attributes:
        child: its number, given by the supervisor.
    """

    child: int


class Signal(Message, frozen=True):
    """Asks the fork server to send a signal to a child that has not ended."""

    child: int
    signal: int


class Forked(Message, frozen=True):
    """A child's first message: it was forked, and has run nothing yet."""

    child: int
    pid: int


class Ended(Message, frozen=True):
    """A child has exited and its memory is freed, or it could not be started.

    Attributes:
        child: its number.
        code: its exit code, -N for signal N; None if it could not be started.
        trouble: why not.
    """

    child: int
    code: int | None
    trouble: str = ""


class Connected(Message, frozen=True):
    """The gateway has joined the cluster at this address."""

    address: str


_encoder = msgspec.msgpack.Encoder()
_any_message = functools.reduce(operator.or_, Message.__subclasses__())
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(_any_message)


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
    """The message for an error, under the nearest class of :mod:`loaderd.errors`."""
    known = (kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return Refused(next(known, RequestRefused).__name__, fitting(str(error)))


def fitting(text: str) -> str:
    """A text as valid UTF-8, with its middle left out beyond ``LONGEST_TEXT`` characters."""
    text = encodable(text)
    if len(text) <= LONGEST_TEXT:
        return text
    half = LONGEST_TEXT // 2 - 5
    return f"{text[:half]}\n[...]\n{text[-half:]}"
