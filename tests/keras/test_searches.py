"""The program of the page on Keras Tuner: a search by one worker, and by two that share a stream.

Keras Tuner is not among the development tools: with ``--long`` it runs where it is installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Daemon, Serve
from tests.support.pages import save_programs
from tests.support.ports import free_ports

PAGE = Path(__file__).parents[2] / "docs/how-to/search-hyperparameters.md"
TIMEOUT = 200.0
TRIALS = 4
EPOCHS = 2

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * TIMEOUT)]


@pytest.fixture
def daemon(
    serve: Serve, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Daemon]:
    if importlib.util.find_spec("keras_tuner") is None:
        pytest.skip("keras_tuner is not installed")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(photos)
    save_programs(PAGE, tmp_path)
    monkeypatch.chdir(tmp_path)
    with serve(workers=2) as running:
        yield running


def search(*workers: dict[str, str]) -> list[str]:
    """What the programs print, which run beside one another."""
    programs = [
        subprocess.Popen(
            [sys.executable, "search.py"],
            env={**os.environ, **worker},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for worker in workers
    ]
    try:
        ends = [program.communicate(timeout=TIMEOUT) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.wait()
    for program, (_, errors) in zip(programs, ends, strict=True):
        assert program.returncode == 0, errors
    return [printed for printed, _ in ends]


def epochs_of(printed: str) -> int:
    return len(re.findall(r" - val_loss: ", printed))


@pytest.mark.usefixtures("daemon")
def test_one_worker_tries_all() -> None:
    (printed,) = search({})
    assert epochs_of(printed) == TRIALS * EPOCHS


def test_two_workers_try_all_beside_one_another(daemon: Daemon) -> None:
    (port,) = free_ports(1)
    oracle = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    names = ("chief", "tuner0", "tuner1")
    printed = search(*(oracle | {"KERASTUNER_TUNER_ID": name} for name in names))
    assert epochs_of(printed[0]) == 0
    assert epochs_of(printed[1]) + epochs_of(printed[2]) == TRIALS * EPOCHS
    assert min(map(epochs_of, printed[1:])) > 0
