"""Object stores that are slow, break off, refuse, or hold something else by now."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from loaderd.errors import (
    BadArchive,
    BadImage,
    DatasetNotFound,
    MissingDependency,
    StorageRefused,
    StorageTimeout,
)
from loaderd_client import (
    Session,
    image_dataset_from_archive,
    image_dataset_from_directory,
)
from scripts.faults import history
from scripts.faults.batch_log import History
from tests.support.archives import contents, tar_of
from tests.support.daemons import Daemon, Serve, eventually, stream_of
from tests.support.object_server import ObjectServer, object_server
from tests.support.ports import free_ports
from tests.support.streams import run_of

OPTIONS: dict[str, Any] = {"image_size": (24, 32), "batch_size": 8, "seed": 3, "verbose": False}
TAR = "s3://b/photos.tar"
FOLDER = "s3://b/photos"
EPOCH = 12

Start = Callable[..., AbstractContextManager[tuple[ObjectServer, Daemon]]]


@pytest.fixture(scope="module")
def objects(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The photos in a tar, and by themselves."""
    content = contents(photos)
    packed = tar_of(tmp_path_factory.mktemp("packed") / "photos.tar", content)
    found = {f"b/photos/{name}": data for name, data in content.items()}
    return found | {"b/photos.tar": packed.read_bytes()}


@pytest.fixture
def start(
    serve: Serve, objects: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Start:
    """Starts a store, a daemon that knows it, and a session with that daemon."""

    @contextmanager
    def started(workers: int = 2, *flags: str) -> Iterator[tuple[ObjectServer, Daemon]]:
        with object_server(objects) as store:
            for name, value in store.environment.items():
                monkeypatch.setenv(name, value)
            cache = f"--cache-dir={tmp_path / 'cache'}"
            with serve(workers, cache, *flags) as daemon, Session(daemon.path):
                yield store, daemon

    return started


def of_archive(url: str = TAR, **options: Any) -> Any:
    return image_dataset_from_archive(url, **OPTIONS | options)


def of_folder(place: str | Path = FOLDER, **options: Any) -> Any:
    return image_dataset_from_directory(place, **OPTIONS | options)


def batches_of(sequence: Any, epochs: int = 1) -> list[Any]:
    return [[np.array(part) for part in batch] for _ in range(epochs) for batch in sequence]


def take(sequence: Any, found: list[Any]) -> None:
    found.append([np.array(part) for part in next(sequence)])


def kill_a_worker(daemon: Daemon) -> None:
    found: list[int] = []

    def is_there() -> bool:
        found[:] = daemon.workers()
        return bool(found)

    eventually(is_there)
    with contextlib.suppress(ProcessLookupError):  # the one before is not reaped yet
        os.kill(found[-1], signal.SIGKILL)


def check_equal(found: list[Any], expected: list[Any]) -> None:
    assert len(found) == len(expected)
    for batch, other in zip(found, expected, strict=True):
        for part, same in zip(batch, other, strict=True):
            np.testing.assert_array_equal(part, same)


@pytest.mark.parametrize(
    "make", [of_archive, pytest.param(of_folder, marks=pytest.mark.long)], ids=["tar", "folder"]
)
def test_answers_that_fail_or_break_off_lose_and_repeat_nothing(
    start: Start, photos: Path, make: Callable[..., Any]
) -> None:
    with start() as (store, daemon):
        expected = batches_of(of_folder(photos), 2)
        store.failures, store.cuts = 3, 3
        sequence = make()
        found: list[Any] = []
        for number in range(2 * EPOCH):
            store.failures, store.cuts = number % 4, number % 3
            take(sequence, found)
        check_equal(found, expected)
        assert daemon.snapshot().daemon.bad == 0
        assert daemon.snapshot().restarts == 0


def test_what_a_failing_store_delivers_is_judged(
    start: Start, photos: Path, tmp_path: Path
) -> None:
    names = [str(tmp_path / "log"), str(tmp_path / "reference")]
    with start(3) as (store, daemon):
        for name, spoil in zip(names, (True, False), strict=True):
            log, sequence = History(name), of_archive()
            next(sequence)
            stream = stream_of(sequence)
            for number, batch in enumerate(run_of(stream, epochs=2)):
                if spoil:
                    store.failures, store.cuts = number % 4, number % 5
                    if number % 6 == 0:
                        kill_a_worker(daemon)
                log.note(batch, sequence.spec, {}, EPOCH)
            sequence.close()
    verdict = history.judge_files(names[:1], names[1:], again=True)
    assert verdict.findings == ()
    assert verdict.compared >= 2 * EPOCH


def test_workers_that_are_killed_while_they_fetch_and_keep_change_no_byte(
    start: Start, photos: Path, tmp_path: Path
) -> None:
    with start() as (store, daemon):
        store.latency = 0.02
        expected = batches_of(of_folder(photos))
        sequence = of_archive(max_queue_size=2, download=tmp_path / "kept")
        found: list[Any] = []
        for _ in range(EPOCH):
            kill_a_worker(daemon)
            take(sequence, found)
        check_equal(found, expected)


def test_a_store_that_takes_a_second_is_no_fault_and_nothing_is_fetched_twice(
    start: Start, photos: Path
) -> None:
    with start() as (store, daemon):
        expected = batches_of(of_folder(photos))
        sequence = of_folder(max_queue_size=12)
        store.latency = 1.2  # longer than a disk may take before others stand in
        check_equal(batches_of(sequence), expected)
        read = [one.path for one in store.requests if one.path.endswith(".jpg")]
        assert len(read) <= 2 * 96  # the daemon has begun the next epoch
        assert all(read.count(path) <= 2 for path in read)
        assert daemon.snapshot().storage == ()
        assert len(daemon.workers()) == 2


def test_what_is_queued_is_fetched_while_a_chunk_is_rendered(start: Start, photos: Path) -> None:
    with start(1) as (store, _):
        store.latency = 0.05
        sequence = of_folder(max_queue_size=12)
        check_equal(batches_of(sequence), batches_of(of_folder(photos)))
        assert store.maximum_at_once > 2 * 8  # a chunk is no more than a batch


def test_a_store_that_does_not_answer_is_shown_and_others_go_on(
    start: Start, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with start() as (store, daemon):
        expected = batches_of(of_folder(photos))
        sequence = of_archive(max_queue_size=1)
        found = [[np.array(part) for part in next(sequence)]]
        store.stalled.set()
        eventually(lambda: bool(daemon.snapshot().storage))
        assert daemon.snapshot().storage[0].path == TAR
        check_equal(batches_of(of_folder(photos)), expected)  # by those who stand in
        store.stalled.clear()
        found += [[np.array(part) for part in next(sequence)] for _ in range(EPOCH - 1)]
        check_equal(found, expected)
        assert daemon.snapshot().daemon.bad == 0


def test_a_store_that_is_away_for_too_long_is_an_error_that_says_why_and_the_next_request_goes_on(
    start: Start, photos: Path
) -> None:
    with start(2, "--io-timeout=1.5") as (store, _):
        expected = batches_of(of_folder(photos))
        sequence = of_archive(max_queue_size=1, on_error="skip")
        found = [[np.array(part) for part in next(sequence)]]
        store.failures = 10**6
        reason = r"s3://b/photos\.tar: .* within 1\.35 s \(it answers 503 Service Unavailable"
        with pytest.raises(StorageTimeout, match=reason):
            for _ in range(EPOCH):
                take(sequence, found)
        store.failures = 0
        while len(found) < EPOCH:
            take(sequence, found)
        check_equal(found, expected)


@pytest.mark.parametrize(("make", "status"), [(of_archive, 403), (of_folder, 401)])
def test_credentials_that_expire_are_an_error_whatever_the_policy_and_the_next_request_goes_on(
    start: Start, photos: Path, make: Callable[..., Any], status: int
) -> None:
    with start() as (store, daemon):
        expected = batches_of(of_folder(photos))
        sequence = make(max_queue_size=1, on_error="skip")
        found = [[np.array(part) for part in next(sequence)]]
        store.failures, store.status = 10**6, status
        with pytest.raises(StorageRefused, match=rf"^s3://b/photos.* \({status} .*, Planted\)"):
            for _ in range(EPOCH):
                take(sequence, found)
        with pytest.raises(StorageRefused, match=r"credentials"):
            of_archive()
        store.failures = 0
        while len(found) < EPOCH:
            take(sequence, found)
        check_equal(found, expected)
        assert daemon.snapshot().daemon.bad == 0


def test_an_archive_that_is_replaced_ends_the_stream_whatever_the_policy(
    start: Start, photos: Path, objects: dict[str, bytes]
) -> None:
    with start() as (store, _):
        sequence = of_archive(max_queue_size=1, on_error="skip")
        next(sequence)
        store.objects["b/photos.tar"] = objects["b/photos.tar"] + bytes(10240)
        with pytest.raises(
            BadArchive, match=r"photos\.tar/.*\.jpg: it was changed after it was indexed"
        ):
            batches_of(sequence, 2)
        sequence.close()
        again = of_archive()
        check_equal(batches_of(again), batches_of(of_folder(photos)))
        del store.objects["b/photos.tar"]
        with pytest.raises(BadArchive, match=r"photos\.tar/.*\.jpg: the archive is gone"):
            batches_of(again, 2)


def test_a_store_without_etags_tells_changes_by_size_and_time(start: Start, photos: Path) -> None:
    with start() as (store, _):
        store.has_etags = False
        url = f"{store.url}/b/photos.tar"
        sequence = of_archive(url, max_queue_size=1)
        check_equal(batches_of(sequence), batches_of(of_folder(photos)))
        store.modified += 60
        with pytest.raises(BadArchive, match="it was changed after"):
            batches_of(sequence, 2)


def test_one_object_of_a_folder_that_is_gone_or_replaced_is_one_image(
    start: Start, photos: Path, objects: dict[str, bytes]
) -> None:
    with start() as (store, _):
        sequence = of_folder(shuffle=False, max_queue_size=1, on_error="skip", cache="disk")
        store.objects["b/photos/cat/000.jpg"] = objects["b/photos/cat/001.jpg"]
        del store.objects["b/photos/cat/002.jpg"]
        images, _ = next(sequence)
        expected, _ = next(of_folder(photos, shuffle=False))
        np.testing.assert_array_equal(images, expected[[1, 1, 3, 4, 5, 6, 7]])
        sequence.close()
        # What was replaced was not kept as what it was, and is known again as what it is.
        again = of_folder(shuffle=False, cache="disk")
        np.testing.assert_array_equal(next(again)[0][:4], expected[[1, 1, 3, 4]])
        again.close()
        store.objects["b/photos/cat/000.jpg"] = objects["b/photos/cat/000.jpg"]
        with pytest.raises(BadImage, match=r"^s3://b/photos/cat/003\.jpg: it does not exist"):
            once = of_folder(shuffle=False)
            del store.objects["b/photos/cat/003.jpg"]
            batches_of(once)


def test_what_cannot_be_opened_is_named(start: Start, objects: dict[str, bytes]) -> None:
    with start(2, "--io-timeout=1") as (store, _):
        with pytest.raises(BadArchive, match=r"^s3://b/none\.tar: it does not exist"):
            of_archive("s3://b/none.tar")
        with pytest.raises(DatasetNotFound, match=r"cannot list s3://b/none: no object lies"):
            of_folder("s3://b/none")
        store.objects["b/short.tar"] = objects["b/photos.tar"][:-20_000]
        with pytest.raises(BadArchive, match=r"^s3://b/short\.tar: it is truncated: \S+\.jpg ends"):
            of_archive("s3://b/short.tar")
        store.objects["b/empty.tar"] = b""
        with pytest.raises(BadArchive, match=r"/b/empty\.tar: it is empty, or its server gives no"):
            of_archive(f"{store.url}/b/empty.tar?sig=secret")
        (closed,) = free_ports(1)
        reason = rf"^http://127\.0\.0\.1:{closed}/a\.tar: .* within 1 s \(Connection refused\)"
        with pytest.raises(StorageTimeout, match=reason):
            of_archive(f"http://127.0.0.1:{closed}/a.tar?sig=secret")
        with pytest.raises(StorageTimeout, match=r"^https://host\.invalid/a\.tar: .* within 1 s"):
            of_archive("https://host.invalid/a.tar")


def test_credentials_are_nowhere_to_be_seen(start: Start, tmp_path: Path) -> None:
    with start() as (store, daemon):
        url = f"{store.url}/b/photos.tar?signature=a-signature"
        sequence = of_archive(url, cache="disk", max_queue_size=1)
        other = of_folder(max_queue_size=1)
        next(sequence), next(other)
        store.failures, store.status = 10**6, 403
        texts = [daemon.log, repr(daemon.snapshot()), *sequence.file_paths]
        for one in (sequence, other):
            with pytest.raises(StorageRefused) as caught:
                [next(one) for _ in range(3 * EPOCH)]
            texts.append(str(caught.value))
        whole = [psutil.Process(daemon.process.pid)]
        texts += [" ".join(one.cmdline()) for one in [*whole, *whole[0].children(recursive=True)]]
        for secret in ("the-secret", "a-signature"):
            assert secret not in "".join([*texts, daemon.log])
            files = (path for path in tmp_path.rglob("*") if path.is_file())
            assert not any(secret.encode() in path.read_bytes() for path in files)


def test_only_processes_that_read_from_a_store_load_its_library(start: Start) -> None:
    def loaded(pid: int) -> bool:
        return "_obstore" in Path(f"/proc/{pid}/maps").read_text()

    with start() as (_, daemon):
        batches_of(of_archive())
        workers = daemon.workers()
        family = [one.pid for one in psutil.Process(daemon.process.pid).children(recursive=True)]
        assert any(loaded(pid) for pid in workers)
        assert not loaded(daemon.process.pid)
        (forks,) = {psutil.Process(pid).ppid() for pid in workers}
        assert forks in family
        assert not loaded(forks)  # threads do not survive a fork


def test_without_the_extra_one_line_says_so(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "obstore.py").write_text("raise ImportError('as if it were not installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with serve(1, f"--cache-dir={tmp_path / 'cache'}") as daemon, Session(daemon.path):
        for make in (of_archive, of_folder):
            with pytest.raises(MissingDependency, match=r'needs obstore.*"loaderd\[cloud\]"$'):
                make()
