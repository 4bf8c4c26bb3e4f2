"""The daemon goes away in mid-epoch: exactly the remaining batches come, with the same bytes."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from loaderd.errors import DaemonGone, NoDaemon, VersionMismatch
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Welcome
from loaderd_client import ImageDataGenerator, LoaderSequence, Session
from loaderd_client.keras import reader
from scripts.faults import batch_log
from tests.keras.test_article import a_model, seen
from tests.keras.test_iterators import mapped
from tests.support.daemons import (
    Daemon,
    Serve,
    eventually,
    family,
    gone,
    kill_private,
    private_pid,
    stream_of,
)
from tests.support.streams import a_spec, digest, slow

BATCHES = 24
"""Two epochs of ``a_spec``."""


def read(sequence: LoaderSequence, first: int = 0, last: int = BATCHES) -> list[str]:
    return [digest(sequence.fetch(index % len(sequence))) for index in range(first, last)]


_known: dict[Path, list[str]] = {}


@pytest.fixture
def undisturbed(serve: Serve, photos: Path) -> list[str]:
    if photos not in _known:
        with serve() as daemon, Session(daemon.path) as session:
            _known[photos] = read(LoaderSequence(a_spec(photos), session))
    return _known[photos]


@contextlib.contextmanager
def reading_on(
    sequence: LoaderSequence, first: int, last: int = BATCHES
) -> Iterator[Callable[[], list[str]]]:
    """Reads the rest in a thread; gives what waits for it."""
    with ThreadPoolExecutor(1) as thread:
        rest = thread.submit(read, sequence, first, last)
        yield lambda: rest.result(60)


def waits(session: Session) -> bool:
    return bool(session._warned)


def kill(daemon: Daemon) -> None:
    daemon.process.kill()
    daemon.process.wait()


def test_with_the_supervisor_go_its_workers_and_its_memory(serve: Serve, photos: Path) -> None:
    before = mapped(os.getpid())
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        batch = stream.take((0, 0))
        members = family(daemon.process.pid)
        assert len(members) >= 4
        assert mapped(os.getpid()) > before
        kill(daemon)
        eventually(lambda: all(gone(member) for member in members), 5)
        del stream, batch
        eventually(lambda: mapped(os.getpid()) == before)


def test_a_client_goes_on_when_the_killed_daemon_is_started_again(
    serve: Serve, photos: Path, undisturbed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        got = read(sequence, 0, 5)
        kill(daemon)
        with reading_on(sequence, 5) as rest:
            eventually(lambda: waits(session))
            with serve():
                assert got + rest() == undisturbed
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("loaderd: ")]
    assert said == [
        f"loaderd: the daemon at {daemon.path} went away; waiting up to 60 s for it to come back"
    ]


def test_it_says_so_again_when_the_daemon_goes_away_again(
    serve: Serve, photos: Path, undisturbed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(serve())
        session = stack.enter_context(Session(daemon.path))
        sequence = LoaderSequence(a_spec(photos), session, max_queue_size=2)
        got = read(sequence, 0, 3)
        for last in (14, BATCHES):
            kill(daemon)
            with reading_on(sequence, len(got), last) as rest:
                eventually(lambda: waits(session))
                daemon = stack.enter_context(serve())
                got += rest()
        assert got == undisturbed
        assert capsys.readouterr().err.count("waiting up to") == 2


def history(file: Path) -> dict[tuple[str, int, int], str]:
    """What was delivered: of every place its sum, and no place has two."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = {(line["spec"], line["epoch"], line["position"]): line["sha256"] for line in lines}
    assert {(*place, value) for place, value in found.items()} == {
        (line["spec"], line["epoch"], line["position"], line["sha256"]) for line in lines
    }
    return found


def fitted(photos: Path, file: Path, *callbacks: Any) -> dict[tuple[str, int, int], str]:
    """What two epochs of ``fit`` were given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "new_observer", lambda: batch_log.History(str(file)).note)
        train = ImageDataGenerator(horizontal_flip=True).flow_from_directory(
            photos, target_size=(32, 32), batch_size=8, seed=5, max_queue_size=2
        )
    model = a_model((32, 32, 3))
    model.fit(train, epochs=2, verbose=0, callbacks=callbacks)
    assert seen(model) == 2 * 96
    return {place: value for place, value in history(file).items() if place[1] < 2}


def test_fit_goes_on_when_the_killed_daemon_is_started_again(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    with serve() as daemon, Session(daemon.path):
        expected = fitted(photos, tmp_path / "undisturbed")
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(serve())
        session = stack.enter_context(Session(daemon.path))

        def start_again() -> None:
            eventually(lambda: waits(session))
            stack.enter_context(serve())

        starter = threading.Thread(target=start_again)

        def disturb(batch: int, logs: Any) -> None:
            if batch == 3 and not starter.ident:
                kill(daemon)
                starter.start()

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=disturb)
        assert fitted(photos, tmp_path / "disturbed", callback) == expected
        starter.join()
    assert len(expected) == BATCHES


def test_a_private_daemon_that_is_killed_is_started_again_without_a_wait(
    photos: Path, runtime: str, undisturbed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = os.path.join(runtime, "loaderd")
    with Session(reconnect_timeout=30) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        got = read(sequence, 0, 5)
        pid = private_pid(session)
        members, files = family(pid), sorted(os.listdir(folder))
        kill_private(session)
        assert got + read(sequence, 5) == undisturbed
        assert private_pid(session) != pid
        assert sorted(os.listdir(folder)) == files
        eventually(lambda: all(gone(member) for member in members))
        said = capsys.readouterr().err
        assert said.count("the private daemon went away; started another") == 1
        assert "waiting" not in said
        kill_private(session)
    assert os.listdir(folder) == []


def test_a_private_daemon_that_cannot_start_again_says_why_at_once(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session() as session:
        expected = read(LoaderSequence(a_spec(photos), session), 0, 2)[1:]
        sequence = LoaderSequence(a_spec(photos), session)
        read(sequence, 0, 1)
        monkeypatch.setenv("LOADERD_WORKERS", "many")
        kill_private(session)
        with pytest.raises(NoDaemon, match="LOADERD_WORKERS"):
            read(sequence)
        with pytest.raises(NoDaemon, match="LOADERD_WORKERS"):
            read(sequence)
        monkeypatch.delenv("LOADERD_WORKERS")
        assert read(sequence, 1, 2) == expected


def test_a_lost_connection_is_made_again(
    serve: Serve, photos: Path, undisturbed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with serve() as daemon, Session(daemon.path, reconnect_timeout=0) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        got = []
        for index in range(BATCHES):
            if index % 7 == 3:
                stream_of(sequence)._link.channel.shut_down()
            got += read(sequence, index, index + 1)
        assert got == undisturbed
        eventually(lambda: len(daemon.snapshot().streams) == 1)
        assert "waiting" not in capsys.readouterr().err


def test_a_daemon_that_drains_is_not_back_yet(
    serve: Serve, photos: Path, undisturbed: list[str]
) -> None:
    with serve(1, "--grace=40") as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos), session, max_queue_size=2)
        got = read(sequence, 0, 2)
        busy = session.open(slow(a_spec(photos)), slots=8)
        busy.take((0, 0))
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGSTOP)
        daemon.process.terminate()
        eventually(lambda: daemon.snapshot().daemon.draining)
        stream_of(sequence)._link.channel.shut_down()
        with reading_on(sequence, 2) as rest:
            eventually(lambda: waits(session))
            assert daemon.process.poll() is None
            os.kill(worker, signal.SIGCONT)
            assert daemon.process.wait(30) == 0
            with serve():
                assert got + rest() == undisturbed


def test_a_daemon_that_is_stopped_and_started_again_costs_no_batch(
    serve: Serve, photos: Path, undisturbed: list[str]
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        got = read(sequence, 0, 5)
        with reading_on(sequence, 5) as rest:
            daemon.process.terminate()
            assert daemon.process.wait(30) == 0
            with serve():
                assert got + rest() == undisturbed


def by_next(sequence: LoaderSequence) -> bytes:
    images: bytes = next(sequence)[0].tobytes()
    return images


def by_index(sequence: LoaderSequence) -> bytes:
    images: bytes = sequence[0][0].tobytes()
    return images


@pytest.mark.parametrize("take", [by_next, by_index])
def test_when_the_time_is_over_it_is_an_error_and_a_later_call_goes_on(
    serve: Serve, photos: Path, take: Callable[[LoaderSequence], bytes]
) -> None:
    spec = a_spec(photos, batch_size=96)  # so that every batch is the last of its epoch
    with serve() as daemon, Session(daemon.path, reconnect_timeout=0.2) as session:
        sequence = LoaderSequence(spec, session)
        expected = [take(sequence) for _ in range(10)]
        sequence = LoaderSequence(spec, session, max_queue_size=2)
        got = [take(sequence)]
        kill(daemon)
        with pytest.raises(DaemonGone, match=r"within 0\.2 s: start one with `loaderd start"):
            got.extend(take(sequence) for _ in itertools.count())
        with pytest.raises(DaemonGone):
            take(sequence)
        with serve():
            got.extend(take(sequence) for _ in range(10 - len(got)))
        assert got == expected


def test_threads_that_share_a_sequence_wait_together_and_open_one_stream(
    serve: Serve, photos: Path, undisturbed: list[str]
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos, shuffle=False), session)
        expected = read(sequence, 0, 12)
        sequence = LoaderSequence(a_spec(photos, shuffle=False), session, max_queue_size=2)
        got = read(sequence, 0, 2)
        kill(daemon)
        with ThreadPool(4) as threads:
            rest = threads.map_async(lambda index: digest(sequence.fetch(index)), range(2, 12), 1)
            eventually(lambda: waits(session))
            with serve() as daemon:
                assert got + rest.get(60) == expected
                eventually(lambda: len(daemon.snapshot().streams) == 1)
                assert daemon.snapshot().streams[0].id == 1


def test_threads_do_not_add_up_their_waits(
    serve: Serve, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would wait on its own; then the pool were busy for half an hour."""
    with serve() as daemon, Session(daemon.path, reconnect_timeout=1.5) as session:
        sequence = LoaderSequence(a_spec(photos, batch_size=2), session, max_queue_size=2)
        read(sequence, 0, 1)
        kill(daemon)
        tries = itertools.count()
        monkeypatch.setattr(session, "wait", _counting(session.wait, tries))
        with ThreadPool(16) as threads:
            rest = threads.map_async(sequence.fetch, range(20, 36), 1)
            with pytest.raises(DaemonGone):
                rest.get(60)
            threads.close()
            threads.join()
        # One looks about 6 times, and each of the others once, when it is over.
        assert next(tries) <= 2 * 6 + 16


def _counting(function: Callable[..., Any], calls: Iterator[int]) -> Callable[..., Any]:
    def counted(*args: Any) -> Any:
        next(calls)
        return function(*args)

    return counted


@pytest.mark.parametrize("take", [by_next, by_index])
def test_ctrl_c_ends_the_wait_and_loses_nothing(
    serve: Serve, photos: Path, take: Callable[[LoaderSequence], bytes]
) -> None:
    spec = a_spec(photos, batch_size=96)
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(spec, session)
        expected = [take(sequence) for _ in range(10)]
        sequence = LoaderSequence(spec, session, max_queue_size=2)
        got = [take(sequence)]
        kill(daemon)

        def press() -> None:
            eventually(lambda: waits(session))
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=press)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            got.extend(take(sequence) for _ in itertools.count())
        thread.join()
        with serve():
            got.extend(take(sequence) for _ in range(10 - len(got)))
        assert got == expected


def test_a_sequence_that_is_closed_waits_no_more(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        kill(daemon)
        with reading_on(sequence, 0) as rest:
            eventually(lambda: waits(session))
            sequence.close()
            with pytest.raises(Exception, match="closed"):
                rest()


def test_another_version_in_the_daemons_place_is_an_error_at_once(
    serve: Serve, photos: Path
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        kill(daemon)
        os.unlink(daemon.path)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(daemon.path)
            listener.listen()

            def answer() -> None:
                line = Channel(listener.accept()[0])
                line.receive()
                line.send(Welcome(99, "9.9.9", 1))
                line.close()

            thread = threading.Thread(target=answer)
            thread.start()
            with pytest.raises(VersionMismatch, match=r"9\.9\.9"):
                read(sequence)
            thread.join()


def test_a_sequence_that_is_reset_while_it_waits_begins_again(serve: Serve, photos: Path) -> None:
    train = ImageDataGenerator(horizontal_flip=True)
    options: dict[str, Any] = {"target_size": (20, 30), "seed": 3, "max_queue_size": 2}
    with serve() as daemon, Session(daemon.path) as session:
        plain, flow = (train.flow_from_directory(photos, **options) for _ in range(2))
        next(plain), next(plain), next(flow)
        plain.reset()
        kill(daemon)
        stream_of(flow).close()
        with ThreadPoolExecutor(1) as thread:
            late = thread.submit(next, flow)
            eventually(lambda: waits(session))
            flow.reset()
            with serve():
                np.testing.assert_array_equal(late.result(60)[0], next(plain)[0])
                np.testing.assert_array_equal(next(flow)[0], next(plain)[0])


def test_a_sequence_that_is_reset_while_it_is_opened_again_begins_again(
    serve: Serve, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ImageDataGenerator(horizontal_flip=True)
    with serve() as daemon, Session(daemon.path) as session:
        plain, flow = (
            train.flow_from_directory(photos, target_size=(20, 30), seed=3) for _ in range(2)
        )
        next(plain), next(plain), next(flow)
        plain.reset()
        expected = next(plain)[0]
        reopen = session.reopen
        opened: list[Any] = []

        def interfering(*args: Any, **options: Any) -> Any:
            opened.append(reopen(*args, **options))
            if len(opened) == 1:
                flow.reset()
            return opened[-1]

        monkeypatch.setattr(session, "reopen", interfering)
        stream_of(flow).close()
        np.testing.assert_array_equal(next(flow)[0], expected)
        assert len(opened) == 2
        assert opened[0].ended
