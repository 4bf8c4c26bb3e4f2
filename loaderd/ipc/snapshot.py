"""A frozen copy of the daemon's counters: what ``loaderd-stat`` shows and ``--json`` prints.

Counters only grow; rates are the difference of two snapshots, or, over the life of
a stream, a counter divided by its age. The field names are the JSON's; ``schema`` is
incremented when one of them changes its meaning.
"""

from __future__ import annotations

import msgspec

SCHEMA = 1

WAIT_BOUNDS_S = tuple(2.0**power / 4000 for power in range(18))
"""Upper bounds, inclusive, of the buckets that waits are counted in: 0.25 ms, doubled up to 33 s;
the last bucket has no bound."""


class _Stats(msgspec.Struct, frozen=True, kw_only=True):
    """The base of the parts of a snapshot."""


class DaemonStats(_Stats, frozen=True):
    """The daemon itself."""

    pid: int
    name: str
    socket: str
    version: str
    uptime_s: float
    private: bool
    draining: bool
    cpu_s: float
    """CPU seconds used by the supervisor."""
    chunks: int
    """Chunks done since the start."""
    bad: int
    """Images that could not be read since the start: `loaderd errors` lists them."""
    cache_dir: str
    """The folder of the caches on disk."""
    trouble: str
    """The fault that keeps the daemon from working; empty for none."""


class HostStats(_Stats, frozen=True):
    """The machine."""

    cpus: int
    """CPUs that the daemon may use."""
    cpu_percent: float
    """Use of all CPUs since the last snapshot, 0 to 100."""
    shm_total: int
    shm_free: int
    """Bytes of shared memory on the machine."""
    ring_bytes: int
    ring_limit: int
    """Bytes of all rings, and their limit."""
    cache_bytes: int
    cache_limit: int
    """Bytes of all caches in memory, and their limit."""
    cpus_present: int = 0
    """CPUs of the machine."""


class StreamStats(_Stats, frozen=True):
    """One trainer's reading of a stream. Times are seconds since the stream was opened."""

    id: int
    """Its number as a subscriber: the stream's, unless that is shared."""
    client_pid: int
    directory: str
    samples: int
    batch_size: int
    batches_per_epoch: int
    epoch: int
    position: int
    """The batch that is made next."""
    slots: int
    ready: int
    filling: int
    leased: int
    age_s: float
    batches: int
    """Batches taken by the trainer."""
    images: int
    """Samples taken by the trainer."""
    waited_s: float
    """Time that the trainer waited for a batch."""
    errors: int
    """Batches that could not be made."""
    on_error: str
    """How unreadable images are handled: raise, substitute or skip."""
    bad: int
    """Images that could not be read."""
    ring_bytes: int
    cache: str
    """Where decoded images are kept: none, memory or disk."""
    cache_samples: int
    """Samples that fit there."""
    first_batch_s: float = 0.0
    """Its age when the trainer took the first batch; until then, its age."""
    first_waited_s: float = 0.0
    """The part of ``waited_s`` before that."""
    share: str = ""
    """The name of the shared stream that it reads or has left; empty for none."""
    lag: int = 0
    """Batches that it is behind the foremost trainer of that stream."""
    detached: bool = False
    """Whether it has left the shared stream, and reads one of its own meanwhile."""
    shard: str = ""
    """The trainer's index, from 0, and the number of those that share the epochs: ``1/8``; empty
    for a trainer without ``shard``."""
    shard_found: str = ""
    """Where its client has found both."""

    decode: str = "exact"
    """How images are decoded: exact, scaled or fast."""
    dtype: str = "float32"
    """Of the images in a batch."""
    function: bool = False
    """Whether a function of the user's runs on them."""
    waits: tuple[int, ...] = ()
    """Batches after the first by how long the trainer waited for each; see ``WAIT_BOUNDS_S``."""

    @property
    def shard_text(self) -> str:
        """Both, for people; empty without ``shard``."""
        return f"{self.shard} by {self.shard_found}" if self.shard else ""


class WorkerStats(_Stats, frozen=True):
    """One worker. Times are seconds, totals since its start."""

    pid: int
    up_s: float
    chunks: int
    rows: int
    cached: int
    """Rows whose images came from a cache."""
    read_s: float
    decode_s: float
    resize_s: float
    augment_s: float
    busy_s: float
    """Time inside chunks, the four stages and the rest."""
    waits_s: float = 0.0
    """How long it has been waiting for storage that does not respond; 0 if it is not."""
    cpu_s: float = 0.0
    """Time on a CPU."""
    delayed_s: float = 0.0
    """Time that it could have run, and another process had the CPU."""


class RemoteStats(_Stats, frozen=True):
    """All workers of one other machine, also those that are gone. Times are totals in seconds."""

    host: str
    workers: int
    """Those that are there now."""
    up_s: float
    chunks: int
    rows: int
    read_s: float
    decode_s: float
    resize_s: float
    augment_s: float
    busy_s: float
    """Time inside chunks, there."""
    held_s: float
    """Time for which they had a chunk in hand, as seen from here: what exceeds ``busy_s`` is the
    link's, and the gateway's."""
    crossed: int
    """Bytes that came from there."""
    declined: str = ""
    """Why one of them does not serve a stream; empty if all serve all."""
    cached: int = 0
    """Rows that came from a cache: remote workers have none."""


class StorageStats(_Stats, frozen=True):
    """Storage that does not respond."""

    path: str
    """The file that is waited for."""
    waited_s: float
    stream: int | None
    """The stream that waits; None for one that is being opened."""
    client_pid: int


class Snapshot(_Stats, frozen=True):
    """Everything at one moment."""

    schema: int
    time: float
    """Seconds since 1970."""
    daemon: DaemonStats
    host: HostStats
    streams: tuple[StreamStats, ...]
    workers: tuple[WorkerStats, ...]
    workers_wanted: int
    restarts: int
    """Workers that were replaced."""
    workers_most: int = 0
    """Workers that there may be, where their number follows the load; 0 where it is fixed."""
    storage: tuple[StorageStats, ...] = ()
    """Storage that does not respond, for the first of the waiting streams."""
    remote: tuple[RemoteStats, ...] = ()
    """Other machines whose workers have joined, those that have done most first."""
    remote_wanted: int = 0
    """How many workers other machines may lend."""
    remote_trouble: str = ""
    """Why there are none; empty if there are, or may be at any time."""
