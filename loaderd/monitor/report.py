"""What a snapshot means: rates, shares of time and a verdict.

Counters only grow. With two snapshots the rates are those of the time in between; with
one they are averages since each stream was opened and each worker came up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from loaderd.ipc.snapshot import RemoteStats, Snapshot, StreamStats, WorkerStats
from loaderd.monitor.diagnosis import Evidence
from loaderd.monitor.verdict import Verdict, judge
from loaderd.monitor.waits import grown, quantiles

_STAGES = ("read", "decode", "resize", "augment")
_COUNTERS = ("age_s", "batches", "images", "first_batch_s", "waited_s", "first_waited_s")
"""Of a stream, in the order of :class:`_Span`."""

_QUANTILES = (0.5, 0.95, 0.99)

_Counted = StreamStats | WorkerStats | RemoteStats
_Pair = tuple[_Counted, _Counted | None]


class StreamRates(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a stream is read.

    Attributes:
        batches_per_s: batches that the trainer took.
        images_per_s: samples that the trainer took.
        waited_percent: share of the time since the first batch that the trainer waited for another.
        read: whether a batch was taken, or one after the first was waited for.
        wait_p50_s, wait_p95_s, wait_p99_s: seconds that the trainer waited for a batch, at most,
            for half of them, 95 % and 99 %; None if it took none after the first.
    """

    batches_per_s: float
    images_per_s: float
    waited_percent: float
    read: bool
    wait_p50_s: float | None
    wait_p95_s: float | None
    wait_p99_s: float | None


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


class RemoteRates(msgspec.Struct, frozen=True, kw_only=True):
    """How fast the workers of another machine are.

    Attributes:
        images_per_s: rows that came from there.
        crossed_per_s: bytes that came from there.
        link_percent: share of the time for which they had a chunk in hand that went into the link,
            and not into rendering.
    """

    images_per_s: float
    crossed_per_s: float
    link_percent: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot and what follows from it.

    ``rates`` are in the order of its streams, ``remote_rates`` in that of its other machines.
    ``interval_s`` is None for averages since the beginning.
    """

    now: Snapshot
    interval_s: float | None
    rates: tuple[StreamRates, ...]
    remote_rates: tuple[RemoteRates, ...]
    work: Work
    verdict: Verdict


def derive(
    now: Snapshot, before: Snapshot | None = None, long_before: Snapshot | None = None
) -> Report:
    """The report on ``now``, over the time since ``before`` where there is one.

    Args:
        now: the present.
        before: where the interval begins; None for averages since the beginning.
        long_before: where the verdict's interval begins, so that one late batch does not decide
            it; None for that of the rates.
    """
    before = _of_same_daemon(before, now)
    since = _of_same_daemon(long_before, now) or before
    return Report(
        now=now,
        interval_s=_seconds(now, before),
        rates=tuple(_rates(span) for span in _spans(now, before)),
        remote_rates=tuple(_remote_rates(now, before)),
        work=_work(now, before),
        verdict=judge(
            _waited_by_program(_spans(now, since)),
            now.streams,
            _seconds(now, since),
            lambda pid, waited: _evidence(pid, waited, now, since),
        ),
    )


def _evidence(pid: int, waited: float, now: Snapshot, before: Snapshot | None) -> Evidence:
    """What is known of why a program waited."""
    work = _work(now, before)
    return Evidence(
        waited_percent=waited,
        host=now.host,
        streams=[one for one in now.streams if one.client_pid == pid],
        others=[one for one in now.streams if one.client_pid != pid],
        storage=now.storage,
        workers=max(now.workers_wanted, now.workers_most),
        work={stage: getattr(work, stage) for stage in (*_STAGES, "other", "idle")},
        cached_percent=work.cached,
        delayed_percent=_delayed(now, before),
        link_percent=_link_percent(now, before),
    )


def _delayed(now: Snapshot, before: Snapshot | None) -> float:
    """Percent of the time in which local workers could run, and had no CPU."""
    earlier = {worker.pid: worker for worker in before.workers} if before else {}
    pairs = [(worker, earlier.get(worker.pid)) for worker in now.workers]
    running = sum(_grown(*pair, "cpu_s") for pair in pairs)
    delayed = sum(_grown(*pair, "delayed_s") for pair in pairs)
    return _percent(delayed, running + delayed)


def _of_same_daemon(before: Snapshot | None, now: Snapshot) -> Snapshot | None:
    return before if before is not None and _same_daemon(now, before) else None


def _seconds(now: Snapshot, before: Snapshot | None) -> float | None:
    return None if before is None else now.daemon.uptime_s - before.daemon.uptime_s


def _spans(now: Snapshot, before: Snapshot | None) -> list[_Span]:
    earlier = {stream.id: stream for stream in before.streams} if before else {}
    return [_since(stream, earlier.get(stream.id)) for stream in now.streams]


def _same_daemon(now: Snapshot, before: Snapshot) -> bool:
    """Whether counters go on: those of a restarted daemon begin at 0, perhaps with the same pid."""
    return now.daemon.pid == before.daemon.pid and now.daemon.uptime_s > before.daemon.uptime_s


class _Span(NamedTuple):
    """What one stream did, and in how many seconds.

    The time before its first batch is no training, as workers start and the dataset is listed.
    """

    client_pid: int
    waits: Sequence[int]
    seconds: float
    batches: float
    images: float
    first_batch_s: float
    all_waited_s: float
    first_waited_s: float

    @property
    def training_s(self) -> float:
        return max(0.0, self.seconds - self.first_batch_s)

    @property
    def waited_s(self) -> float:
        return max(0.0, self.all_waited_s - self.first_waited_s)

    @property
    def read(self) -> bool:
        return self.batches > 0 or self.waited_s > 0


def _since(now: StreamStats, before: StreamStats | None) -> _Span:
    counters = [_grown(now, before, counter) for counter in _COUNTERS]
    return _Span(now.client_pid, grown(now.waits, before.waits if before else ()), *counters)


def _rates(span: _Span) -> StreamRates:
    p50, p95, p99 = quantiles(span.waits, _QUANTILES) or (None, None, None)
    return StreamRates(
        batches_per_s=_ratio(span.batches, span.seconds),
        images_per_s=_ratio(span.images, span.seconds),
        waited_percent=_percent(span.waited_s, span.training_s),
        read=span.read,
        wait_p50_s=p50,
        wait_p95_s=p95,
        wait_p99_s=p99,
    )


def _waited_by_program(spans: Iterable[_Span]) -> dict[int, float]:
    """Percent of time waited, by pid. A program reads its streams in turn, so waits add up."""
    waited: defaultdict[int, float] = defaultdict(float)
    seconds: defaultdict[int, float] = defaultdict(float)
    for span in spans:
        if span.read:
            waited[span.client_pid] += span.waited_s
            seconds[span.client_pid] = max(seconds[span.client_pid], span.training_s)
    return {pid: _percent(waited[pid], seconds[pid]) for pid in waited}


def _work(now: Snapshot, before: Snapshot | None) -> Work:
    """Percent of the workers' time. A chunk counts when done, so work may exceed the interval."""
    pairs = [*_worker_pairs(now, before), *_remote_pairs(now, before)]

    def total(counter: str) -> float:
        return sum(_grown(after, earlier, counter) for after, earlier in pairs)

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


def _worker_pairs(now: Snapshot, before: Snapshot | None) -> list[_Pair]:
    earlier = {worker.pid: worker for worker in before.workers} if before else {}
    return [(worker, earlier.get(worker.pid)) for worker in now.workers]


def _remote_pairs(now: Snapshot, before: Snapshot | None) -> list[_Pair]:
    earlier = {remote.host: remote for remote in before.remote} if before else {}
    return [(remote, earlier.get(remote.host)) for remote in now.remote]


def _remote_rates(now: Snapshot, before: Snapshot | None) -> Iterator[RemoteRates]:
    seconds = _seconds(now, before) or now.daemon.uptime_s
    for remote, earlier in _remote_pairs(now, before):
        held, busy = (_grown(remote, earlier, counter) for counter in ("held_s", "busy_s"))
        yield RemoteRates(
            images_per_s=_ratio(_grown(remote, earlier, "rows"), seconds),
            crossed_per_s=_ratio(_grown(remote, earlier, "crossed"), seconds),
            link_percent=_percent(held - busy, held),
        )


def _link_percent(now: Snapshot, before: Snapshot | None) -> float:
    """Share of all remote workers' time with a chunk in hand that went into the link."""
    pairs = _remote_pairs(now, before)
    held, busy = (sum(_grown(*pair, counter) for pair in pairs) for counter in ("held_s", "busy_s"))
    return _percent(held - busy, held)


def _grown(now: _Counted, before: _Counted | None, counter: str) -> float:
    grown = getattr(now, counter) - (getattr(before, counter) if before else 0.0)
    return max(0.0, grown) if math.isfinite(grown) else 0.0


def _ratio(part: float, whole: float) -> float:
    ratio = part / whole if whole > 0 else 0.0
    return max(0.0, ratio) if math.isfinite(ratio) else 0.0


def _percent(part: float, whole: float) -> float:
    """At most 100: several threads of a trainer may wait at once."""
    return min(100.0, 100.0 * _ratio(part, whole))
