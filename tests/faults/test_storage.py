"""A disk that does not answer is nobody's fault, and holds up nobody but those who read from it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loaderd.errors import BadImage, LoaderdError, StorageTimeout
from loaderd.ipc import dial
from loaderd.monitor.report import derive
from loaderd.spec.output import Save
from loaderd.spec.spec import Spec
from loaderd_client import (
    ImageDataGenerator,
    LoaderSequence,
    Session,
    image_dataset_from_archive,
)
from loaderd_client.core.stream import Stream
from tests.faults.disk import Disk, Way, mounted
from tests.support.archives import contents, tar_of
from tests.support.daemons import Daemon, Serve, eventually, family, gone, running
from tests.support.specs import with_output
from tests.support.streams import a_spec, cached, digest, run_of

WAYS: tuple[Way, ...] = ("killable", "unkillable")
SHORT = "--sample-timeout=1"


@pytest.fixture
def disk(photos: Path, tmp_path: Path) -> Iterator[Disk]:
    """A disk that holds a copy of the photos, and has room for more."""
    shutil.copytree(photos, tmp_path / "source" / "photos")
    with mounted(tmp_path / "source", tmp_path / "disk") as mirror:
        yield mirror


def there(disk: Disk) -> Spec:
    """The photos on the disk."""
    return a_spec(disk.path / "photos")


@pytest.fixture(scope="module")
def undisturbed(photos: Path) -> list[str]:
    """An epoch of the photos where every disk answers."""
    with tempfile.TemporaryDirectory(prefix="ld-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        words = ["loaderd", "serve", "--workers=1"]
        with (
            running(lambda tell: [*words, f"--ready-fd={tell}"], folder) as daemon,
            Session(daemon.path) as session,
        ):
            return [digest(one) for one in run_of(session.open(a_spec(photos), 4), epochs=1)]


class Reader(threading.Thread):
    """Reads an epoch of a stream, whatever that takes."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.got: list[str] = []
        self.start()

    def run(self) -> None:
        with contextlib.suppress(LoaderdError):  # the test has ended
            for batch in run_of(self._stream, epochs=1):
                self.got.append(digest(batch))

    def all(self) -> list[str]:
        self.join(30)
        return self.got


def silent(daemon: Daemon) -> set[str]:
    """What does not answer, as ``loaderd-stat`` has it."""
    return {storage.path for storage in daemon.snapshot().storage}


def check_unblamed(daemon: Daemon) -> None:
    assert dial.list_bad(daemon.path) == []
    assert daemon.snapshot().daemon.bad == 0
    assert "quarantined" not in daemon.log


def saving(spec: Spec, folder: Path) -> Spec:
    folder.mkdir()
    save = Save(directory=str(folder), prefix="", format="png", most=10_000)
    return with_output(spec, save=save)


def test_a_disk_that_answers_late_costs_time_alone(
    serve: Serve,
    disk: Disk,
    photos: Path,
    undisturbed: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """One stream reads images there, one has its cache there, and one saves pictures there."""
    flags = [SHORT, f"--cache-dir={disk.path}/caches"]
    with serve(3, *flags) as daemon, disk, Session(daemon.path) as session:
        specs = [
            there(disk),
            cached(a_spec(photos), "disk"),
            saving(a_spec(photos), disk.path / "saved"),
        ]
        streams = [session.open(spec, slots=4) for spec in specs]
        disk.hold("unkillable")
        readers = [Reader(stream) for stream in streams]
        eventually(lambda: len(silent(daemon)) == 3)  # for longer than a sample may take
        shown = derive(daemon.snapshot()).verdict.text
        assert "torage does not answer: " in shown
        assert 3 <= waiting(daemon) <= 6
        disk.release()
        for reader in readers:
            assert reader.all() == undisturbed
        # Not before: a batch may be ready without a look at what the daemon has sent.
        eventually(lambda: daemon.log.count("storage answers again") == 3)
        assert not silent(daemon)
        for stream in streams:
            for position in range(stream.batches):
                stream.take((1, position))
        assert daemon.snapshot().restarts == 0
        check_unblamed(daemon)
        assert len(list(run_of(session.open(there(disk), slots=4), epochs=1))) == 12
    told = capfd.readouterr().err
    for name in ("disk/caches/", "disk/saved/", "disk/photos/"):
        assert f"loaderd: storage does not answer: {disk.path.parent}/{name}" in told
    assert told.count("loaderd: storage does not answer") == 3
    assert told.count("loaderd: storage answers again") == 3
    assert "(waiting up to 600 s; --io-timeout, LOADERD_IO_TIMEOUT)" in told


def test_a_disk_whose_server_is_started_again_costs_time_alone(
    serve: Serve, disk: Disk, undisturbed: list[str]
) -> None:
    """Reads fail meanwhile, for which no file is to blame."""
    with serve(2, SHORT, "--max-bad=0%") as daemon, Session(daemon.path) as session:
        skips = msgspec.structs.replace(there(disk), on_error="skip")
        stream = session.open(skips, slots=4)
        disk.fail()
        reader = Reader(stream)
        eventually(lambda: waiting(daemon) > 0)
        disk.mount()
        assert reader.all() == undisturbed
        check_unblamed(daemon)
        assert daemon.snapshot().restarts == 0


def test_other_streams_go_on_though_every_worker_waits_for_a_disk(
    serve: Serve, disk: Disk, photos: Path, undisturbed: list[str]
) -> None:
    workers = 2
    with serve(workers, SHORT) as daemon, disk, Session(daemon.path) as session:
        disk.hold(name=".jpg")
        reader = Reader(session.open(there(disk), slots=8))
        other = session.open(a_spec(photos), slots=4)
        eventually(lambda: disk.held == workers)
        began = time.monotonic()
        assert [digest(one) for one in run_of(other, epochs=1)] == undisturbed
        later = session.open(a_spec(photos), slots=4)
        assert [digest(one) for one in run_of(later, epochs=1)] == undisturbed
        assert time.monotonic() - began < 10
        assert disk.held == workers  # none of those that stand in was lost to the disk too
        eventually(lambda: len(daemon.workers()) == 2 * workers)
        disk.release()
        assert reader.all() == undisturbed
        eventually(lambda: len(daemon.workers()) == workers)
        assert daemon.snapshot().restarts == 0


@pytest.mark.parametrize("way", WAYS)
def test_a_disk_that_does_not_answer_in_time_is_an_error_and_the_next_request_goes_on(
    serve: Serve, disk: Disk, photos: Path, undisturbed: list[str], way: Way
) -> None:
    flags = ["--sample-timeout=0.5", "--io-timeout=1.5", "--max-bad=0%"]
    with serve(2, *flags) as daemon, disk, Session(daemon.path) as session:
        skips = msgspec.structs.replace(there(disk), on_error="skip")
        sequence = LoaderSequence(skips, session, max_queue_size=2)
        other = session.open(a_spec(photos), slots=4)
        got = [digest(sequence.fetch(0))]
        disk.hold(way)
        with pytest.raises(
            StorageTimeout, match=r"/disk/photos.*\.jpg: .* within 1.5 s.*--io-t"
        ) as error:
            # What is got before the error stays: an index that is read again is drawn afresh.
            got.extend(digest(sequence.fetch(index)) for index in range(1, len(sequence)))
        assert isinstance(error.value, TimeoutError)
        assert not isinstance(error.value, BadImage)
        assert [digest(one) for one in run_of(other, epochs=1)] == undisturbed
        if way == "killable":
            with pytest.raises(StorageTimeout):  # it is asked again, and in vain
                sequence.fetch(len(got))
        disk.release()
        got += [digest(sequence.fetch(index)) for index in range(len(got), len(sequence))]
        assert got == undisturbed
        eventually(lambda: daemon.snapshot().restarts > 0 and len(daemon.workers()) == 2)
        check_unblamed(daemon)


def test_a_slow_disk_that_answers_is_left_alone(
    serve: Serve, disk: Disk, capfd: pytest.CaptureFixture[str], undisturbed: list[str]
) -> None:
    disk.delay(0.5)
    with serve(2, SHORT, "--grace=0.1") as daemon, Session(daemon.path) as session:
        stream = session.open(there(disk), slots=4)
        assert [digest(stream.take((0, 0)))] == undisturbed[:1]
        seen = daemon.snapshot()
        assert (seen.storage, seen.restarts, len(seen.workers)) == ((), 0, 2)
    assert "storage" not in capfd.readouterr().err


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_daemon_waits_for_no_disk(serve: Serve, disk: Disk, way: Way) -> None:
    """Neither for its workers nor for an opener that lists."""
    with serve(2, "--grace=0.3") as daemon, disk, Session(daemon.path) as session:
        disk.hold(way, ".jpg")
        stream = session.open(there(disk), slots=4)
        eventually(lambda: disk.held == 2)
        disk.hold(way)
        reads = [lambda: list(run_of(stream)), lambda: session.open(there(disk), slots=4)]
        threads = [threading.Thread(target=quietly, args=(read,)) for read in reads]
        for thread in threads:
            thread.start()
        eventually(lambda: disk.held == 3)
        members = family(daemon.process.pid)
        daemon.process.terminate()
        daemon.process.wait(5)
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
        if way == "killable":
            eventually(lambda: all(gone(member) for member in members), deadline=5)


def quietly(what: Callable[[], Any]) -> None:
    with contextlib.suppress(Exception):
        what()


def waiting(daemon: Daemon) -> int:
    """Workers that wait for storage."""
    return sum(worker.waits_s > 0 for worker in daemon.snapshot().workers)


def test_of_a_trainer_that_ends_meanwhile_no_worker_is_left_in_a_read(
    serve: Serve, disk: Disk, photos: Path, undisturbed: list[str]
) -> None:
    """Nor does the daemon wait, which closes a cache on that disk."""
    flags = [SHORT, f"--cache-dir={disk.path}/caches"]
    with serve(2, *flags) as daemon, disk, Session(daemon.path) as session:
        other = session.open(a_spec(photos), slots=4)
        with Session(daemon.path) as ends:
            stream = ends.open(cached(there(disk), "disk"), slots=4)
            disk.hold("unkillable")
            threading.Thread(target=quietly, args=(lambda: list(run_of(stream)),)).start()
            eventually(lambda: waiting(daemon) > 0)
        eventually(lambda: len(daemon.snapshot().streams) == 1)
        assert [digest(one) for one in run_of(other, epochs=1)] == undisturbed
        assert waiting(daemon) > 0  # they die when they can
        disk.release()
        eventually(lambda: waiting(daemon) == 0 and len(daemon.workers()) == 2)
        assert daemon.snapshot().restarts > 0
        check_unblamed(daemon)


PROGRAM = """
    import sys
    from pathlib import Path
    from loaderd_client import Session
    from tests.process.test_streams import a_spec
    with Session() as session:
        stream = session.open(a_spec(Path(sys.argv[1])), slots=4)
        print(session._private._process.pid, flush=True)
        sys.stdin.readline()
        for position in range(stream.batches):
            stream.take((0, position))
"""


def test_a_private_daemon_ends_with_its_trainer_though_a_disk_does_not_answer(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOADERD_WORKERS", "2")
    words = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(disk.path / "photos")]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as trainer:
        assert trainer.stdout is not None
        members = family(int(trainer.stdout.readline()))
        disk.hold()
        print(file=trainer.stdin, flush=True)
        eventually(lambda: disk.held > 0)
        trainer.kill()
    eventually(lambda: all(gone(member) for member in members), deadline=5)


def test_a_folder_that_cannot_be_listed_in_time_is_an_error_and_holds_up_nobody(
    serve: Serve,
    disk: Disk,
    photos: Path,
    undisturbed: list[str],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with serve(1, "--io-timeout=4") as daemon, disk, Session(daemon.path) as session:
        other = session.open(a_spec(photos), slots=4)
        disk.hold("unkillable")
        reader = Reader(other)
        with pytest.raises(
            StorageTimeout, match=f"{disk.path}/photos: storage did not answer within 4 s"
        ):
            session.open(there(disk), slots=4)
        assert reader.all() == undisturbed
        began = time.monotonic()
        assert len(daemon.snapshot().streams) == 1
        assert time.monotonic() - began < 1
        disk.release()
        assert len(list(run_of(session.open(there(disk), slots=4), epochs=1))) == 12
    told = capfd.readouterr().err
    assert f"loaderd: storage does not answer: {disk.path}/photos (waiting up to 4 s" in told


def test_archives_on_a_disk_that_stalls_cost_time_alone(
    serve: Serve, disk: Disk, photos: Path, tmp_path: Path
) -> None:
    """While they are indexed, and while their members are read."""
    tar_of(tmp_path / "source" / "a.tar", contents(photos))
    flags = [SHORT, f"--cache-dir={tmp_path / 'cache'}", "--io-timeout=3"]

    def dataset(**options: Any) -> Any:
        return image_dataset_from_archive(
            disk.path / "a.tar", image_size=(24, 32), batch_size=8, seed=1, **options
        )

    with serve(2, *flags) as daemon, disk, Session(daemon.path):
        disk.hold("unkillable")
        with pytest.raises(StorageTimeout, match=rf"{disk.path}/a\.tar: storage did not answer"):
            dataset()
        disk.release()
        expected = [images.tobytes() for images, _ in dataset()]
        sequence = dataset(max_queue_size=1)
        found = [next(sequence)[0].tobytes()]
        disk.hold()

        def go_on() -> None:
            eventually(lambda: waiting(daemon) > 0)
            disk.release()

        watcher = threading.Thread(target=go_on)
        watcher.start()
        found += [next(sequence)[0].tobytes() for _ in range(11)]
        watcher.join()
        assert found == expected
        check_unblamed(daemon)


def test_a_disk_that_stalls_while_keras_trains_costs_time_alone(
    serve: Serve, disk: Disk, photos: Path
) -> None:
    import keras

    def trained(folder: Path, *callbacks: Any) -> list[float]:
        keras.utils.set_random_seed(1)
        train = ImageDataGenerator(rescale=1 / 255).flow_from_directory(
            str(folder), target_size=(16, 16), batch_size=8, seed=5, max_queue_size=2
        )
        model = keras.Sequential(
            [keras.layers.Flatten(), keras.layers.Dense(3, activation="softmax")]
        )
        model.compile("sgd", "categorical_crossentropy")
        losses: list[float] = model.fit(train, epochs=2, verbose=0, callbacks=callbacks).history[
            "loss"
        ]
        return losses

    with serve(2, SHORT) as daemon, disk, Session(daemon.path):
        expected = trained(photos)

        def stall(batch: int, logs: Any) -> None:
            if batch == 3 and not watcher.ident:
                disk.hold()
                watcher.start()

        def go_on() -> None:
            eventually(lambda: bool(silent(daemon)))
            disk.release()

        watcher = threading.Thread(target=go_on)
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=stall)
        assert trained(disk.path / "photos", callback) == expected
        watcher.join()
        check_unblamed(daemon)
        assert daemon.snapshot().restarts == 0
