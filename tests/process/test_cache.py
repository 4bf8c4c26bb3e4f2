"""The cache changes no byte, spares the decoding, and loses nothing, whatever happens."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from loaderd.errors import CacheError
from loaderd.spec.base import Cache
from loaderd.spec.output import Output
from loaderd.spec.spec import Spec
from loaderd_client import Session
from tests.support.daemons import Daemon, Serve
from tests.support.photos import write_photo
from tests.support.specs import with_load
from tests.support.streams import a_spec, cached, digest, killing_one, run_of, slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def own_photos(photos: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(photos, tmp_path / "photos"))


def plain(spec: Spec) -> Spec:
    """The same images, as bytes and not augmented: a chunk of the cache is one copy."""
    output = Output(dtype="uint8")
    return msgspec.structs.replace(spec, transforms=(), output=output)


def batches(daemon: Daemon, spec: Spec, epochs: int = 2, kill: bool = False) -> list[str]:
    with Session(daemon.path) as session:
        read = run_of(session.open(spec, slots=6), epochs)
        return [digest(batch) for batch in (killing_one(daemon, read) if kill else read)]


def found(daemon: Daemon) -> tuple[int, int]:
    """Rows that came from a cache, and all rows."""
    workers = daemon.snapshot().workers
    return sum(worker.cached for worker in workers), sum(worker.rows for worker in workers)


@pytest.mark.parametrize("cache", ["memory", "disk"])
@pytest.mark.parametrize("kind", [a_spec, lambda photos: plain(a_spec(photos))])
def test_the_bytes_are_those_without_a_cache(
    serve: Serve, photos: Path, folder: Path, cache: Cache, kind: type
) -> None:
    spec = kind(photos)
    with serve(2, f"--cache-dir={folder}") as daemon:
        alone = batches(daemon, spec)
        assert found(daemon)[0] == 0
        assert batches(daemon, cached(spec, cache)) == alone
        assert batches(daemon, cached(spec, cache)) == alone


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_no_image_is_decoded_twice_whoever_wants_it(
    serve: Serve, photos: Path, folder: Path, cache: Cache
) -> None:
    spec = cached(a_spec(photos), cache)
    with serve(2, f"--cache-dir={folder}") as daemon:
        batches(daemon, spec, epochs=1)
        before = found(daemon)
        batches(daemon, spec, epochs=2)
        batches(daemon, plain(spec), epochs=2)
        after = found(daemon)
        assert after[0] - before[0] == after[1] - before[1] >= 4 * 96


def test_the_cache_on_disk_survives_the_daemon(serve: Serve, photos: Path, folder: Path) -> None:
    spec = cached(a_spec(photos), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon:
        first = batches(daemon, spec)
    with serve(2, f"--cache-dir={folder}") as daemon:
        assert batches(daemon, spec) == first
        hits, rows = found(daemon)
        assert hits == rows >= 2 * 96


def test_the_cache_in_memory_leaves_no_file(serve: Serve, photos: Path, folder: Path) -> None:
    with serve(2, f"--cache-dir={folder}") as daemon:
        batches(daemon, cached(a_spec(photos), "memory"))
        host = daemon.snapshot().host
        assert 96 * 40 * 50 * 3 <= host.cache_bytes <= host.cache_limit
    assert not folder.exists()


def test_other_sizes_have_a_cache_of_their_own(serve: Serve, photos: Path, folder: Path) -> None:
    spec = cached(plain(a_spec(photos)), "disk")
    other = with_load(spec, target_size=(20, 30))
    with serve(2, f"--cache-dir={folder}") as daemon:
        batches(daemon, spec)
        alone = batches(daemon, cached(other, "none"))
        assert batches(daemon, other) == alone
    assert len(list(folder.glob("*.images"))) == 2


def test_an_image_that_has_changed_is_decoded_again(
    serve: Serve, own_photos: Path, folder: Path
) -> None:
    spec = cached(plain(a_spec(own_photos, shuffle=False)), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon:
        before = batches(daemon, spec, epochs=1)
        changed = sorted(own_photos.rglob("*.jpg"))[0]
        write_photo(changed, 4711)
        after = batches(daemon, spec, epochs=1)
        assert after[0] != before[0]
        assert after[1:] == before[1:]
        assert after == batches(daemon, cached(spec, "none"), epochs=1)
        assert after == batches(daemon, spec, epochs=1)


def test_an_image_that_changes_while_two_streams_read_is_right_for_the_later_one(
    serve: Serve, own_photos: Path, folder: Path
) -> None:
    spec = cached(plain(a_spec(own_photos, shuffle=False)), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon, Session(daemon.path) as session:
        early = session.open(spec, slots=4)
        first = digest(early.take((0, 0)))
        write_photo(sorted(own_photos.rglob("*.jpg"))[0], 4711)
        late = session.open(spec, slots=4)
        alone = session.open(cached(spec, "none"), slots=4)
        assert digest(late.take((0, 0))) == digest(alone.take((0, 0))) != first
        early.take((1, 0))
        early.close()
        assert digest(late.take((1, 0))) == digest(alone.take((1, 0)))


def test_killed_workers_leave_no_half_row(serve: Serve, photos: Path, folder: Path) -> None:
    spec = slow(a_spec(photos))
    with serve(3, f"--cache-dir={folder}") as daemon:
        alone = batches(daemon, spec)
        assert batches(daemon, cached(spec, "disk"), kill=True) == alone
        assert batches(daemon, cached(spec, "disk")) == alone
        assert found(daemon)[0] > 0


def test_what_does_not_fit_is_decoded_each_time(serve: Serve, photos: Path, folder: Path) -> None:
    spec = a_spec(photos)
    with serve(2, f"--cache-dir={folder}", "--cache-size=300000") as daemon:
        alone = batches(daemon, spec)
        for cache in ("memory", "disk"):
            assert batches(daemon, cached(spec, cache)) == alone
            hits, rows = found(daemon)
            assert batches(daemon, cached(spec, cache), epochs=1) == alone[:12]
            hits_after, rows_after = found(daemon)
            assert 0.3 < (hits_after - hits) / (rows_after - rows) < 0.7
        assert daemon.log.count(f" of 96 images of {photos} fit into the cache") == 4
    size = sum(os.stat(path).st_blocks * 512 for path in folder.iterdir())
    assert size <= 300_000 + 8192


def test_a_smaller_size_bounds_a_cache_that_is_there(
    serve: Serve, photos: Path, folder: Path
) -> None:
    spec = plain(a_spec(photos))
    for size in (10**6, 300_000):
        with serve(2, f"--cache-dir={folder}", f"--cache-size={size}") as daemon:
            assert batches(daemon, cached(spec, "disk")) == batches(daemon, spec)
    assert 200_000 < sum(os.stat(path).st_blocks * 512 for path in folder.iterdir()) < 310_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB, half of which one cache may take when no size is given."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_turns_the_cache_off_with_one_warning(
    serve: Serve, photos: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = a_spec(photos)
    with serve(3, f"--cache-dir={small_disk}", "--cache-size=1G") as daemon:
        alone = batches(daemon, spec)
        assert batches(daemon, cached(spec, "disk")) == alone
        assert 0 < found(daemon)[0] < 96 * 2
        assert batches(daemon, cached(spec, "disk")) == alone
    log = capfd.readouterr().err
    assert log.count("is written no more") == 1
    assert "No space left on device" in log


def test_a_disk_that_is_full_already_is_no_reason_not_to_train(
    serve: Serve, photos: Path, small_disk: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spec = a_spec(photos)
    with contextlib.suppress(OSError):
        (small_disk / "full").write_bytes(bytes(10**6))
    with serve(2, f"--cache-dir={small_disk}", "--cache-size=1G") as daemon:
        assert batches(daemon, cached(spec, "disk")) == batches(daemon, spec)
    assert capfd.readouterr().err.count("there is no room for a cache") == 1
    assert list(small_disk.glob("*.images")) == []


def test_a_folder_that_cannot_be_used_is_an_error_that_names_it(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with serve(1, f"--cache-dir={tmp_path}/file") as daemon, Session(daemon.path) as session:
        with pytest.raises(CacheError, match=f"{tmp_path}/file"):
            session.open(cached(a_spec(photos), "disk"), slots=4)
        session.open(a_spec(photos), slots=4).take((0, 0))


def test_a_file_that_is_gone_is_still_served_to_who_has_opened_the_stream(
    serve: Serve, own_photos: Path, folder: Path
) -> None:
    spec = cached(plain(a_spec(own_photos)), "disk")
    with serve(2, f"--cache-dir={folder}") as daemon, Session(daemon.path) as session:
        stream = session.open(spec, slots=4)
        kept = [np.array(batch.images) for batch in run_of(stream, 1)]
        shutil.rmtree(own_photos)
        again = [batch.ids for batch in run_of(stream, 2)][12:]
        assert len(kept) == len(again) == 12
