"""A corpus for the session, and one daemon for a module's examples."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.keras.differential.corpus import write_corpus
from tests.keras.differential.surface import KERAS_WITH_ITSELF

DEADLINE = 30.0

Connect = Callable[[], contextlib.AbstractContextManager[object]]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def connect() -> Iterator[Connect]:
    """``with connect():`` around each example, so that its streams end with it."""
    if KERAS_WITH_ITSELF:
        yield contextlib.nullcontext
        return
    from loaderd_client import Session

    with tempfile.TemporaryDirectory(prefix="ld-") as folder:
        path = os.path.join(folder, "daemon.sock")
        with _daemon(path):
            yield lambda: Session(path)


@contextlib.contextmanager
def _daemon(path: str) -> Iterator[None]:
    ready, tell = os.pipe()
    words = ["serve", "--socket", path, "--workers=2", f"--ready-fd={tell}"]
    # The function-scoped fixture that clears these runs later than this one.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LOADERD_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "loaderd", *words], pass_fds=[tell], env=environment
    )
    os.close(tell)
    try:
        assert select.select([ready], [], [], DEADLINE)[0], "the daemon was not ready in time"
        assert os.read(ready, 1), "the daemon ended before it was ready"
        yield
    finally:
        os.close(ready)
        process.terminate()
        process.wait(DEADLINE)
