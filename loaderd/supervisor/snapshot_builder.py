"""The daemon's snapshot, built from the supervisor's parts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from itertools import islice

import msgspec
import psutil

from loaderd import __version__, machine
from loaderd.config import Settings
from loaderd.errors import RequestRefused
from loaderd.ipc import segment
from loaderd.ipc.messages import Described
from loaderd.ipc.prefetch import ROUND
from loaderd.ipc.process import cpu_times
from loaderd.ipc.snapshot import (
    SCHEMA,
    DaemonStats,
    HostStats,
    Snapshot,
    StorageStats,
    StreamStats,
    WorkerStats,
)
from loaderd.ipc.text import tail
from loaderd.supervisor.bad_images import BadImages
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.scheduler import Scheduler
from loaderd.supervisor.shared_stream import SharedStream
from loaderd.supervisor.slots import State
from loaderd.supervisor.stream_opener import StreamOpener
from loaderd.supervisor.streams import OpenStream, PendingStream
from loaderd.supervisor.subscribers import Subscriber
from loaderd.supervisor.workers import Workers

LONGEST_NAME = 64
"""Bytes of a shared stream's name; of a longer one the end is shown."""

MAX_STALLS = 16
"""Of more streams that wait for storage only the first are shown, for the same reason."""


class SnapshotBuilder:
    """Builds snapshots from the parts that it is given; changes none of them."""

    def __init__(
        self,
        listener: Listener,
        scheduler: Scheduler,
        workers: Workers,
        streams: StreamOpener,
        bad: BadImages,
    ) -> None:
        self._listener = listener
        self._bad = bad
        self._scheduler = scheduler
        self._workers = workers
        self._streams = streams
        self._started = time.monotonic()
        psutil.cpu_percent()  # the first call begins the interval

    def build(self, settings: Settings, draining: bool) -> Snapshot:
        """The daemon as it is now."""
        now = time.monotonic()
        return Snapshot(
            schema=SCHEMA,
            time=time.time(),
            daemon=self._daemon(now, settings, draining),
            host=self._host(settings.memory),
            streams=tuple(self._stream(*item, now) for item in self._streams.subscribers.items()),
            workers=tuple(self._worker_stats(now)),
            workers_wanted=int(self._workers.processes.settings.workers),
            workers_most=getattr(self._workers.processes.settings.workers, "most", 0),
            restarts=self._workers.processes.restarts,
            storage=tuple(islice(self._storage(now), MAX_STALLS)),
            remote=tuple(self._workers.hosts.stats(self._workers.processes.remote.values(), now)),
            remote_wanted=settings.ray_workers.most if settings.ray is not None else 0,
            remote_trouble=tail(self._workers.processes.remote_trouble),
        )

    def describe(self, number: int) -> tuple[Described, tuple[int, ...]]:
        """What a subscriber's stream is rendered from, with the descriptors that travel along.

        Raises:
            RequestRefused: there is no such subscriber.
        """
        subscriber = self._streams.subscribers.get(number)
        if subscriber is None:
            raise RequestRefused(f"there is no stream {number}: it may have been closed")
        stream = subscriber.stream
        place = self._scheduler.streams[stream.id].cursor.run.next or (0, 0)
        attach = msgspec.structs.replace(stream.attach(), cached=False)
        max_pixels = self._workers.processes.settings.max_pixels
        return Described(attach, *place, max_pixels), (stream.manifest, *stream.bundles)

    def _storage(self, now: float) -> Iterable[StorageStats]:
        readers: list[tuple[int | None, Subscriber | PendingStream]] = [
            *self._streams.subscribers.items(),
            *((None, pending) for pending in self._streams.pending.values()),
        ]
        for number, reader in readers:
            wait = reader.stall.wait
            if wait is not None:
                yield StorageStats(
                    path=tail(wait.path),
                    waited_s=now - wait.since,
                    stream=number,
                    client_pid=reader.client.pid,
                )

    def _daemon(self, now: float, settings: Settings, draining: bool) -> DaemonStats:
        processes = self._workers.processes
        return DaemonStats(
            pid=os.getpid(),
            name=tail(settings.name),
            socket=tail(self._listener.path),
            version=__version__,
            uptime_s=now - self._started,
            private=settings.owner is not None,
            draining=draining,
            cpu_s=time.process_time(),
            chunks=self._workers.chunks,
            bad=self._bad.total,
            cache_dir=tail(settings.cache_dir),
            trouble=processes.trouble if processes.start_exhausted else "",
        )

    def _host(self, ring_limit: int) -> HostStats:
        return HostStats(
            cpus=machine.cpus(),
            cpu_percent=psutil.cpu_percent(),
            shm_total=segment.total(),
            shm_free=segment.free(),
            ring_bytes=sum(stream.ring_bytes for stream in self._streams.streams.values()),
            ring_limit=ring_limit,
            cache_bytes=self._streams.caches.nbytes,
            cache_limit=self._streams.caches.limit,
            cpus_present=os.cpu_count() or 0,
        )

    def _stream(self, number: int, subscriber: Subscriber, now: float) -> StreamStats:
        stream = subscriber.stream
        scheduled = self._scheduler.streams[stream.id]
        epoch, position = scheduled.cursor.run.next or (0, 0)
        share = stream.request.share
        shard = stream.spec.order.shard
        is_alone = share is not None and share.join == "alone"
        return StreamStats(
            id=number,
            client_pid=subscriber.client.pid,
            directory=tail(stream.spec.source.directory),
            samples=stream.shape.samples,
            batch_size=stream.shape.batch_size,
            batches_per_epoch=stream.shape.batches,
            epoch=epoch % ROUND,
            position=position,
            slots=stream.shape.slots,
            ready=scheduled.held(number, State.READY),
            filling=scheduled.slots.count(State.FILLING),
            leased=scheduled.held(number, State.LEASED),
            age_s=now - stream.opened_at,
            batches=subscriber.took.batches,
            images=subscriber.took.samples,
            waited_s=subscriber.took.waited_ns / 1e9,
            errors=scheduled.errors,
            on_error=stream.spec.on_error,
            bad=len(stream.bad),
            ring_bytes=stream.ring_bytes,
            cache=stream.spec.cache if stream.cache else "none",
            cache_samples=stream.cached_rows,
            first_batch_s=(subscriber.first_at or now) - stream.opened_at,
            first_waited_s=subscriber.first_waited_ns / 1e9,
            shard=f"{shard.index}/{shard.count}" if shard else "",
            shard_found=shard.found if shard else "",
            share="" if share is None else tail(share.name, LONGEST_NAME),
            lag=self._lag(number, stream),
            detached=subscriber.detached or is_alone,
            decode=stream.spec.load.decode,
            dtype=stream.spec.output.dtype,
            function=stream.spec.function is not None,
            waits=tuple(subscriber.waits),
        )

    def _lag(self, number: int, stream: OpenStream) -> int:
        """Batches that a trainer is behind the shared stream that it reads, or has left."""
        scheduled, share = self._scheduler.streams[stream.id], stream.request.share
        if isinstance(scheduled, SharedStream):
            return scheduled.lag(number)
        here = scheduled.cursor.run.next
        if share is None or here is None:
            return 0
        shared = self._streams.shared(share.name)
        head = None if shared is None else self._scheduler.streams[shared.id].cursor.run.next
        return 0 if head is None else max(0, stream.shape.steps(here, head))

    def _worker_stats(self, now: float) -> Iterable[WorkerStats]:
        for worker in self._workers.processes.workers.values():
            if worker.up_at is None or worker.is_remote:
                continue
            wait = self._workers.waits.get(worker.id)
            cpu_ns, delayed_ns = cpu_times(worker.pid)
            yield WorkerStats(
                pid=worker.pid,
                up_s=now - worker.up_at,
                chunks=worker.chunks,
                rows=worker.rows,
                cached=worker.cached,
                read_s=worker.read_ns / 1e9,
                decode_s=worker.decode_ns / 1e9,
                resize_s=worker.resize_ns / 1e9,
                augment_s=worker.augment_ns / 1e9,
                busy_s=worker.busy_ns / 1e9,
                waits_s=now - wait[1].since if wait else 0.0,
                cpu_s=cpu_ns / 1e9,
                delayed_s=delayed_ns / 1e9,
            )
