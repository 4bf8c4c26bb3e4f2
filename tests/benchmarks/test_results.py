"""Ratios are taken round by round, a library counts with its better way, and nobody is hidden."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from scripts.benchmarks import bars, report, results
from scripts.benchmarks.results import Entry, Ratio, Results
from scripts.benchmarks.workloads import MUSTS, PEERS, WORKLOADS


def entry(rates: list[float], ours: list[float], failed: str = "") -> Entry:
    return Entry(date="2030-01-01", command="bench", rates=rates, ours=ours, failed=failed)


@pytest.fixture
def found() -> Results:
    return Results(
        machine=results.machine(),
        entries={
            "augment": {
                "loaderd": entry([100, 120, 90], [100, 120, 90]),
                "keras-threads": entry([10, 10, 10], [100, 120, 90]),
                "keras-processes": entry([20, 20, 30], [100, 120, 90]),
                "dali": entry([], [], failed="no <wheel> for this machine"),
            }
        },
    )


def test_a_ratio_is_the_median_of_the_rounds_ratios(found: Results) -> None:
    assert results.ratio(found.entries["augment"]["keras-processes"]) == Ratio(5, 3, 6)


def test_a_peer_without_rates_has_no_ratio(found: Results) -> None:
    assert results.ratio(found.entries["augment"]["dali"]) is None


def test_of_two_ways_to_use_a_library_the_faster_one_counts(found: Results) -> None:
    verdicts = {(v.must.workload, v.must.against): v for v in results.verdicts(found)}
    verdict = verdicts["augment", "Keras ImageDataGenerator"]
    assert verdict.peer == "keras-processes"
    assert verdict.is_met


def test_what_was_not_measured_is_not_met(found: Results) -> None:
    verdicts = {(v.must.workload, v.must.against): v for v in results.verdicts(found)}
    assert not verdicts["augment", "dali"].is_met
    assert verdicts["augment", "dali"].ratio is None


def test_results_come_back_as_they_were_kept(found: Results, tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    results.save(path, found)
    assert results.load(path) == found


def test_results_of_another_machine_are_dropped(found: Results, tmp_path: Path) -> None:
    found.machine = found.machine | {"cpu": "another"}
    results.save(tmp_path / "results.json", found)
    assert results.load(tmp_path / "results.json").entries == {}


def test_a_peer_that_is_not_there_is_named_with_its_reason(found: Results) -> None:
    assert "not measured: no <wheel> for this machine" in report.markdown(found)


def test_the_picture_is_xml_and_has_a_bar_for_each_measured_peer(found: Results) -> None:
    root = ElementTree.fromstring(bars.drawing(found))
    assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 3


def test_a_picture_can_be_drawn_of_nothing() -> None:
    ElementTree.fromstring(bars.drawing(Results(machine=results.machine())))


def test_workloads_and_musts_name_peers_that_exist() -> None:
    groups = {peer.group for peer in PEERS.values()} - {""}
    for workload in WORKLOADS.values():
        assert {workload.ours, *workload.others, *workload.left_out} <= set(PEERS)
    for must in MUSTS:
        others = WORKLOADS[must.workload].others
        known = {*others, *(PEERS[name].group for name in others)}
        assert must.against in known
        assert must.against in PEERS or must.against in groups


def test_peers_that_share_an_environment_want_the_same_packages() -> None:
    wanted: dict[str, tuple[str, ...]] = {}
    for peer in PEERS.values():
        assert wanted.setdefault(peer.environment, peer.requires) == peer.requires


def test_results_are_plain_json(found: Results) -> None:
    assert msgspec.json.decode(msgspec.json.encode(found))["entries"]["augment"]["dali"]["failed"]
