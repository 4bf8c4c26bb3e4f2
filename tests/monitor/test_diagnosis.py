"""Which limit is named, from figures; ``tests/process/test_bottlenecks.py`` plants real ones."""

from __future__ import annotations

from typing import Any

import pytest

from loaderd.ipc.snapshot import HostStats, StorageStats, StreamStats
from loaderd.monitor.diagnosis import MAX_GAIN, Evidence, diagnose
from tests.monitor.test_report import stream

BUSY = {"read": 2.0, "decode": 70.0, "resize": 8.0, "augment": 15.0, "other": 5.0, "idle": 0.0}


def host(**fields: Any) -> HostStats:
    usual: dict[str, Any] = {
        "cpus": 8,
        "cpu_percent": 100.0,
        "shm_total": 2**34,
        "shm_free": 2**34,
        "ring_bytes": 2**26,
        "ring_limit": 2**32,
        "cache_bytes": 0,
        "cache_limit": 2**32,
        "cpus_present": 8,
    }
    return HostStats(**(usual | fields))


def evidence(**fields: Any) -> Evidence:
    """A program that waits half of its time for decoding."""
    usual: dict[str, Any] = {
        "waited_percent": 50.0,
        "host": host(),
        "streams": [stream()],
        "others": [],
        "storage": [],
        "workers": 8,
        "work": BUSY,
        "cached_percent": 0.0,
        "delayed_percent": 0.0,
        "link_percent": 0.0,
    }
    return Evidence(**(usual | fields))


def mixed(**work: float) -> dict[str, float]:
    return dict.fromkeys(BUSY, 0.0) | work


def sharer(pid: int, **fields: Any) -> StreamStats:
    return stream(client_pid=pid, share="epochs", **fields)


@pytest.mark.parametrize(
    ("limit", "fields"),
    [
        ("decode", {}),
        ("decode", {"streams": [stream(cache="disk")], "cached_percent": 90.0}),
        ("cache", {"streams": [stream(cache="disk")], "cached_percent": 10.0}),
        ("read", {"work": mixed(read=60, decode=40)}),
        ("augment", {"work": mixed(decode=40, augment=60)}),
        ("function", {"work": mixed(decode=40, augment=60), "streams": [stream(function=True)]}),
        ("workers", {"workers": 2}),
        ("affinity", {"host": host(cpus=1), "workers": 1}),
        ("cpu", {"delayed_percent": 50.0}),
        ("queue", {"work": mixed(decode=50, idle=50)}),
        ("network", {"link_percent": 60.0}),
        ("partner", {"streams": [sharer(1)], "others": [sharer(2, lag=6)]}),
        ("decode", {"streams": [sharer(1)], "others": [sharer(2, lag=6, detached=True)]}),
        ("storage", {"storage": [StorageStats(path="/d", waited_s=9, stream=1, client_pid=1)]}),
    ],
)
def test_the_limit_is_named(limit: str, fields: dict[str, Any]) -> None:
    assert diagnose(evidence(**fields)).limit == limit


def test_the_gain_is_that_of_the_loader_and_no_more_than_the_waits() -> None:
    assert diagnose(evidence()).gain == pytest.approx(2.0)  # decode is 80%, but half is waited
    assert diagnose(evidence(waited_percent=90.0)).gain == pytest.approx(100 / 20)
    assert diagnose(evidence(waited_percent=100.0, workers=1)).gain == pytest.approx(8)
    queue = evidence(waited_percent=100.0, work=mixed(decode=10, idle=90))
    assert diagnose(queue).gain == MAX_GAIN


def test_a_cache_that_does_not_fit_in_memory_is_advised_on_disk() -> None:
    assert diagnose(evidence()).setting == 'cache="memory"'
    assert diagnose(evidence(host=host(cache_limit=2**20))).setting == 'cache="disk"'


def test_where_there_is_a_cache_no_other_is_advised() -> None:
    found = diagnose(evidence(streams=[stream(cache="disk")], cached_percent=100.0))
    assert (found.setting, found.gain) == ("", None)
