"""``scripts/bench hand-over``: loops are measured in turn, and written beside the other results."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from scripts.benchmarks import contest, hand_over, loops, report, results
from scripts.benchmarks.loops import Loop
from scripts.benchmarks.peers import loop_ours
from scripts.benchmarks.results import LoopEntry
from scripts.benchmarks.workloads import Peer

ROOT = Path(__file__).parents[2]
OURS = Peer("loaderd, sequence.numpy()", "loop_ours", variant="numpy")
ABSENT = Peer("a loop that fails", "loop_ours", variant="no_such_library")


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(contest, "LOGS", tmp_path / "logs")
    known = {"numpy": Loop(OURS, "", "0"), "other": Loop(OURS, "numpy", "0")}
    known["absent"] = Loop(ABSENT, "numpy", "1")
    for module in (hand_over, report):
        monkeypatch.setattr(module, "LOOPS", known)


@pytest.mark.usefixtures("chosen")
def test_loops_are_measured_and_written(photos: Path, tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    hand_over.add(parser.add_subparsers())
    words = [f"--data={photos}", f"--out={tmp_path}", "--runs=2", "--seconds=0.01"]
    args = parser.parse_args(["hand-over", *words])
    args.run(args)
    found = results.load(tmp_path / "results.json").loops
    assert [len(found[name].rates) for name in ("numpy", "other", "absent")] == [2, 2, 0]
    assert found["numpy"].first_s > 0
    page = (tmp_path / "README.md").read_text()
    assert "## hand-over" in page
    assert page.count("| loaderd, sequence.numpy() |") == 2
    assert "not measured: ModuleNotFoundError: No module named 'no_such_library'" in page


def test_a_ratio_is_taken_round_by_round() -> None:
    ours = LoopEntry("", "", rates=[200.0, 300.0, 100.0])
    theirs = LoopEntry("", "", rates=[100.0, 100.0, 100.0])
    assert results.ratio_of(ours, theirs) == (2.0, 1.0, 3.0)
    assert results.ratio_of(None, theirs) is None


def test_batches_that_are_copies_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Copied:
        ctypes: Any = argparse.Namespace(data=0)

    with pytest.raises(AssertionError, match="images were copied"):
        next(loop_ours._images([(Copied(), None)]))


def test_every_loop_but_ours_is_compared_with_one_of_ours() -> None:
    for loop in loops.LOOPS.values():
        assert (loop.peer.module == "loop_ours") == (not loop.ours)
        assert not loop.ours or not loops.LOOPS[loop.ours].ours
