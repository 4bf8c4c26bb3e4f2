"""What a snapshot means: rates, shares of time and a verdict.

Counters only grow. With two snapshots the rates are those of the time in between; with
one they are averages since each stream was opened and each worker came up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

import msgspec

from loaderd.ipc.snapshot import Snapshot, StreamStats, WorkerStats
from loaderd.monitor.verdict import Verdict, judge

_STAGES = ("read", "decode", "resize", "augment")


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


class _Span(msgspec.Struct, frozen=True):
    """What one stream did, and in how many seconds."""

    client_pid: int
    seconds: float
    batches: int
    images: int
    waited_s: float

    @property
    def read(self) -> bool:
        return self.batches > 0 or self.waited_s > 0


def _since(now: StreamStats, before: StreamStats | None) -> _Span:
    if before is None:
        return _Span(now.client_pid, now.age_s, now.batches, now.images, now.waited_s)
    return _Span(
        now.client_pid,
        now.age_s - before.age_s,
        now.batches - before.batches,
        now.images - before.images,
        now.waited_s - before.waited_s,
    )


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


def _work(now: Iterable[WorkerStats], before: Iterable[WorkerStats]) -> Work:
    earlier = {worker.pid: worker for worker in before}
    stages = dict.fromkeys(_STAGES, 0.0)
    busy = up = rows = cached = 0.0
    for worker in now:
        then = earlier.get(worker.pid)
        for stage in _STAGES:
            stages[stage] += _grown(worker, then, f"{stage}_s")
        busy += _grown(worker, then, "busy_s")
        up += _grown(worker, then, "up_s")
        rows += _grown(worker, then, "rows")
        cached += _grown(worker, then, "cached")
    return _shares(stages, busy, up, _percent(cached, rows) if rows else None)


def _grown(now: WorkerStats, before: WorkerStats | None, counter: str) -> float:
    grown = getattr(now, counter) - (getattr(before, counter) if before else 0.0)
    return max(0.0, grown) if math.isfinite(grown) else 0.0


def _shares(stages: dict[str, float], busy: float, up: float, cached: float | None) -> Work:
    """Percent of the workers' time. A chunk counts when done, so work may exceed the interval."""
    staged = sum(stages.values())
    busy = max(busy, staged)
    whole = max(busy, up)
    return Work(
        **{stage: _percent(spent, whole) for stage, spent in stages.items()},
        other=_percent(busy - staged, whole),
        idle=_percent(whole - busy, whole),
        cached=cached,
    )


def _ratio(part: float, whole: float) -> float:
    ratio = part / whole if whole > 0 else 0.0
    return max(0.0, ratio) if math.isfinite(ratio) else 0.0


def _percent(part: float, whole: float) -> float:
    """At most 100: several threads of a trainer may wait at once."""
    return min(100.0, 100.0 * _ratio(part, whole))
