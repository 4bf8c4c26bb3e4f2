"""Whatever becomes of a cache's file while it is in use, batches are what they are without it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from loaderd.ipc import dial
from loaderd.spec.spec import Spec
from loaderd_client import Session
from tests.process.test_cache import batches, found, plain
from tests.support.daemons import Daemon, Serve, eventually
from tests.support.streams import a_spec, cached, digest, run_of, slow

GONE = "is used no more, and its images are decoded each time until a stream is opened anew"
PIXELS = 500 * 600 * 3


def large(photos: Path) -> Spec:
    """Rows that take long to use, so that the file is truncated beneath one."""
    return slow(a_spec(photos))


def copied(photos: Path) -> Spec:
    """The same as bytes, which workers copy a chunk at a time."""
    return plain(large(photos))


def file_in(folder: Path) -> Path:
    (file,) = folder.glob("*.images")
    return file


def disturbed(daemon: Daemon, spec: Spec, at: int, harm: Callable[[], None]) -> list[str]:
    """Two epochs; before the batch ``at``, harm is done."""
    with Session(daemon.path) as session:
        out = []
        for number, batch in enumerate(run_of(session.open(cached(spec, "disk"), slots=6))):
            if number == at:
                harm()
            out.append(digest(batch))
        return out


def check_unharmed(daemon: Daemon) -> None:
    """No worker died for it, and no image is called bad."""
    assert daemon.snapshot().restarts == 0
    assert dial.list_bad(daemon.path) == []


@pytest.mark.parametrize("size", [0, 40 * PIXELS])
@pytest.mark.parametrize("at", [3, 15])
@pytest.mark.parametrize("kind", [large, copied])
def test_a_cache_that_is_truncated_while_it_is_in_use_costs_no_byte_and_no_worker(
    serve: Serve, photos: Path, tmp_path: Path, kind: Callable[[Path], Spec], at: int, size: int
) -> None:
    folder = tmp_path / "cache"
    with serve(2, f"--cache-dir={folder}") as daemon:
        alone = batches(daemon, kind(photos))
        assert disturbed(daemon, kind(photos), at, lambda: truncate(folder, size)) == alone
        check_unharmed(daemon)
        assert daemon.log.count(GONE) == 1


def truncate(folder: Path, size: int) -> None:
    os.truncate(file_in(folder), size)


def test_the_next_stream_makes_a_truncated_cache_anew_while_the_first_goes_on(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    spec = plain(a_spec(photos))
    with serve(2, f"--cache-dir={tmp_path}") as daemon, Session(daemon.path) as session:
        alone = batches(daemon, spec)
        first = session.open(cached(spec, "disk"), slots=6)
        assert [digest(batch) for batch in run_of(first, 1)] == alone[:12]
        truncate(tmp_path, 0)
        assert batches(daemon, cached(spec, "disk")) == alone
        hits, _ = found(daemon)
        assert batches(daemon, cached(spec, "disk")) == alone
        assert found(daemon)[0] - hits >= 2 * 96
        assert [digest(first.take((1, position))) for position in range(12)] == alone[12:]
        check_unharmed(daemon)


def test_a_worker_that_finds_the_cache_damaged_goes_on_without_it(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    spec = a_spec(photos)

    def renew_workers() -> None:
        truncate(tmp_path, 10_000)
        (pid,) = daemon.workers()
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: daemon.workers() not in ([], [pid]))

    with serve(1, f"--cache-dir={tmp_path}") as daemon:
        alone = batches(daemon, spec)
        assert disturbed(daemon, spec, 4, renew_workers) == alone
        assert daemon.snapshot().restarts == 1
        assert dial.list_bad(daemon.path) == []
        assert daemon.log.count(GONE) == 1
