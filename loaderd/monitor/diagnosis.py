"""Why a program waits for images, and the one setting that would help most.

A stage limits loading where it takes most of the workers' time. Before that come the causes for
which the time of no stage is to blame: storage, a slower trainer of the same stream, the link to
other machines, a queue that runs empty between bursts, CPUs that others take.

Gains are upper bounds. Loading becomes faster by the time that is saved; a program that waits for a
share ``w`` of its time becomes faster by ``1 / (1 - w)`` at most.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from loaderd.formatting import duration
from loaderd.ipc.snapshot import HostStats, StorageStats, StreamStats

Limit = Literal[
    "trainer", "storage", "partner", "network", "queue", "affinity", "workers", "cpu",
    "cache", "read", "decode", "augment", "function", "unread",
]  # fmt: skip

IDLE_PERCENT = 25.0
"""Of the workers' time, from which more of them would not help."""

LINK_PERCENT = 40.0
"""Of the remote workers' time, from which more of them would not help."""

DELAYED_PERCENT = 30.0
"""Of the time in which workers could run, from which CPUs that others take are the limit."""

READ_PERCENT = 40.0
"""Of the time in chunks, from which reading is the limit."""

COLD_PERCENT = 50.0
"""Of the images, below which a cache that should have them is still filled."""

MAX_GAIN = 10.0
"""A program that hardly does anything but wait gets no larger number."""


class Evidence(NamedTuple):
    """What is known of the time that is judged.

    Attributes:
        waited_percent: of the program's time.
        host: the machine.
        streams: those that the program has read.
        others: streams of other programs.
        storage: what does not answer.
        workers: local ones that are wanted.
        work: share of the workers' time by stage, and ``idle``, in percent.
        cached_percent: of the images, from a cache; None for no images.
        delayed_percent: of the time in which workers could run, without a CPU.
        link_percent: of the time of remote workers, in the link.
    """

    waited_percent: float
    host: HostStats
    streams: Sequence[StreamStats]
    others: Sequence[StreamStats]
    storage: Sequence[StorageStats]
    workers: int
    work: dict[str, float]
    cached_percent: float | None
    delayed_percent: float
    link_percent: float

    @property
    def busy(self) -> float:
        """Percent of the workers' time in chunks."""
        return max(1e-9, 100 - self.work["idle"])

    def of_busy(self, *stages: str) -> float:
        """Percent of the time in chunks that went into stages."""
        return 100 * sum(self.work[stage] for stage in stages) / self.busy

    def gain_without(self, *stages: str) -> float:
        """How much faster training could be if these stages took no time."""
        return self.gain_by(100 / max(1e-9, 100 - self.of_busy(*stages)))

    def gain_by(self, factor: float) -> float:
        """The same, for loading that is faster by a factor."""
        cap = 100 / max(1e-9, 100 - self.waited_percent)
        return min(factor, cap, MAX_GAIN)


class Diagnosis(NamedTuple):
    """What limits a program.

    Attributes:
        limit: the cause.
        text: a sentence on it, and on what to do.
        setting: the setting that would help most; empty if none does.
        gain: how many times as fast training could be with it; None where that is not known.
    """

    limit: Limit
    text: str
    setting: str = ""
    gain: float | None = None


def diagnose(evidence: Evidence) -> Diagnosis:
    """What limits a program that waits for images."""
    found = (find(evidence) for find in _CAUSES)
    return next((one for one in found if one is not None), None) or _slowest_stage(evidence)


def _storage(evidence: Evidence) -> Diagnosis | None:
    if not evidence.storage:
        return None
    longest = max(evidence.storage, key=lambda one: one.waited_s)
    return Diagnosis(
        "storage",
        f"Storage does not answer: {longest.path} (for {duration(longest.waited_s)}). Loading goes "
        "on when it does.",
    )


def _partner(evidence: Evidence) -> Diagnosis | None:
    """A slower trainer of the same shared stream, whose batches are still held."""
    names = {one.share for one in evidence.streams if one.share and not one.detached}
    behind = [
        one
        for one in evidence.others
        if one.share in names and not one.detached and 2 * one.lag >= one.slots
    ]
    if not behind:
        return None
    last = max(behind, key=lambda one: one.lag)
    return Diagnosis(
        "partner",
        f"It waits for trainer {last.client_pid}, which shares its stream and is {last.lag} "
        "batches behind: make that one faster, lower --share-lag, or give it a stream of its own.",
        "--share-lag",
    )


def _network(evidence: Evidence) -> Diagnosis | None:
    if evidence.link_percent < LINK_PERCENT:
        return None
    return Diagnosis(
        "network",
        "The network is the limit: workers on other machines spent "
        f'{evidence.link_percent:.0f}% of their time on the link. With dtype="uint8" a quarter of '
        "the bytes of float32 crosses it.",
        'dtype="uint8"',
    )


def _queue(evidence: Evidence) -> Diagnosis | None:
    idle = evidence.work["idle"]
    if idle < IDLE_PERCENT:
        return None
    return Diagnosis(
        "queue",
        f"More workers would not help, as they were idle {idle:.0f}% of it: batches are taken in "
        "bursts, for which a longer queue (max_queue_size) may help.",
        "max_queue_size",
        evidence.gain_by(MAX_GAIN),
    )


def _affinity(evidence: Evidence) -> Diagnosis | None:
    host = evidence.host
    if evidence.workers < host.cpus or not 0 < host.cpus < host.cpus_present:
        return None
    gain = evidence.gain_by(host.cpus_present / host.cpus)
    return Diagnosis(
        "affinity",
        f"The daemon may use {host.cpus} of {host.cpus_present} CPUs, by its affinity (taskset, "
        f"Slurm) or its cgroup's quota: with all of them, training could be up to {gain:.1f} times "
        "as fast.",
        "CPUs",
        gain,
    )


def _workers(evidence: Evidence) -> Diagnosis | None:
    cpus, workers = evidence.host.cpus, evidence.workers
    if workers >= cpus:
        return None
    gain = evidence.gain_by(cpus / max(1, workers))
    return Diagnosis(
        "workers",
        f"Make loading faster first: more workers. There are {workers}, and {cpus} CPUs may be "
        f"used: with --workers {cpus}, training could be up to {gain:.1f} times as fast.",
        f"--workers {cpus}",
        gain,
    )


def _cpu(evidence: Evidence) -> Diagnosis | None:
    if evidence.delayed_percent < DELAYED_PERCENT:
        return None
    gain = evidence.gain_by(100 / max(1e-9, 100 - evidence.delayed_percent))
    return Diagnosis(
        "cpu",
        f"CPUs are short: for {evidence.delayed_percent:.0f}% of the time in which the workers "
        "could run, other processes, the trainer among them, had the CPU. Without these, training "
        f"could be up to {gain:.1f} times as fast.",
        "",
        gain,
    )


def _cold_cache(evidence: Evidence) -> Diagnosis | None:
    caches = [one.cache for one in evidence.streams if one.cache != "none"]
    cached = evidence.cached_percent
    if not caches or cached is None or cached >= COLD_PERCENT or evidence.of_busy("decode") < 20:
        return None
    gain = evidence.gain_without("read", "decode", "resize")
    return Diagnosis(
        "cache",
        f"The cache is being filled: {cached:.0f}% of the images came from it. Once all do, "
        f"training could be up to {gain:.1f} times as fast.",
        "",
        gain,
    )


def _slowest_stage(evidence: Evidence) -> Diagnosis:
    """The stage that takes most of the workers' time, where they have nothing but work."""
    read = evidence.of_busy("read")
    if read >= READ_PERCENT:
        return _with_cache(evidence, "read", f"Reading files takes {read:.0f}% of the work")
    augment, decode = evidence.of_busy("augment"), evidence.of_busy("decode", "resize")
    if augment > decode:
        return _augmenting(evidence, augment)
    return _with_cache(evidence, "decode", f"Decoding takes {decode:.0f}% of the work")


def _augmenting(evidence: Evidence, share: float) -> Diagnosis:
    gain = evidence.gain_without("augment")
    if any(one.function for one in evidence.streams):
        return Diagnosis(
            "function",
            f"Your own function and the other operations take {share:.0f}% of the work: without "
            f"them, training could be up to {gain:.1f} times as fast. Operations of "
            "loaderd_client.augment are faster than functions.",
            "augment",
            gain,
        )
    return Diagnosis(
        "augment",
        f"Augmentation takes {share:.0f}% of the work: without it, training could be up to "
        f"{gain:.1f} times as fast. Fewer operations, or more CPUs, help.",
        "augment",
        gain,
    )


def _with_cache(evidence: Evidence, limit: Limit, what: str) -> Diagnosis:
    """What a cache would save, unless there is one."""
    if any(one.cache != "none" for one in evidence.streams):
        return Diagnosis(limit, f"{what}: more CPUs, or smaller images, help.")
    gain = evidence.gain_without("read", "decode", "resize")
    setting = f'cache="{_fitting_cache(evidence)}"'
    scaled = ""
    if limit == "decode" and any(one.decode == "exact" for one in evidence.streams):
        scaled = ' For photos much larger than the network\'s input, decode="scaled" helps too.'
    return Diagnosis(
        limit,
        f"{what}: with {setting}, training could be up to {gain:.1f} times as fast from the second "
        f"epoch on.{scaled}",
        setting,
        gain,
    )


def _fitting_cache(evidence: Evidence) -> str:
    """``memory`` if all images of the program would fit there."""
    nbytes = sum(_decoded_bytes(one) for one in evidence.streams)
    return "memory" if nbytes <= evidence.host.cache_limit - evidence.host.cache_bytes else "disk"


def _decoded_bytes(stream: StreamStats) -> float:
    """About what the decoded images of a stream take, by what a slot of its ring takes."""
    rows = max(1, stream.slots * stream.batch_size)
    return stream.samples * stream.ring_bytes / rows / (4 if stream.dtype == "float32" else 1)


_CAUSES: tuple[Callable[[Evidence], Diagnosis | None], ...] = (
    *(_storage, _partner, _network, _queue),
    *(_affinity, _workers, _cpu, _cold_cache),
)
"""In the order in which they are looked for."""
