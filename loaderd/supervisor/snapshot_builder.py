"""The daemon's frozen picture, made from the supervisor's parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from itertools import islice

import psutil

from loaderd import __version__, machine
from loaderd.config import Settings
from loaderd.ipc import segment
from loaderd.ipc.prefetch import ROUND
from loaderd.ipc.snapshot import (
    SCHEMA,
    DaemonPicture,
    HostPicture,
    Snapshot,
    StoragePicture,
    StreamPicture,
    WorkerPicture,
)
from loaderd.ipc.text import encodable
from loaderd.supervisor.bad_images import BadImages
from loaderd.supervisor.clients import Conversation
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.memory_caches import MemoryCaches
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.slots import State
from loaderd.supervisor.streams import Opening, Stream
from loaderd.supervisor.workers import Crew

LONGEST_PATH = 500
"""Bytes. Of a longer path the end is shown, so that many streams fit into one packet."""


MOST_STALLS = 16
"""Of more streams that wait for storage only the first are shown, for the same reason."""


class Photographer:
    """Takes snapshots of the parts that it is given; changes none of them."""

    def __init__(
        self,
        settings: Settings,
        listener: Listener,
        scheduler: Scheduler,
        crew: Crew,
        streams: dict[int, Stream],
        openings: Mapping[Conversation, Opening],
        caches: MemoryCaches,
        bad: BadImages,
    ) -> None:
        self.settings = settings
        self._listener = listener
        self._bad = bad
        self._scheduler = scheduler
        self._crew = crew
        self._streams = streams
        self._openings = openings
        self._caches = caches
        self._started = time.monotonic()
        self.draining = False
        psutil.cpu_percent()  # the first call begins the interval

    def take(self) -> Snapshot:
        """The daemon as it is now."""
        now = time.monotonic()
        return Snapshot(
            schema=SCHEMA,
            time=time.time(),
            daemon=self._daemon(now),
            host=self._host(),
            streams=tuple(self._stream(stream, now) for stream in self._streams.values()),
            workers=tuple(self._workers(now)),
            workers_wanted=self._crew.pool.wanted,
            restarts=self._crew.pool.restarts,
            storage=tuple(islice(self._storage(now), MOST_STALLS)),
        )

    def _storage(self, now: float) -> Iterable[StoragePicture]:
        readers: list[Stream | Opening] = [*self._streams.values(), *self._openings.values()]
        for reader in readers:
            wait = reader.stall.wait
            if wait is not None:
                yield StoragePicture(
                    path=_tail(wait.path),
                    waited_s=now - wait.since,
                    stream=reader.id if isinstance(reader, Stream) else None,
                    client_pid=reader.client.pid,
                )

    def _daemon(self, now: float) -> DaemonPicture:
        return DaemonPicture(
            pid=os.getpid(),
            name=_tail(self.settings.name),
            socket=_tail(self._listener.path),
            version=__version__,
            uptime_s=now - self._started,
            private=self.settings.owner is not None,
            draining=self.draining,
            cpu_s=time.process_time(),
            chunks=self._crew.chunks,
            bad=self._bad.total,
            cache_dir=_tail(self.settings.cache_dir),
            trouble=self._crew.pool.trouble if self._crew.pool.hopeless else "",
        )

    def _host(self) -> HostPicture:
        return HostPicture(
            cpus=machine.cpus(),
            cpu_percent=psutil.cpu_percent(),
            shm_total=segment.total(),
            shm_free=segment.free(),
            ring_bytes=sum(stream.ring_bytes for stream in self._streams.values()),
            ring_limit=self.settings.memory,
            cache_bytes=self._caches.nbytes,
            cache_limit=self._caches.limit,
        )

    def _stream(self, stream: Stream, now: float) -> StreamPicture:
        scheduled = self._scheduler.streams[stream.id]
        epoch, position = scheduled.run.next or (0, 0)
        count = scheduled.slots.count
        return StreamPicture(
            id=stream.id,
            client_pid=stream.client.pid,
            directory=_tail(stream.spec.dataset.directory),
            samples=stream.shape.samples,
            batch_size=stream.shape.batch_size,
            batches_per_epoch=stream.shape.batches,
            epoch=epoch % ROUND,
            position=position,
            slots=stream.shape.slots,
            ready=count(State.READY),
            filling=count(State.FILLING),
            leased=count(State.LEASED),
            age_s=now - stream.opened_at,
            batches=stream.batches,
            images=stream.samples,
            waited_s=stream.waited_ns / 1e9,
            errors=scheduled.errors,
            on_error=stream.spec.on_error,
            bad=len(stream.bad),
            ring_bytes=stream.ring_bytes,
            cache=stream.spec.cache if stream.cache else "none",
            cache_samples=stream.cached_rows,
        )

    def _workers(self, now: float) -> Iterable[WorkerPicture]:
        for worker in self._crew.pool.workers.values():
            if worker.up_at is None:
                continue
            read, decode, resize, augment = (ns / 1e9 for ns in worker.stage_ns)
            since = self._crew.waits.since(worker.id)
            yield WorkerPicture(
                pid=worker.pid,
                up_s=now - worker.up_at,
                chunks=worker.chunks,
                rows=worker.rows,
                cached=worker.cached,
                read_s=read,
                decode_s=decode,
                resize_s=resize,
                augment_s=augment,
                busy_s=worker.busy_ns / 1e9,
                waits_s=0.0 if since is None else now - since,
            )


def _tail(path: str) -> str:
    return encodable(path).encode()[-LONGEST_PATH:].decode(errors="ignore")
