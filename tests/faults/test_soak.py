"""What grows is found, and a short form of ``scripts/soak`` runs to its end."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.faults import census
from scripts.faults.daemons import end_all
from scripts.growth import gauges, judge
from scripts.growth.gauges import Sample
from scripts.growth.judge import Row
from scripts.growth.maker import LEFT_OUT, combinations
from scripts.growth.sources import SOURCES
from scripts.growth.trial import MAX_KEPT, kept
from scripts.growth.uses import USES
from tests.faults.test_chaos import ROOT, left_of
from tests.support.daemons import eventually

FLOWS = 5000


@pytest.fixture
def folder() -> Iterator[Path]:
    """With a short path: a socket lies in it."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "kept"


def soak(folder: Path, *words: str) -> subprocess.Popen[str]:
    program = [str(ROOT / "scripts" / "soak"), f"--keep={folder}", *words]
    return subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )


def test_flows_are_made_beside_two_trainers_and_every_figure_is_told(folder: Path) -> None:
    process = soak(folder, "--minutes=0.1", "--flows=46", "--trainers=plain", "--json")
    said, progress = process.communicate(timeout=110)
    told = json.loads(said)
    assert told["findings"] == [], progress
    assert process.returncode == (0 if told["flat"] else 1)  # so few flows are a warm-up still
    assert told["flows"] >= 46
    assert min(told["batches"].values()) > 0
    parts = {row["part"] for row in told["rows"]}
    assert parts >= {"flows", "augmented", "validated", "supervisor", "workers", "opener"}
    assert all(row["most"] > 0 for row in told["rows"] if row["what"] == "descriptors")
    assert " of 46 flows" in progress
    assert left_of(folder) == []


def test_ctrl_c_ends_it_and_leaves_nothing(folder: Path) -> None:
    process = soak(folder)
    assert process.stderr is not None
    assert any("trainers begin" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "soak: interrupted" in said
    eventually(lambda: left_of(folder) == [])


def test_every_way_of_making_a_flow_meets_every_way_of_using_it() -> None:
    pairs = set(itertools.product(SOURCES, USES)) - LEFT_OUT
    assert len(pairs) < FLOWS // 4  # all of them come in each quarter
    assert set(itertools.islice(combinations(), len(pairs))) == pairs


def test_what_is_kept_on_purpose_reaches_its_bound_in_the_warm_up() -> None:
    assert kept(FLOWS) == MAX_KEPT
    for flows in (1, 46, 600, FLOWS, 100_000):
        assert kept(flows) == 1 or kept(flows) * len(USES) <= flows // 4


# ---- what is found ----------------------------------------------------------------------


def judged(values: dict[int, float], allowed: float = 8.0) -> Row:
    """One figure, by the flows that were made when it was measured."""
    samples = [
        Sample(flows / 3, flows, {"one": {"descriptors": value}}) for flows, value in values.items()
    ]
    (row,) = judge.rows(samples, {"one": {"descriptors": allowed}})
    return row


def measured(value: Any) -> dict[int, float]:
    return {flows: float(value(flows)) for flows in range(1, FLOWS + 1, 10)}


@pytest.mark.parametrize(
    "value",
    [
        lambda flows: 50,
        lambda flows: 50 + flows * 37 // 10 % 41,  # what is held now and then
        lambda flows: min(flows, 1000),  # a warm-up
        lambda flows: 900 if flows in (2001, 4001) else 50,  # for a moment
        lambda flows: 50 - flows // 100,
    ],
)
def test_what_does_not_grow_is_flat(value: Any) -> None:
    row = judged(measured(value))
    assert row.flat
    assert list(judge.grown([row])) == []


@pytest.mark.parametrize(
    "value",
    [
        lambda flows: 50 + flows // 200,  # one in 200 flows
        lambda flows: 50 + flows * 37 // 10 % 41 + flows // 200,
        lambda flows: 50 if flows < 3000 else 60,
    ],
)
def test_what_grows_is_found(value: Any) -> None:
    row = judged(measured(value))
    (said,) = judge.grown([row])
    assert said.startswith("one: descriptors grew from ")


def test_how_fast_it_grows_is_told_for_1000_flows() -> None:
    assert judged(measured(lambda flows: 50 + flows / 100)).slope == pytest.approx(10)


def test_with_too_few_samples_nothing_is_called_flat() -> None:
    row = judged(dict.fromkeys(range(0, FLOWS, 1000), 1.0))
    assert not row.flat
    assert list(judge.grown([row])) == ["one: too few samples of descriptors to judge it"]


HOLDER = """
import mmap, os, threading, time
fd = os.memfd_create("held")
os.truncate(fd, 1 << 22)
for _ in range(20):
    os.dup(fd)
views = [mmap.mmap(fd, 1 << 22) for _ in range(10)]
own = b"." * (50 << 20)
for _ in range(5):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
os.write(1, b"there\\n")
time.sleep(60)
"""


def test_what_a_process_holds_is_measured() -> None:
    plain = gauges.of_client(os.getpid())
    assert plain is not None
    assert set(plain) == set(gauges.PROCESS)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, start_new_session=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"there\n"
            found = gauges.of_client(process.pid)
            assert found is not None
            assert found["descriptors"] == 3 + 1 + 20 + 10  # a mapping of Python's holds one, too
            assert found["threads"] == 6
            assert found["shared"] == 4
            assert 50 < found["private"] < 100
            assert found["RSS"] >= found["private"]
            assert found["maps"] > 10
            assert found["processes"] == 1
        finally:
            end_all([process.pid])
    assert census.eventually(lambda: not census.members({process.pid}), 10)
    assert gauges.of_client(process.pid) is None


@pytest.mark.long
@pytest.mark.timeout(900)
def test_nothing_grows_while_flows_are_made_and_dropped(folder: Path) -> None:
    process = soak(folder, "--minutes=5", "--flows=1500")
    said, _ = process.communicate(timeout=880)
    assert process.returncode == 0, said
    assert "verdict: flat" in said
