"""What a snapshot means: rates, shares of time and a verdict.

Counters only grow. With two snapshots the rates are those of the time in between; with
one they are averages since each stream was opened and each worker came up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from loaderd.ipc.snapshot import Snapshot, StreamStats, WorkerStats
from loaderd.monitor.verdict import Verdict, judge

_STAGES = ("read", "decode", "resize", "augment")
_COUNTERS = ("age_s", "batches", "images", "waited_s")
"""Of a stream; the first is its time."""

_Counted = StreamStats | WorkerStats


class StreamRates(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a stream is read.

    Attributes:
        batches_per_s: batches that the trainer took.
        images_per_s: samples that the trainer took.
        waited_percent: share of time that the trainer waited for a batch.
        read: whether a batch was taken or waited for.
    """

    batches_per_s: float
    images_per_s: float
    waited_percent: float
    read: bool


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """Where the workers' time goes, in percent; the sum is 100, or 0 without workers.

    Attributes:
        cached: share of the rows whose images came from a cache; None if there were no rows.
    """

    read: float
    decode: float
    resize: float
    augment: float
    other: float
    idle: float
    cached: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot and what follows from it; ``rates`` are in the order of its streams.

    ``interval_s`` is None for averages since the beginning.
    """

    now: Snapshot
    interval_s: float | None
    rates: tuple[StreamRates, ...]
    work: Work
    verdict: Verdict


def derive(now: Snapshot, before: Snapshot | None = None) -> Report:
    """The report on ``now``, over the time since ``before`` where there is one."""
    if before is not None and not _same_daemon(now, before):
        before = None
    interval = None if before is None else now.daemon.uptime_s - before.daemon.uptime_s
    earlier = {stream.id: stream for stream in before.streams} if before else {}
    spans = [_since(stream, earlier.get(stream.id)) for stream in now.streams]
    waited = _waited_by_program(spans)
    return Report(
        now=now,
        interval_s=interval,
        rates=tuple(_rates(span) for span in spans),
        work=_work(now.workers, before.workers if before else ()),
        verdict=judge(waited, len(now.streams), interval, now.storage),
    )


def _same_daemon(now: Snapshot, before: Snapshot) -> bool:
    """Whether counters go on: those of a restarted daemon begin at 0, perhaps with the same pid."""
    return now.daemon.pid == before.daemon.pid and now.daemon.uptime_s > before.daemon.uptime_s


class _Span(NamedTuple):
    """What one stream did, and in how many seconds."""

    client_pid: int
    seconds: float
    batches: float
    images: float
    waited_s: float

    @property
    def read(self) -> bool:
        return self.batches > 0 or self.waited_s > 0


def _since(now: StreamStats, before: StreamStats | None) -> _Span:
    return _Span(now.client_pid, *(_grown(now, before, counter) for counter in _COUNTERS))


def _rates(span: _Span) -> StreamRates:
    return StreamRates(
        batches_per_s=_ratio(span.batches, span.seconds),
        images_per_s=_ratio(span.images, span.seconds),
        waited_percent=_percent(span.waited_s, span.seconds),
        read=span.read,
    )


def _waited_by_program(spans: Iterable[_Span]) -> dict[int, float]:
    """Percent of time waited, by pid. A program reads its streams in turn, so waits add up."""
    waited: defaultdict[int, float] = defaultdict(float)
    seconds: defaultdict[int, float] = defaultdict(float)
    for span in spans:
        if span.read:
            waited[span.client_pid] += span.waited_s
            seconds[span.client_pid] = max(seconds[span.client_pid], span.seconds)
    return {pid: _percent(waited[pid], seconds[pid]) for pid in waited}


def _work(now: Sequence[WorkerStats], before: Iterable[WorkerStats]) -> Work:
    """Percent of the workers' time. A chunk counts when done, so work may exceed the interval."""
    earlier = {worker.pid: worker for worker in before}

    def total(counter: str) -> float:
        return sum(_grown(worker, earlier.get(worker.pid), counter) for worker in now)

    stages = {stage: total(f"{stage}_s") for stage in _STAGES}
    staged = sum(stages.values())
    busy = max(total("busy_s"), staged)
    whole = max(busy, total("up_s"))
    rows = total("rows")
    return Work(
        **{stage: _percent(spent, whole) for stage, spent in stages.items()},
        other=_percent(busy - staged, whole),
        idle=_percent(whole - busy, whole),
        cached=_percent(total("cached"), rows) if rows else None,
    )


def _grown(now: _Counted, before: _Counted | None, counter: str) -> float:
    grown = getattr(now, counter) - (getattr(before, counter) if before else 0.0)
    return max(0.0, grown) if math.isfinite(grown) else 0.0


def _ratio(part: float, whole: float) -> float:
    ratio = part / whole if whole > 0 else 0.0
    return max(0.0, ratio) if math.isfinite(ratio) else 0.0


def _percent(part: float, whole: float) -> float:
    """At most 100: several threads of a trainer may wait at once."""
    return min(100.0, 100.0 * _ratio(part, whole))
