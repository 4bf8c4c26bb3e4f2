"""Daemons whose workers do themselves harm."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import loaderd
from tests.support.daemons import Daemon, running

Sabotage = Callable[..., contextlib.AbstractContextManager[Daemon]]


@pytest.fixture
def sabotage(runtime: str, tmp_path: Path) -> Iterator[Sabotage]:
    """Starts them: ``with sabotage(stage="decoding", harm="SIGSEGV") as daemon``."""
    folder = tmp_path / "struck"
    folder.mkdir()

    def start(
        stage: str, harm: str, *flags: str, times: int = 1, name: str = "", workers: int = 2
    ) -> contextlib.AbstractContextManager[Daemon]:
        plan = json.dumps(
            {"stage": stage, "harm": harm, "folder": str(folder), "times": times, "name": name}
        )

        def words(tell: int) -> list[str]:
            return ["tests.faults.saboteur", plan, str(tell), f"workers={workers}", *flags]

        return running(words, runtime)

    yield start


@pytest.fixture
def struck(tmp_path: Path) -> Callable[[], int]:
    """How often harm was done so far."""
    return lambda: len(list((tmp_path / "struck").iterdir()))


@pytest.fixture
def copied(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], contextlib.AbstractContextManager[tuple[Daemon, Path]]]:
    """A daemon that runs from a copy of the package, and the copy, for tests to break."""

    @contextlib.contextmanager
    def start() -> Iterator[tuple[Daemon, Path]]:
        package = Path(shutil.copytree(Path(loaderd.__file__).parent, tmp_path / "loaderd"))
        with monkeypatch.context() as patch:
            patch.setenv("PYTHONPATH", str(tmp_path))
            patch.chdir(tmp_path)
            patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
            with running(
                lambda tell: ["loaderd", "serve", "--workers=2", f"--ready-fd={tell}"], runtime
            ) as daemon:
                yield daemon, package

    return start
