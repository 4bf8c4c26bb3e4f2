"""A report in Prometheus's text format.

Names and units are those of https://prometheus.io/docs/practices/naming: counters end in
``_total``, times are seconds, sizes bytes, shares ratios from 0 to 1. Labels are bounded: a stream
has its number, its trainer's process id and the end of its folder's path; workers have none, as
each one that is replaced would leave a series behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import get_args

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from loaderd.ipc.snapshot import WAIT_BOUNDS_S, StreamStats
from loaderd.ipc.text import encodable
from loaderd.monitor.report import Report
from loaderd.monitor.verdict import Bound

MAX_FOLDER = 80
"""Characters of a folder's path that are kept, from its end."""

_OF_STREAM = ("stream", "pid", "folder", "share", "shard")
_STAGES = ("read", "decode", "resize", "augment")


class ReportCollector:
    """The metrics of one daemon; a custom collector of ``prometheus_client``.

    Args:
        report: gives the present report; None while no daemon answers.
    """

    def __init__(self, report: Report | None) -> None:
        self._report = report

    def collect(self) -> Iterator[Metric]:
        """All metrics, of one and the same moment."""
        up = self._report is not None
        yield _gauge("loaderd_up", "Whether the daemon answers.", float(up))
        if self._report is None:
            return
        yield from _daemon(self._report)
        yield from _host(self._report)
        yield from _workers(self._report)
        yield from _remote(self._report)
        yield from _streams(self._report)
        yield _verdict(self._report)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)


def _daemon(report: Report) -> Iterator[Metric]:
    daemon = report.now.daemon
    about = {"version": encodable(daemon.version), "name": encodable(daemon.name)}
    yield InfoMetricFamily("loaderd_build", "The daemon.", value=about)
    yield _gauge("loaderd_uptime_seconds", "Time since the daemon began.", daemon.uptime_s)
    yield _counter("loaderd_supervisor_cpu_seconds", "CPU time of the supervisor.", daemon.cpu_s)
    yield _counter("loaderd_chunks", "Chunks that are rendered.", daemon.chunks)
    yield _counter("loaderd_bad_images", "Images that could not be read.", daemon.bad)
    yield _gauge(
        "loaderd_trouble", "Whether the daemon cannot work, as no worker starts.",
        float(bool(daemon.trouble)),
    )  # fmt: skip
    yield _gauge(
        "loaderd_storage_stalls", "Streams that wait for storage that does not answer.",
        len(report.now.storage),
    )  # fmt: skip


def _host(report: Report) -> Iterator[Metric]:
    host = report.now.host
    yield _gauge("loaderd_host_cpus", "CPUs that the daemon may use.", host.cpus)
    yield _gauge("loaderd_host_cpu_ratio", "Use of all CPUs.", host.cpu_percent / 100)
    for name, text, value in (
        ("shm", "Shared memory of the machine.", host.shm_total),
        ("shm_free", "Shared memory that is free.", host.shm_free),
        ("ring", "Memory of all rings.", host.ring_bytes),
        ("ring_limit", "The most that all rings may take.", host.ring_limit),
        ("cache", "Caches in memory.", host.cache_bytes),
        ("cache_limit", "The most that caches in memory may take.", host.cache_limit),
    ):
        yield _gauge(f"loaderd_{name}_bytes", text, value)


def _workers(report: Report) -> Iterator[Metric]:
    now = report.now
    yield _gauge("loaderd_workers", "Workers that are up.", len(now.workers))
    yield _gauge("loaderd_workers_wanted", "Workers that there should be.", now.workers_wanted)
    yield _counter("loaderd_worker_restarts", "Workers that were replaced.", now.restarts)
    # Of the workers that live: the sums fall where one is replaced, so they are gauges.
    work = GaugeMetricFamily(
        "loaderd_workers_time_ratio",
        "Where the time of the workers goes, over the last interval.",
        labels=["stage"],
    )
    for stage in (*_STAGES, "other", "idle"):
        work.add_metric([stage], getattr(report.work, stage) / 100)
    yield work


def _remote(report: Report) -> Iterator[Metric]:
    """Workers of other machines, by host."""
    remote = report.now.remote
    workers = GaugeMetricFamily(
        "loaderd_remote_workers", "Workers of another machine that are up.", labels=["host"]
    )
    images = CounterMetricFamily(
        "loaderd_remote_images", "Samples that another machine has made.", labels=["host"]
    )
    crossed = CounterMetricFamily(
        "loaderd_remote_bytes", "Bytes that came from another machine.", labels=["host"]
    )
    for one in remote:
        host = [encodable(one.host)]
        workers.add_metric(host, one.workers)
        images.add_metric(host, one.rows)
        crossed.add_metric(host, one.crossed)
    yield from (workers, images, crossed)


def _streams(report: Report) -> Iterator[Metric]:
    streams = report.now.streams
    slots = GaugeMetricFamily(
        "loaderd_stream_slots", "Slots of the ring, by state.", labels=[*_OF_STREAM, "state"]
    )
    for one in streams:
        free = one.slots - one.ready - one.filling - one.leased
        for state, count in (
            ("free", free),
            ("filling", one.filling),
            ("ready", one.ready),
            ("leased", one.leased),
        ):
            slots.add_metric([*_labels(one), state], max(0, count))
    yield slots
    for name, text, values in (
        ("batches", "Batches that the trainer took.", [one.batches for one in streams]),
        ("images", "Samples that the trainer took.", [one.images for one in streams]),
        ("wait_seconds", "Time that the trainer waited.", [one.waited_s for one in streams]),
        ("errors", "Batches that could not be made.", [one.errors for one in streams]),
        ("bad_images", "Images that could not be read.", [one.bad for one in streams]),
    ):
        yield _of_streams(CounterMetricFamily, f"loaderd_stream_{name}", text, streams, values)
    lags = [one.lag for one in streams]
    text = "Batches behind the foremost trainer of a shared stream."
    yield _of_streams(GaugeMetricFamily, "loaderd_stream_lag_batches", text, streams, lags)
    yield _waits(streams)


def _of_streams(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
    name: str,
    text: str,
    streams: Sequence[StreamStats],
    values: Iterable[float],
) -> Metric:
    family = kind(name, text, labels=_OF_STREAM)
    for one, value in zip(streams, values, strict=True):
        family.add_metric(_labels(one), value)
    return family


def _waits(streams: Sequence[StreamStats]) -> Metric:
    family = HistogramMetricFamily(
        "loaderd_stream_batch_wait_seconds",
        "Time that the trainer waited for a batch, after the first.",
        labels=_OF_STREAM,
    )
    bounds = [*map(repr, WAIT_BOUNDS_S), "+Inf"]
    for one in streams:
        buckets = list(zip(bounds, accumulate(one.waits), strict=False))
        if len(buckets) == len(bounds):
            waited = max(0.0, one.waited_s - one.first_waited_s)
            family.add_metric(_labels(one), buckets, sum_value=waited)
    return family


def _verdict(report: Report) -> Metric:
    family = GaugeMetricFamily(
        "loaderd_input_bound",
        "1 for the verdict on the program that waits most, 0 for the others.",
        labels=["verdict"],
    )
    for bound in get_args(Bound):
        family.add_metric([bound], float(bound == report.verdict.bound))
    return family


def _labels(stream: StreamStats) -> list[str]:
    return [
        str(stream.id),
        str(stream.client_pid),
        encodable(stream.directory)[-MAX_FOLDER:],
        encodable(stream.share),
        encodable(stream.shard),
    ]
