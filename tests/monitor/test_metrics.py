"""Metrics of a report, as Prometheus's own strict parser reads them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest
import yaml
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strictly
from prometheus_client.registry import CollectorRegistry

from loaderd.ipc.snapshot import WAIT_BOUNDS_S, RemoteStats
from loaderd.monitor.metrics import ReportCollector
from loaderd.monitor.report import Report, derive
from tests.monitor.test_report import snapshot, stream

HOW_TO = Path(__file__).parents[2] / "docs/how-to"


def samples(report: Report | None) -> dict[str, list[float]]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ReportCollector(report))
    found: dict[str, list[float]] = {}
    for family in strictly(generate_latest(registry).decode()):
        for one in family.samples:
            found.setdefault(one.name, []).append(one.value)
    return found


def a_report() -> Report:
    zero = {field.name: field.type() for field in msgspec.structs.fields(RemoteStats)}
    host = RemoteStats(**(zero | {"host": 'a"b\\c', "rows": 7, "crossed": 1000, "workers": 2}))
    waits = tuple(range(len(WAIT_BOUNDS_S) + 1))
    now = snapshot(stream(waits=waits, directory='/d/"x\n'), stream(id=2))
    return derive(msgspec.structs.replace(now, remote=(host,)))


def test_they_are_those_of_the_report() -> None:
    found = samples(a_report())
    assert found["loaderd_up"] == [1]
    assert found["loaderd_stream_images_total"] == [48640, 48640]
    assert found["loaderd_stream_batch_wait_seconds_count"] == [sum(range(19))]
    assert found["loaderd_remote_images_total"] == [7]
    assert sum(found["loaderd_input_bound"]) == 1


def test_without_a_daemon_only_that_is_told() -> None:
    assert samples(None) == {"loaderd_up": [0]}


@pytest.mark.parametrize("file", ["grafana.json", "alerts.yaml"])
def test_dashboard_and_alerts_name_metrics_that_there_are(file: str) -> None:
    text = (HOW_TO / file).read_text()
    assert json.loads(text)["panels"] if file.endswith("json") else yaml.safe_load(text)["groups"]
    known = set(samples(a_report())) | {"loaderd_stream_batch_wait_seconds_bucket"}

    named = set(re.findall(r"\bloaderd_[a-z_]+", text))
    assert named
    assert named <= known
