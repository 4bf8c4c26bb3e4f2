"""Streams as the supervisor holds them, and how they are opened.

The supervisor and an opener talk, so that the loop never waits for a disk::

    client        supervisor                     opener (a process of its own)
      │ Open(spec) ──►│── List(spec, bundles) ───────►│ lists the directory
      │               │◄──────────── Listed(manifest) │
      │               │ how many slots fit? the ring ─│─► reserves its pages
      │               │◄───────────────────── Reserved│
      │◄─ Opened(ring, manifest)

A trainer that shares an epoch with another gets what was listed for that one: see
:mod:`loaderd.supervisor.shared_listing`. Its opener reserves the pages of its ring alone.

A client that opens one small stream after the other does so on one connection: the next gets
the ring of the last (``OpenStream.renewed``), and no opener is asked.
"""

from __future__ import annotations

import contextlib
import logging
import math
import mmap
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from loaderd import storage
from loaderd.config import Settings
from loaderd.errors import (
    EmptyDataset,
    InvalidArgument,
    LoaderdError,
    NoRoom,
    ProtocolError,
    RequestRefused,
    RoomTaken,
    TooManyBadImages,
)
from loaderd.ipc import bundle, descriptors, segment
from loaderd.ipc.channel import Closed
from loaderd.ipc.manifest import Manifest, sample_key
from loaderd.ipc.messages import (
    ENOUGH_SLOTS,
    Attach,
    Bad,
    Indexing,
    Joined,
    List,
    Listed,
    Open,
    Opened,
    Quarantine,
    Refused,
    Reserve,
    Reserved,
    Waiting,
)
from loaderd.ipc.prefetch import Place
from loaderd.ipc.slot_layout import is_small, slot_layout
from loaderd.ipc.text import readable
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.sampling.order import EpochOrder, Ids
from loaderd.sampling.weights import sample_weights
from loaderd.spec import spec
from loaderd.spec.load import PILS_PIXELS
from loaderd.spec.source import Archives, Directory, Rows
from loaderd.spec.spec import Spec
from loaderd.supervisor import request_limits
from loaderd.supervisor.children import Child
from loaderd.supervisor.clients import ClientConnection
from loaderd.supervisor.lag import Lag
from loaderd.supervisor.memory_caches import MemoryCaches
from loaderd.supervisor.opener_processes import Openers
from loaderd.supervisor.shared_listing import ListingRequest, is_in_memory, listing_request
from loaderd.supervisor.storage_waits import Stall, Wait
from loaderd.supervisor.stream_shape import Shape, queued_of

log = logging.getLogger("loaderd")

MAX_BUNDLES = 2
MAX_SLOTS = 256
LONGEST_SPEC = 64 * 2**20
"""Labels of some 20 million files."""

LONGEST_PIPELINE = 2**16


@dataclass(slots=True)
class OpenStream:
    """An open stream: its spec, and the descriptors of its ring and of all that workers read.

    It does not know who reads it: that is the ``Subscriber``.
    """

    id: int
    spec: Spec
    encoded: bytes
    """The same for workers."""
    shape: Shape
    request: Open
    """What the client has asked for."""
    listed: Listed
    """What the opener has found for it, or for the stream whose ring this one has got."""
    ring: int
    ring_bytes: int
    manifest: int
    bundles: list[int]
    """The descriptors of the bundles."""
    cache: list[int]
    """The descriptors of the cache and of the rows of its files, if there is one."""
    cached_rows: int
    """Samples that fit in the cache."""
    opened_at: float
    listing_request: ListingRequest | None = None
    """By which requests of trainers that share its epochs are recognised."""
    bad_limit: int = 0
    """Bad images that are allowed where they are substituted or skipped."""
    bad: dict[bytes, str] = field(default_factory=dict)
    """Those that could not be read, and why."""
    lag: Lag = field(default_factory=Lag)
    """Of its subscribers, if it is shared."""

    def attach(self) -> Attach:
        """What a worker must know; ``segments`` travel along."""
        return Attach(
            self.id,
            self.encoded,
            self.listed.classes,
            self.shape.slots,
            self.ring_bytes,
            self.listed.manifest_bytes,
            self.request.bundles,
            bool(self.cache),
        )

    @property
    def is_small(self) -> bool:
        """Whether its batches are made as fast as it is opened."""
        return is_small(self.spec, self.ring_bytes // self.shape.slots)

    @property
    def folder(self) -> str:
        """Where the images lie, for people."""
        return readable(self.spec.source.directory)

    @property
    def segments(self) -> list[int]:
        """Descriptors of what workers read and write."""
        return [self.ring, self.manifest, *self.bundles, *self.cache]

    def opened(self, joined: Joined | None = None) -> Opened:
        """What the client must know, and how it takes part; ring and manifest travel along."""
        return Opened(
            self.id,
            self.spec.order.seed or 0,
            self.shape.samples,
            self.shape.batch_size,
            self.listed.classes,
            self.shape.slots,
            self.ring_bytes,
            self.listed.manifest_bytes,
            joined,
        )

    def blame(self, place: Place, first: int, last: int) -> str:
        """What may have crashed a worker: the user's function, on one of some samples."""
        function = self.spec.function
        code = "" if function is None else f"; it may be its {function.given_as}"
        return f"{code}: one of {self.names(place, first, last)}"

    def names(self, place: Place, first: int, last: int) -> str:
        """The files of some rows of a batch, for an error's text."""
        table = self._table()
        rows = self._rows(place)[first:last].tolist()
        return ", ".join(repr(os.fsdecode(table.path(row)) or f"image {row}") for row in rows)

    def quarantine(self, place: Place, row: int, cause: str) -> tuple[bytes, Quarantine]:
        """The path of a sample that killed its workers, and what they are told of it.

        It is in a row of the batch of all trainers that share the epoch.

        Where it has no path, people read its number.
        """
        table, sample = self._table(), int(self._rows(place, range(row, row + 1))[0])
        reason, name = f"quarantined: the workers that tried it died ({cause})", ""
        if self.spec.function is not None:
            name = self.spec.function.label
            reason += f"; it may be the {name}"
        path = table.path(sample) or b"image %d of the arrays" % sample
        return path, Quarantine(sample_key(table, self.id, sample), name, reason)

    def _rows(self, place: Place, rows: range | None = None) -> Ids:
        given = bundle.attach_all(list(map(os.dup, self.bundles)), self.request.bundles)
        samples, batch_size = self.shape.samples, self.shape.batch_size
        table, order = self._table(), self.spec.order
        weights = sample_weights(order, table.labels, table.class_names, given.get("weights"))
        epochs = EpochOrder(order, samples, batch_size, given.get("order"), weights)
        return epochs.ids(*place, rows)

    def _table(self) -> Manifest:
        nbytes = self.listed.manifest_bytes
        return Manifest.view(segment.attach(os.dup(self.manifest), nbytes, writable=False))

    def note_bad(self, bad: Bad) -> bool:
        """Keeps an image that could not be read; returns whether there are too many."""
        if bad.lacking:
            return False
        self.bad.setdefault(bad.path, bad.reason)
        return self.spec.on_error != "raise" and len(self.bad) > self.bad_limit

    def too_many_bad(self) -> TooManyBadImages:
        """Why the stream ends, with some of the images."""
        first = list(self.bad.items())[:3]
        share = 100 * len(self.bad) / self.shape.samples
        more = f"{next((percent for percent in (5, 10, 20, 50) if percent > share), 100)}%"
        some = "; ".join(f"{readable(path)}: {reason}" for path, reason in first)
        return TooManyBadImages(
            f"{len(self.bad)} of {self.shape.samples} images of {self.folder} "
            f"cannot be read, and --max-bad allows {self.bad_limit}: remove them, or allow more "
            f"with `loaderd start --max-bad {more}` or, for a private daemon, "
            f"LOADERD_MAX_BAD={more}; `loaderd scan` finds them all: {some}"
        )

    def empty(self, slots: Iterable[int]) -> None:
        """Gives the memory of slots back, though the client goes on to map them."""
        ring = segment.attach(os.dup(self.ring), self.ring_bytes, writable=True)
        size = self.ring_bytes // self.shape.slots
        for slot in slots:
            ring.madvise(mmap.MADV_REMOVE, slot * size, size)

    def renewed(self, id: int, request: Open, fds: list[int]) -> OpenStream | None:
        """The stream that gets this one's ring, which must be out of use.

        Args:
            id: its number.
            request: what is asked for.
            fds: descriptors of the spec and of the bundles, which stay the caller's.

        Returns:
            None if something else is asked for than this stream over other images, with another
            seed. Workers make sure that there are as many images.

        Raises:
            ProtocolError: a bundle is not sealed, or has holes.
        """
        last = self.request
        if not self.is_small or (request.slots, request.bundles) != (last.slots, last.bundles):
            return None
        data = read_spec(request, fds[0])
        asked = spec.fitted(spec.decode(data), self.shape.samples)
        if (
            asked.order.given
            or asked.order.weighted
            or spec.unseeded(asked) != spec.unseeded(self.spec)
        ):
            return None
        self.shape.checked(request.run)
        for fd, nbytes in zip(fds[1:], request.bundles, strict=True):
            bundle.check(fd, nbytes)
        encoded = _for_workers(asked, data)
        ring, manifest, *bundles = descriptors.copies((self.ring, self.manifest, *fds[1:]))
        return replace(
            self,
            id=id,
            spec=asked,
            encoded=encoded,
            request=request,
            ring=ring,
            manifest=manifest,
            bundles=bundles,
            opened_at=time.monotonic(),
            listing_request=None,
            bad={},
        )

    def close(self) -> None:
        """Gives the segments up; they live on while somebody maps them."""
        descriptors.close_all((self.ring, self.manifest, *self.bundles))
        if self.cache:
            storage.close(self.cache)


@dataclass(frozen=True, slots=True)
class StreamResources:
    """What streams are opened with.

    Attributes:
        settings: the daemon's.
        caches: those in memory.
        openers: the processes that list and reserve.
        make_room: the bytes that rings may still take, where so many are wanted.
    """

    settings: Settings
    caches: MemoryCaches
    openers: Openers
    make_room: Callable[[int], Room]


class PendingStream:
    """A stream on its way; ``read`` goes on when the opener has said something.

    Args:
        id: the stream's number.
        client: who asked.
        request: what it asked for.
        fds: descriptors of the spec and of the bundles, which stay the caller's.
        resources: what streams are opened with.
        finish: called once, with the stream or None.

    Attributes:
        request: see above.
        listing_request: what its listing is made of, if trainers share it.
        opener: the process that lists and reserves; None until ``begin``.
        wait: what the opener waits for, if storage does not answer.
        stall: what the client was told of that.

    Raises:
        InvalidArgument: the spec is not valid.
        RequestRefused: it holds code, which the daemon does not run.
    """

    def __init__(
        self,
        id: int,
        client: ClientConnection,
        request: Open,
        fds: list[int],
        resources: StreamResources,
        finish: Callable[[PendingStream, OpenStream | None], None],
    ) -> None:
        self.id = id
        self.client = client
        self.ring_bytes = 0
        self.request = request
        self._wish = max(1, min(request.slots, MAX_SLOTS))
        self._resources = resources
        self._caches = resources.caches
        self._taken = ""
        self._finish = finish
        self.wait: Wait | None = None
        self.stall = Stall()
        self.opener: Child | None = None
        self._fds: list[int] = []
        self._listed = Listed(samples=0, classes=0, manifest_bytes=0)
        self._shared: Reserved | None = None
        self._idle = False
        settings = resources.settings
        data = read_spec(request, fds[0])
        asked = spec.decode(data)
        self.spec = check_code(asked, settings.user_code)
        self._encoded = _for_workers(self.spec, data if self.spec is asked else b"")
        request_limits.check_spec(self.spec, settings.max_pixels or PILS_PIXELS)
        first, *self._bundles = descriptors.copies(fds)
        self._spec_fd = [first]
        self.listing_request = listing_request(self.spec, request.bundles, tuple(self._bundles))

    def begin(self, opener: Child, like: OpenStream | None) -> None:
        """Begins the dialogue.

        Args:
            opener: the process that lists and reserves.
            like: a stream for another trainer of the same epochs, whose listing this one gets.
        """
        self.opener = opener
        if like is not None:
            self._guarded(opener, lambda: self._share(like, opener))
        else:
            with contextlib.suppress(Closed):  # its death is noticed when its socket is read
                message = List(self.request.spec_bytes, self.request.bundles)
                opener.channel.send(message, [*self._spec_fd, *self._bundles])
        descriptors.close_all(self._spec_fd)
        self._spec_fd = []

    def read(self) -> None:
        """Goes on with the dialogue."""
        if self.opener is not None:
            opener = self.opener
            self._guarded(opener, lambda: self._hear(opener))

    def _hear(self, opener: Child) -> None:
        message, fds = opener.channel.receive_with_fds()
        self._fds += fds
        self._answer(message, opener)

    def _guarded(self, opener: Child, step: Callable[[], None]) -> None:
        """Does a step of the dialogue; an error ends it, and is the client's."""
        try:
            step()
        except BlockingIOError:
            return
        except Closed:
            self._fail(self._resources.openers.died(opener))
        except LoaderdError as error:
            self._fail(error)
        except Exception as error:  # a fault here must not end the other streams
            log.exception("a stream of client %d cannot be opened", self.client.pid)
            self._fail(RequestRefused(f"the daemon could not open the stream: {error}"))

    def _share(self, like: OpenStream, opener: Child) -> None:
        """Goes on with what was listed for another trainer of the same epochs."""
        manifest, *cache = descriptors.copies((like.manifest, *like.cache))
        self._fds.append(manifest)
        self._shared = Reserved(bool(cache), like.cached_rows)
        try:
            self._size(msgspec.structs.replace(like.listed, cache_keys=()), opener)
        finally:
            self._fds += cache

    def _answer(self, message: object, opener: Child) -> None:
        self.wait = None
        match message:
            case Waiting(path, seconds):
                self.wait = Wait(readable(path), time.monotonic() - seconds) if path else None
            case Indexing():
                self.client.send(message)
            case Listed():
                self._size(message, opener)
            case Reserved():
                self._idle = True
                self._finish(self, self._stream(self._shared or message))
            case Refused():
                self._idle = True
                self._fail(message)
            case _:
                raise ProtocolError(f"the opener sent {type(message).__name__}")

    def _size(self, listed: Listed, opener: Child) -> None:
        self._listed = listed
        self._idle = True  # until it is told to reserve
        if not listed.samples:
            raise _empty(self.spec)
        self.spec = spec.fitted(self.spec, listed.samples)
        layout = slot_layout(self.spec, listed.classes)
        batch_size, shard = self.spec.batch.batch_size, self.spec.order.shard
        batches = EpochLayout(listed.samples, batch_size, shard).batches
        # Two epochs ahead are enough: flows of few batches are made by the thousand.
        enough = 2 if is_small(self.spec, layout.nbytes) else ENOUGH_SLOTS
        self._wish = min(self._wish, max(enough, 2 * batches))
        wanted = min(self._wish, ENOUGH_SLOTS) * layout.nbytes
        room = self._resources.make_room(wanted)
        # What cannot fit must not cost others their caches.
        fitting_slots(layout.nbytes, self._wish, room._replace(shm=segment.total()))
        self._caches.give_way(2 * self._wish * layout.nbytes)  # a ring gets half of what is free
        slots = fitting_slots(layout.nbytes, self._wish, room._replace(shm=segment.free()))
        queued = queued_of(self.spec)
        self.shape = Shape(listed.samples, batch_size, shard, slots=slots, queued=queued)
        self.shape.checked(self.request.run)
        self.ring_bytes = layout.nbytes * slots
        self._fds.append(segment.create(self.ring_bytes))
        memory, cache_room = self._memory_cache(listed)
        self._idle = False
        reserve = Reserve(self.ring_bytes, cache_room, self._shared is None)
        opener.channel.send(reserve, [self._fds[-1], *memory])

    def _memory_cache(self, listed: Listed) -> tuple[list[int], int]:
        """What the opener needs of a cache in memory, if one is wanted: descriptors, and room."""
        if self.spec.cache != "memory" or not listed.cache_keys:
            return [], 0
        self._taken, fd, room = self._caches.take(listed.cache_keys, listed.cache_bytes)
        return [fd, self._caches.turn], room

    def _stream(self, reserved: Reserved) -> OpenStream:
        if reserved.trouble:
            log.warning("%s", reserved.trouble)
        if not self._listed.samples:
            raise ProtocolError("the opener sent Reserved before Listed")
        manifest, ring, *cache = self._fds
        if len(cache) != 2 * reserved.cached:
            raise ProtocolError(f"the opener sent {len(cache)} descriptors with Reserved")
        bundles, self._fds, self._bundles = self._bundles, [], []
        return OpenStream(
            self.id,
            self.spec,
            self._encoded,
            self.shape,
            self.request,
            self._listed,
            ring,
            self.ring_bytes,
            manifest,
            bundles,
            cache,
            reserved.rows,
            time.monotonic(),
            self.listing_request,
            bad_limit=math.ceil(self._resources.settings.max_bad * self.shape.samples),
        )

    def _fail(self, error: LoaderdError | Refused) -> None:
        self.client.refuse(error)
        self._finish(self, None)

    def end(self) -> None:
        """Gives the opener back, or ends it in its work, and closes what was not handed on."""
        if self.opener is None:
            self._cache_opened()
        elif self._idle:
            self._resources.openers.give_back(self.opener, self._listed.manifest_bytes)
            self._cache_opened()
        else:
            self._resources.openers.discard(self.opener)
            self.opener.when_ended(self._cache_opened)  # it may be using the cache until then
        unused = [*self._fds, *self._bundles, *self._spec_fd]
        if unused:
            storage.close(unused)

    def _cache_opened(self) -> None:
        if self._taken:
            self._caches.opened(self._taken, self._listed.cache_bytes)


def _empty(asked: Spec) -> EmptyDataset:
    """Where images were looked for; it begins as Keras's error does."""
    source, place = asked.source, asked.source.directory
    if not isinstance(source, Directory):
        return EmptyDataset(f"No images found in {place}")
    if isinstance(source, Archives):
        text = (
            f"No images found in the archives of {place}: samples have labels of their own "
            f"(.cls, .json or .txt), or lie in class folders"
            + (f" of the folder {source.folder}" if source.folder else "; or name their `folder`")
        )
    elif isinstance(source, Rows):
        text = f"No images found in the rows of {place}"
    elif source.classes:
        names = ", ".join(map(repr, source.classes))
        text = f"No images found in the folders {names} of {place}"
    elif source.flat:
        text = f"No images found in {place}, nor in its subfolders"
    else:
        text = f"No images found in {place}: they belong into one subfolder for each class"
    if source.split_per_class or source.split_overall:
        text += ", or validation_split leaves none of them for this subset"
    return EmptyDataset(text)


class Room(NamedTuple):
    """Bytes that rings may still take.

    Attributes:
        memory: of the daemon's ``--memory``.
        shm: of the machine.
        limit: ``--memory``.
    """

    memory: int
    shm: int
    limit: int


def fitting_slots(slot_bytes: int, wish: int, room: Room) -> int:
    """How many slots a ring gets: what was wished for, as far as half the room goes.

    Half, so that the next stream (validation) finds room too; as many as are enough may take
    all of it, and a single one does where there is no more.

    Raises:
        NoRoom: not even one fits.
        RoomTaken: nor now, but it would if other streams were closed.
    """
    if slot_bytes > room.shm:
        kind = NoRoom if slot_bytes > segment.total() else RoomTaken
        raise kind(segment.room_text(slot_bytes, room.shm))
    if slot_bytes > room.memory:
        kind = NoRoom if slot_bytes > room.limit else RoomTaken
        raise kind(
            f"a batch takes {slot_bytes:,} bytes, and {max(0, room.memory):,} of the daemon's "
            f"{room.limit:,} are left: lower batch_size or target_size, close other iterators, or "
            "start the daemon with more --memory (LOADERD_MEMORY)"
        )
    fitting = min(room.memory, room.shm) // slot_bytes
    return min(wish, max(min(fitting, ENOUGH_SLOTS), fitting // 2))


def check_code(asked: Spec, user_code: bool) -> Spec:
    """The spec, with no code for workers but what is allowed.

    PIL's plugins of other packages are code too, which few of those who load them need.

    Raises:
        RequestRefused: it has a function of the user's, and the daemon runs none.
    """
    function = asked.function
    if function is not None and not user_code:
        raise RequestRefused(
            "the daemon runs no user code (--no-user-code, LOADERD_USER_CODE=false), and "
            f"{function.label} is user code: leave it out, or start a daemon that may run it"
        )
    if user_code or not asked.load.pil.plugins:
        return asked
    pil = msgspec.structs.replace(asked.load.pil, plugins=())
    return msgspec.structs.replace(asked, load=msgspec.structs.replace(asked.load, pil=pil))


def _for_workers(asked: Spec, data: bytes) -> bytes:
    """What workers are told, which must fit into one packet: the client's bytes, if they do.

    ``data`` is the spec as the client has encoded it; empty if it was changed since. Raises
    InvalidArgument if it does not fit even without what only the opener needs.
    """
    if not 0 < len(data) <= LONGEST_PIPELINE:
        data = spec.encode(spec.for_workers(asked))
    if len(data) > LONGEST_PIPELINE:
        raise InvalidArgument(
            "width_shift_range, height_shift_range, save_to_dir or the trainer's sys.path has too "
            "many values"
        )
    return data


def read_spec(request: Open, fd: int) -> bytes:
    """The spec of a request, as the client has encoded it.

    Raises:
        ProtocolError: it is too long.
        RequestRefused: the descriptor is not what it should be.
    """
    size = request.spec_bytes
    if not 0 < size <= LONGEST_SPEC:
        raise ProtocolError(f"a spec of {size} bytes; at most {LONGEST_SPEC} are allowed")
    if not is_in_memory(fd) or os.fstat(fd).st_size != size:
        raise RequestRefused(f"the spec is no memory of {size} bytes")
    return os.pread(fd, size, 0)
