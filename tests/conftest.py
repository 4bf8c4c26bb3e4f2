"""What all tests share: small photos, real daemons, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loaderd_client.core import session as sessions
from tests.support.daemons import Daemon, eventually, running, serving
from tests.support.photos import write_photo


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the long proofs too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: a long proof, run with --long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: run with --long"))


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Sockets of every test lie in a folder of its own, with a short path.

    The session that sequences open for themselves ends with the test, not with the process.
    """
    folder = tempfile.mkdtemp(prefix="ld-")
    for name in [name for name in os.environ if name.startswith("LOADERD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    open_before = list(sessions._sessions)
    yield folder
    for session in reversed(sessions._sessions):
        if session not in open_before:
            session.close()
    shutil.rmtree(folder)


@pytest.fixture
def serve(runtime: str) -> Iterator[Callable[..., contextlib.AbstractContextManager[Daemon]]]:
    """Starts daemons: ``with serve(workers=3) as daemon``. Afterwards nothing may be left."""
    before = set(os.listdir("/dev/shm"))

    def start(workers: int = 2, *flags: str) -> contextlib.AbstractContextManager[Daemon]:
        def words(tell: int) -> list[str]:
            return ["loaderd", "serve", f"--workers={workers}", f"--ready-fd={tell}", *flags]

        return running(words, runtime)

    yield start
    eventually(lambda: set(os.listdir("/dev/shm")) <= before)


@pytest.fixture(scope="module", autouse=True)
def no_private_daemon_is_left() -> Iterator[None]:
    """A private daemon of these tests ends with them; here, so that its module is named."""
    yield
    eventually(lambda: not serving(f"--owner={os.getpid()}"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 41, 30 and 25 photos: 96 in all, and no class like another."""
    root = tmp_path_factory.mktemp("photos")
    number = 0
    for name, count in (("cat", 41), ("dog", 30), ("emu", 25)):
        (root / name).mkdir()
        for index in range(count):
            write_photo(root / name / f"{index:03}.jpg", number, (60 + number % 7, 80))
            number += 1
    return root


@pytest.fixture(scope="session")
def flawed(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """The photos, two of them damaged."""
    root = tmp_path_factory.mktemp("flawed") / "photos"
    shutil.copytree(photos, root)
    for name in ("cat/003.jpg", "emu/011.jpg"):
        (root / name).write_bytes(b"\xff\xd8\xff no picture")
    return root
