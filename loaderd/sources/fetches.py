"""The bytes of samples on their way from an object store, a chunk and those behind it at a time.

::

    expect(ticket, samples) ──► one task for each object: near ranges merged ──► threads
    begin(ticket) ──► what is older is dropped
    take(sample) ──► its bytes: there, or waited for, or asked for now

One thread calls; the tasks run in those of :mod:`loaderd.sources.fetch_threads`.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, NamedTuple

from loaderd import storage
from loaderd.sources import downloads, fetch_threads, object_store
from loaderd.sources.downloads import Downloads
from loaderd.sources.file_identity import UNREADABLE
from loaderd.sources.ranged import Version
from loaderd.sources.retries import Retries
from loaderd.spec import url as urls

if TYPE_CHECKING:
    from typing_extensions import Buffer

_MAX_BYTES = 2**27
"""That are on their way or wait to be taken; what is beyond is asked for when it is taken."""

_NEAR = 2**16
"""Bytes between two ranges that are read rather than skipped: a request costs more."""

_POLL_SECONDS = 0.2

GRACE_SECONDS = 2.0
"""A store may take so long without being reported: far more than a disk."""


class RangeRequest(NamedTuple):
    """What to read for a sample.

    Attributes:
        url: of the object.
        start: the first byte.
        stop: the one after the last.
        version: of the object.
        is_whole: whether it is the whole object, which may be of another version by now.
    """

    url: str
    start: int
    stop: int
    version: Version
    is_whole: bool = False

    @property
    def name(self) -> str:
        """That of the bytes in a folder of downloads; empty if they cannot be kept."""
        state = self.version.state
        if state == UNREADABLE:
            return ""
        return downloads.name_of(urls.shown(self.url), str(state), self.start, self.stop)


class Fetched(NamedTuple):
    """What a task has read.

    Attributes:
        contents: the bytes of each of its samples.
        state: of the object; see :mod:`loaderd.sources.file_identity`.
        new: those of the samples that came from the store, in the version that was asked for.
    """

    contents: dict[int, memoryview]
    state: int
    new: Requests


Requests = list[tuple[int, RangeRequest]]
"""Samples of one object, and what to read for each."""


class _Run:
    """A range that holds those of one sample or more."""

    def __init__(self, start: int) -> None:
        self.start = self.stop = start
        self.samples: Requests = []

    def add(self, sample: int, request: RangeRequest) -> None:
        self.stop = max(self.stop, request.stop)
        self.samples.append((sample, request))

    def contents(self, data: Buffer) -> dict[int, memoryview]:
        view = memoryview(data)
        return {
            sample: view[one.start - self.start : one.stop - self.start]
            for sample, one in self.samples
        }


class Remote(NamedTuple):
    """How a stream asks an object store.

    Attributes:
        retries: how long it is asked again.
        kept: where what was read is kept; None if it is not.
        idle: called before each read, and a few times a second while one waits, with whether it
            takes as long as is usual.
    """

    retries: Retries
    kept: Downloads | None
    idle: Callable[[bool], None]


class Fetches:
    """The samples that one stream fetches.

    Args:
        request_of: what to read for a sample.
        remote: how the store is asked.
        masks: what to add to the number of a sample for that of its mask; 0 for no masks.
    """

    def __init__(
        self, request_of: Callable[[int], RangeRequest], remote: Remote, masks: int = 0
    ) -> None:
        self.masks = masks
        self._request_of = request_of
        self._retries, self._kept, self._idle = remote
        self._chunks: dict[int, dict[int, Future[Fetched]]] = {}
        self._bytes: dict[int, int] = defaultdict(int)
        self._in_hand = -1
        self._waited_ns = 0
        self._warned = False
        weakref.finalize(
            self, remote.retries.stopped.set
        )  # tasks do not outlive the stream for long

    def begin(self, ticket: int) -> None:
        """A chunk is in hand now; those before it are done, or were taken back."""
        for older in [one for one in self._chunks if one < ticket]:
            for future in self._chunks.pop(older).values():
                future.cancel()
            self._bytes.pop(older, None)
        self._in_hand = ticket

    def expect(self, ticket: int, samples: Iterable[int]) -> None:
        """Begins to fetch samples of a chunk, those that are not on their way yet."""
        there = self._chunks.setdefault(ticket, {})
        room = _MAX_BYTES - sum(self._bytes.values())
        wanted: dict[str, Requests] = defaultdict(list)
        for sample in samples:
            if sample in there:
                continue
            request = self._request_of(sample)
            size = request.stop - request.start
            if size > room:
                continue  # it is asked for when it is taken
            room -= size
            self._bytes[ticket] += size
            wanted[request.url].append((sample, request))
        for requests in wanted.values():
            there |= dict.fromkeys((sample for sample, _ in requests), self._begun(requests))

    def take(self, sample: int) -> tuple[memoryview, int]:
        """The bytes of a sample, and the state of its object.

        Args:
            sample: its number.

        Raises:
            Changed: the object is another version by now.
            MissingObject: there is no such object.
            StorageRefused: its store refuses.
            StorageTimeout: its store cannot be reached.
        """
        self._idle(True)
        future = self._chunks.get(self._in_hand, {}).get(sample)
        if future is None or future.cancelled():
            future = self._begun([(sample, self._request_of(sample))])
        if not future.done():
            self._wait(future, urls.shown(self._request_of(sample).url))
        found = future.result()
        return found.contents[sample], found.state

    def take_trouble(self) -> str:
        """Why downloads are no longer kept; returned once, empty if they are."""
        if self._kept is None or self._warned or not self._kept.trouble:
            return ""
        self._warned = True
        return f"what is read from object stores is kept no more in {self._kept.trouble}"

    def take_waited(self) -> int:
        """Nanoseconds that ``take`` has waited since the last call."""
        waited, self._waited_ns = self._waited_ns, 0
        return waited

    def _wait(self, future: Future[Fetched], name: str) -> None:
        start = perf_counter_ns()
        storage.ask(name, GRACE_SECONDS)
        try:
            while not wait([future], _POLL_SECONDS).done:
                waited, access = (perf_counter_ns() - start) / 1e9, storage.asked()
                self._idle(waited < GRACE_SECONDS)  # which may look into a cache
                storage.resume(access)
                if self._retries.reason:
                    storage.describe(f"{name} ({self._retries.reason})")
        finally:
            storage.answered()
            self._waited_ns += perf_counter_ns() - start

    def _begun(self, requests: Requests) -> Future[Fetched]:
        """Has samples of one object read."""
        keep = None if self._kept is None else partial(_keep, self._kept)
        return fetch_threads.submit(partial(_read, requests, self._retries, self._kept), keep)


def _read(requests: Requests, retries: Retries, kept: Downloads | None) -> Fetched:
    """What was downloaded before, and the rest from the store."""
    found = {} if kept is None else _kept_of(requests, kept)
    left = [(sample, one) for sample, one in requests if sample not in found]
    state = requests[0][1].version.state
    if not left:
        return Fetched(found, state, [])
    contents, found_state = (_whole if left[0][1].is_whole else _ranges)(left, retries)
    return Fetched(found | contents, found_state, left if found_state == state else [])


def _keep(kept: Downloads, done: Future[Fetched]) -> None:
    """Keeps what a task has read, which is being used by now."""
    if done.cancelled() or done.exception() is not None:
        return
    found = done.result()
    for sample, one in found.new:
        if one.name:
            kept.keep(one.name, found.contents[sample])


def _kept_of(requests: Requests, kept: Downloads) -> dict[int, memoryview]:
    found = {}
    for sample, one in requests:
        data = kept.get(one.name, one.stop - one.start) if one.name else None
        if data is not None:
            found[sample] = memoryview(data)
    return found


def _whole(requests: Requests, retries: Retries) -> tuple[dict[int, memoryview], int]:
    """The contents of the samples, and the state of their object."""
    url = requests[0][1].url
    data, version = retries.run(url, lambda: object_store.read_whole(url))
    return {sample: memoryview(data) for sample, _ in requests}, version.state


def _ranges(requests: Requests, retries: Retries) -> tuple[dict[int, memoryview], int]:
    """As :func:`_whole`."""
    url, version = requests[0][1].url, requests[0][1].version
    runs = _merged(requests)
    ranges = [(run.start, run.stop) for run in runs]
    buffers = retries.run(url, lambda: object_store.read_ranges(url, ranges, version))
    contents: dict[int, memoryview] = {}
    for run, data in zip(runs, buffers, strict=True):
        contents |= run.contents(data)
    return contents, version.state


def _merged(requests: Requests) -> list[_Run]:
    """Ranges that hold all those of the requests; near ones are one."""
    runs: list[_Run] = []
    for sample, request in sorted(requests, key=lambda one: one[1].start):
        if not runs or request.start - runs[-1].stop > _NEAR:
            runs.append(_Run(request.start))
        runs[-1].add(sample, request)
    return runs
