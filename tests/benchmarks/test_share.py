"""``scripts/bench share``: trainers are measured in turn, and written beside the other results."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from scripts.benchmarks import contest, report, results, share, sharers
from scripts.benchmarks.sharers import SHARERS, Sharer
from scripts.benchmarks.workloads import Peer

ROOT = Path(__file__).parents[2]
ABSENT = Peer("a way that fails", "no_such_module", note="not ours")


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(contest, "LOGS", tmp_path / "logs")
    known = {name: SHARERS[name] for name in ("one", "two")}
    for module in (share, report):
        monkeypatch.setattr(module, "SHARERS", known | {"absent": Sharer(ABSENT, "one")})


@pytest.mark.usefixtures("chosen")
def test_trainers_are_measured_and_written(photos: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    share.add(parser.add_subparsers())
    words = [f"--data={photos}", f"--out={tmp_path}", "--runs=1", "--seconds=0.01"]
    args = parser.parse_args(["share", *words])
    args.run(args)
    found = results.load(tmp_path / "results.json").shared
    assert [len(found[name].rates) for name in ("one", "two", "absent")] == [1, 1, 0]
    page = (tmp_path / "README.md").read_text()
    assert "## Shared streams" in page
    assert page.count("| loaderd, two on one stream |") == 1
    assert "| a way that fails | - | - |  |" in page
    assert "not measured: " in page


def test_all_are_compared_with_one_trainer_of_the_same_loader() -> None:
    for sharer in sharers.SHARERS.values():
        assert (sharer.peer.variant == "one") == (not sharer.alone)
        assert not sharer.alone or SHARERS[sharer.alone].peer.module == sharer.peer.module
