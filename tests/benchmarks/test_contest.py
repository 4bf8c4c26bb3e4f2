"""A contestant answers in its turn, rests in others', and leaves nothing behind."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from scripts.benchmarks import contest, photos
from scripts.benchmarks.contest import Contestant, Failed
from scripts.benchmarks.peers.protocol import Source, Task, class_files, rate
from tests.support.daemons import eventually, gone


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(contest, "LOGS", tmp_path / "logs")
    for number in range(8):
        folder = tmp_path / "pictures" / f"class_{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.jpg"), np.full((20, 30, 3), 9 * number, np.uint8))
    return tmp_path / "pictures"


def enter(folder: Path) -> Contestant:
    return Contestant(sys.executable, "bare", Task(str(folder), (10, 10), workers=1), "test")


def test_a_contestant_gets_ready_measures_and_ends(pictures: Path) -> None:
    contestant = enter(pictures)
    try:
        assert contestant.looks["shape"] == [32, 10, 10, 3]
        assert contestant.looks["dtype"] == "float32"
        assert "numpy" in contestant.packages
        assert contestant.turn(0.2) > 0
        assert contestant.turn(0.2) > 0
    finally:
        contestant.close()
    eventually(lambda: all(map(gone, contest._group(contestant._process.pid))))


@pytest.mark.parametrize("recipe", ["crop", "randaugment"])
def test_the_floor_renders_the_recipes(pictures: Path, recipe: str) -> None:
    task = Task(str(pictures), (16, 16), "bilinear", workers=1, recipe=recipe)
    contestant = Contestant(sys.executable, "bare", task, "test")
    try:
        assert contestant.looks["shape"] == [32, 16, 16, 3]
        assert contestant.looks["range"][0] < -1  # normalized: black is -2
        assert contestant.turn(0.1) > 0
    finally:
        contestant.close()


def test_one_that_cannot_start_says_why(tmp_path: Path, pictures: Path) -> None:
    with pytest.raises(Failed, match="EOFError"):
        enter(tmp_path / "missing")


def test_one_that_dies_is_noticed(pictures: Path) -> None:
    contestant = enter(pictures)
    try:
        os.killpg(contestant._process.pid, signal.SIGKILL)
        with pytest.raises(Failed, match="ended"):
            contestant.turn(0.2)
    finally:
        contestant.close()


def test_one_that_does_not_rest_is_stopped_until_its_turn(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contest, "CALM_S", 0.0)  # nobody is quick enough
    contestant = enter(pictures)
    try:
        assert contestant._stopped
        assert contestant.turn(0.2) > 0
        assert contestant._stopped
    finally:
        contestant.close()


def test_what_lay_ready_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0

    def batches() -> Iterator[list[int]]:
        nonlocal clock
        for number in itertools.count():
            clock += 0.0 if number < 5 else 1.0  # what lay ready comes at once
            yield [0] * 10

    monkeypatch.setattr("time.perf_counter", lambda: clock)
    assert rate(Source(batches(), ahead=5), seconds=20.0) == 10.0


def test_linked_pictures_come_from_all_classes_as_often_as_it_takes(
    pictures: Path, tmp_path: Path
) -> None:
    linked = photos.linked(pictures, tmp_path / "linked", 20)
    paths, labels = class_files(str(linked))
    assert len(paths) == 20
    assert sum(labels) == 10
    assert photos.described(linked)["distinct"] == 8
