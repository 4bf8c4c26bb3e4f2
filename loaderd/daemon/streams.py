"""Streams as the supervisor holds them, and how they are opened.

Opening is a dialogue, so that the loop never waits for a disk::

    client        supervisor                     opener (a process of its own)
      │ Open(spec) ──►│── spec, Given(bundle) ───────►│ lists the directory
      │               │◄──────────── Listed(manifest) │
      │               │ how many slots fit? the ring ─│─► reserves its pages
      │               │◄───────────────────── Reserved│
      │◄─ Opened(ring, manifest)
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import msgspec

from loaderd.config import Settings
from loaderd.daemon import child, limits
from loaderd.daemon.caches import MemoryCaches
from loaderd.daemon.forks import Child, ForkServer
from loaderd.daemon.server import Conversation
from loaderd.daemon.shape import Shape
from loaderd.data.order import EpochOrder, Ids
from loaderd.errors import (
    EmptyDataset,
    InvalidArgument,
    LoaderdError,
    NoRoom,
    ProtocolError,
    RequestRefused,
    TooManyBadImages,
)
from loaderd.wire import segment, spec
from loaderd.wire.channel import Closed
from loaderd.wire.layout import slot_layout
from loaderd.wire.manifest import Manifest, sample_key
from loaderd.wire.messages import (
    Attach,
    Given,
    Listed,
    Open,
    Opened,
    Place,
    Quarantine,
    Refused,
    Reserve,
    Reserved,
    Took,
)
from loaderd.wire.spec import Dataset, Spec
from loaderd.wire.text import printable, readable

log = logging.getLogger("loaderd")

FEWEST_SLOTS = 4
"""Two that the trainer holds, one that is ready, one that is being filled."""

MOST_SLOTS = 256
LONGEST_SPEC = 64 * 2**20
"""Labels of some 20 million files."""

LONGEST_PIPELINE = 2**16
_PICKED_SEEDS = 2**31


@dataclass(slots=True)
class Stream:
    """An open stream: its descriptors, and what the client did with it."""

    id: int
    client: Conversation
    spec: Spec
    shape: Shape
    classes: int
    ring: int
    ring_bytes: int
    manifest: int
    manifest_bytes: int
    bundles: list[int]
    """The descriptor of the bundle, if there is one."""
    bundle_bytes: int
    cache: list[int]
    """The descriptors of the cache and of the states of its files, if there is one."""
    cached_rows: int
    """Samples that fit in the cache."""
    opened_at: float
    batches: int = 0
    samples: int = 0
    waited_ns: int = 0
    bad_limit: int = 0
    """So many of its images may be bad where they are passed over."""
    bad: dict[bytes, str] = field(default_factory=dict)
    """Those that could not be read, and why."""

    def attach(self) -> Attach:
        """What a worker must know; ``segments`` travel along."""
        asked = self.spec
        return Attach(
            self.id,
            asked.pipeline,
            asked.batch,
            asked.order,
            self.classes,
            self.shape.slots,
            self.ring_bytes,
            self.manifest_bytes,
            self.bundle_bytes,
            bool(self.cache),
            asked.on_error,
        )

    @property
    def segments(self) -> list[int]:
        """Descriptors of what workers read and write."""
        return [self.ring, self.manifest, *self.bundles, *self.cache]

    def opened(self) -> Opened:
        """What the client must know; ring and manifest travel along."""
        return Opened(
            self.id,
            self.spec.order.seed or 0,
            self.shape.samples,
            self.shape.batch_size,
            self.classes,
            self.shape.slots,
            self.ring_bytes,
            self.manifest_bytes,
        )

    def names(self, place: Place, first: int, last: int) -> str:
        """The files of some rows of a batch, for an error's text."""
        table = self._table()
        rows = self._rows(place)[first:last].tolist()
        return ", ".join(repr(os.fsdecode(table.path(row)) or f"image {row}") for row in rows)

    def quarantine(self, place: Place, row: int, cause: str) -> Quarantine:
        """What workers are told of the sample in a row that killed those who tried it."""
        sample = int(self._rows(place)[row])
        function = self.spec.pipeline.function
        reason = f"quarantined: the workers that tried it died ({cause})"
        if function is not None:
            reason += f"; it may be the preprocessing_function {function.name}"
        name = function.name if function else ""
        return Quarantine(sample_key(self._table(), self.id, sample), name, reason)

    def path(self, place: Place, row: int) -> bytes:
        """The path of the sample in a row, or what people read where it has none."""
        sample = int(self._rows(place)[row])
        return self._table().path(sample) or b"image %d of the arrays" % sample

    def _rows(self, place: Place) -> Ids:
        order = EpochOrder(self.spec.order, self.shape.samples, self.shape.batch_size)
        return order.ids(*place)

    def _table(self) -> Manifest:
        memory = segment.attach(os.dup(self.manifest), self.manifest_bytes, writable=False)
        return Manifest.view(memory)

    def too_many_bad(self) -> TooManyBadImages:
        """Why the stream ends, with some of the images."""
        first = list(self.bad.items())[:5]
        folder = printable(self.spec.dataset.directory)
        some = "; ".join(f"{readable(path)}: {reason}" for path, reason in first)
        return TooManyBadImages(
            f"{len(self.bad)} of {self.shape.samples} images of {folder} "
            f"cannot be read, and the daemon's --max-bad allows {self.bad_limit}: {some}; "
            "`loaderd errors` lists them all, and `loaderd scan` finds them before training"
        )

    def count(self, took: Took) -> None:
        """Keeps the counters that the client sends along."""
        self.batches, self.samples = took.batches, took.samples
        self.waited_ns += took.waited_ns

    def close(self) -> None:
        """Gives the segments up; they live on while somebody maps them."""
        for fd in self.segments:
            os.close(fd)


class Opening:
    """A stream on its way; ``read`` goes on when the opener has said something.

    Args:
        id: the stream's number.
        client: who asked.
        request: what it asked for.
        spec_fd: descriptor of the spec, which stays the caller's.
        bundle_fd: descriptor of the bundle, which stays the caller's; None for none.
        settings: the daemon's.
        forks: where the opener comes from.
        caches: those in memory.
        room: the bytes that rings may still take, asked for when the size is known.
        finish: called once, with the stream or None.

    Raises:
        InvalidArgument: the spec is not valid.
        RequestRefused: it holds code, which the daemon does not run.
    """

    def __init__(
        self,
        id: int,
        client: Conversation,
        request: Open,
        spec_fd: int,
        bundle_fd: int | None,
        settings: Settings,
        forks: ForkServer,
        caches: MemoryCaches,
        room: Callable[[], Room],
        finish: Callable[[Opening, Stream | None], None],
    ) -> None:
        self.id = id
        self.client = client
        self.start = request.start
        self.ring_bytes = 0
        self._forks = forks
        self._wish = max(FEWEST_SLOTS, min(request.slots, MOST_SLOTS))
        self._caches = caches
        self._taken = ""
        self._room = room
        self._finish = finish
        self._fds: list[int] = []
        self.spec = _with_seed(spec.decode(_read_spec(request, spec_fd)))
        _check_pipeline(self.spec, settings.user_code)
        limits.check_spec(self.spec, settings.max_pixels)
        self._max_bad = settings.max_bad
        self._bundles = [] if bundle_fd is None else [os.dup(bundle_fd)]
        try:
            asked = spec.encode(self.spec)
            self.opener: Child = forks.spawn(child.open_dataset, asked, settings)
        except OSError:
            for fd in self._bundles:
                os.close(fd)
            raise
        self._bundle_bytes = request.bundle_bytes
        with contextlib.suppress(Closed):  # its death is noticed when its socket is read
            self.opener.line.send(Given(request.bundle_bytes), self._bundles)

    def read(self) -> None:
        """Goes on with the dialogue."""
        try:
            message, fds = self.opener.line.receive_with_fds()
            self._fds += fds
            self._answer(message)
        except BlockingIOError:
            return
        except Closed:
            self._forks.catch_up()
            self._fail(_died(self.opener))
        except LoaderdError as error:
            self._fail(error)
        except Exception as error:  # a fault here must not end the other streams
            log.exception("a stream of client %d cannot be opened", self.client.pid)
            self._fail(RequestRefused(f"the daemon could not open the stream: {error}"))

    def _answer(self, message: object) -> None:
        match message:
            case Listed():
                self._size(message)
            case Reserved():
                self._finish(self, self._stream(message))
            case Refused():
                self._fail(message)
            case _:
                raise ProtocolError(f"the opener sent {type(message).__name__}")

    def _size(self, listed: Listed) -> None:
        if not listed.samples:
            raise _empty(self.spec)
        self._listed = listed
        self.spec = _no_larger(self.spec, listed.samples)
        layout = slot_layout(self.spec.pipeline, self.spec.batch, listed.classes)
        # What cannot fit must not cost others their caches.
        fitting_slots(layout.nbytes, self._wish, self._room()._replace(shm=segment.total()))
        self._caches.give_way(2 * self._wish * layout.nbytes)  # a ring gets half of what is free
        slots = fitting_slots(layout.nbytes, self._wish, self._room())
        self._shape = Shape(listed.samples, self.spec.batch.batch_size, slots)
        self._shape.check(self.start or (0, 0))
        self.ring_bytes = layout.nbytes * slots
        self._fds.append(segment.create(self.ring_bytes))
        memory, room = self._memory_cache(listed)
        self.opener.line.send(Reserve(self.ring_bytes, room), [self._fds[-1], *memory])

    def _memory_cache(self, listed: Listed) -> tuple[list[int], int]:
        """The descriptor of a cache in memory, if one is wanted, and the bytes that it may take."""
        if self.spec.cache != "memory" or not listed.cache_key:
            return [], 0
        fd, room = self._caches.take(listed.cache_key, listed.cache_bytes)
        self._taken = listed.cache_key
        return [fd], room

    def _stream(self, reserved: Reserved) -> Stream:
        if reserved.trouble:
            log.warning("%s", reserved.trouble)
        manifest, ring, *cache = self._fds
        if len(cache) != 2 * reserved.cached:
            raise ProtocolError(f"the opener sent {len(cache)} descriptors with Reserved")
        bundles, self._fds, self._bundles = self._bundles, [], []
        return Stream(
            self.id,
            self.client,
            self.spec,
            self._shape,
            self._listed.classes,
            ring,
            self.ring_bytes,
            manifest,
            self._listed.manifest_bytes,
            bundles,
            self._bundle_bytes,
            cache,
            reserved.rows,
            time.monotonic(),
            bad_limit=math.ceil(self._max_bad * self._shape.samples),
        )

    def _fail(self, error: LoaderdError | Refused) -> None:
        self.client.refuse(error)
        self._finish(self, None)

    def end(self) -> None:
        """Ends the opener and closes what was not handed on."""
        self.opener.kill()
        self.opener.close()
        if self._taken:
            self.opener.when_ended(partial(self._caches.opened, self._taken))
        for fd in (*self._fds, *self._bundles):
            os.close(fd)


def _died(opener: Child) -> RequestRefused:
    if opener.trouble:
        return RequestRefused(f"the daemon could not do it: {opener.trouble}")
    return RequestRefused("the process that lists the dataset died; try again")


def _empty(asked: Spec) -> EmptyDataset:
    dataset = asked.dataset
    if isinstance(dataset, Dataset) and dataset.classes:
        names = ", ".join(map(repr, dataset.classes))
        return EmptyDataset(f"no images found in the folders {names} of {dataset.directory}")
    return EmptyDataset(
        f"no images found in {dataset.directory}: they belong into one subfolder for each class"
    )


class Room(NamedTuple):
    """Bytes that rings may still take: of the daemon's ``--memory``, and of the machine."""

    memory: int
    shm: int


def fitting_slots(slot_bytes: int, wish: int, room: Room) -> int:
    """How many slots a ring gets: what was wished for, as far as half the room goes.

    Half, so that the next stream (validation) finds room too; the fewest that work may
    take all of it.

    Raises:
        NoRoom: not even the fewest fit.
    """
    fewest = FEWEST_SLOTS * slot_bytes
    if fewest > room.shm:
        raise NoRoom(segment.room_text(fewest, room.shm))
    if fewest > room.memory:
        raise NoRoom(
            f"a ring of {FEWEST_SLOTS} slots needs {fewest:,} bytes and {room.memory:,} of the "
            "daemon's --memory are left: lower batch_size or target_size, close other streams, "
            "or start the daemon with more --memory"
        )
    return max(FEWEST_SLOTS, min(wish, min(room) // 2 // slot_bytes))


def _check_pipeline(asked: Spec, user_code: bool) -> None:
    """What workers are told of it must be allowed, and fit into one packet."""
    function = asked.pipeline.function
    if function is not None and not user_code:
        raise RequestRefused(
            f"the daemon runs no user code (--no-user-code), and preprocessing_function is "
            f"{function.name}: leave it out, or start a daemon that may run it"
        )
    if len(msgspec.json.encode(asked.pipeline)) > LONGEST_PIPELINE:
        raise InvalidArgument(
            "width_shift_range, height_shift_range, save_to_dir or the trainer's sys.path has too "
            "many values"
        )


def _no_larger(asked: Spec, samples: int) -> Spec:
    """A batch never has more rows than the dataset has samples."""
    rows = min(asked.batch.batch_size, samples)
    return msgspec.structs.replace(
        asked, batch=msgspec.structs.replace(asked.batch, batch_size=rows)
    )


def _with_seed(asked: Spec) -> Spec:
    if asked.order.seed is not None:
        return asked
    seed = random.SystemRandom().randrange(_PICKED_SEEDS)
    return msgspec.structs.replace(asked, order=msgspec.structs.replace(asked.order, seed=seed))


def _read_spec(request: Open, fd: int) -> bytes:
    size = request.spec_bytes
    if not 0 < size <= LONGEST_SPEC:
        raise ProtocolError(f"a spec of {size} bytes; at most {LONGEST_SPEC} are allowed")
    if not _in_memory(fd) or os.fstat(fd).st_size != size:
        raise RequestRefused(f"the spec is no memory of {size} bytes")
    return os.pread(fd, size, 0)


def _in_memory(fd: int) -> bool:
    """Whether it can be read without waiting; a file may lie on a disk that does not answer."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) >= 0
    except OSError:
        return False
