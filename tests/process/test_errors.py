"""Errors reach the trainer with their type, name what is wrong, and harm nobody else."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import msgspec
import psutil
import pytest

from loaderd.errors import (
    BadImage,
    DaemonGone,
    DatasetNotFound,
    EmptyDataset,
    InvalidArgument,
    NoRoom,
    ProtocolError,
    RequestRefused,
    StreamClosed,
    VersionMismatch,
    WorkerCrashed,
    from_wire,
)
from loaderd.ipc import dial, segment
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Ack, Open, Refused, Welcome
from loaderd.ipc.prefetch import WHOLE, Run
from loaderd.spec.operations import RandomAffine
from loaderd.spec.spec import Spec
from loaderd_client import Session
from tests.support.daemons import Serve, eventually
from tests.support.specs import with_transform
from tests.support.streams import a_spec, digest, run_of


def of(spec: Spec, directory: Path) -> Spec:
    source = msgspec.structs.replace(spec.source, directory=str(directory))
    return msgspec.structs.replace(spec, source=source)


def test_a_missing_directory_is_named(serve: Serve, photos: Path, tmp_path: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        with pytest.raises(DatasetNotFound, match="nowhere") as caught:
            session.open(of(a_spec(photos), tmp_path / "nowhere"), slots=4)
        assert isinstance(caught.value, FileNotFoundError)
        assert next(run_of(session.open(a_spec(photos), slots=4))).images.any()


def test_an_empty_directory_is_named(serve: Serve, photos: Path, tmp_path: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        (tmp_path / "cat").mkdir()
        with pytest.raises(EmptyDataset, match=str(tmp_path)):
            session.open(of(a_spec(photos), tmp_path), slots=4)


def test_a_bad_image_is_raised_with_its_path_and_the_rest_is_delivered(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    folder = copytree(photos, tmp_path / "some")
    bad = folder / "dog" / "007.jpg"
    bad.write_bytes(bad.read_bytes()[:200])
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        stream = session.open(of(a_spec(folder), folder), slots=4)
        eventually(lambda: len(daemon.workers()) == 2)
        workers = daemon.workers()
        good, errors = [], []
        for position in range(stream.batches):
            try:
                good += stream.take((0, position)).ids.tolist()
            except BadImage as error:
                errors.append((position, str(error)))
        ((position, text),) = errors
        assert str(bad) in text
        assert len(good) == 96 - 8
        assert daemon.workers() == workers
        assert daemon.snapshot().streams[0].errors == 1
        bad.write_bytes((folder / "dog" / "008.jpg").read_bytes())
        assert len(stream.take((0, position)).ids) == 8  # mended: asked again, it is there


def test_a_ring_beyond_memory_says_how_much_and_what_to_lower(serve: Serve, photos: Path) -> None:
    with serve(1, "--memory=1M") as daemon, Session(daemon.path) as session:
        with pytest.raises(NoRoom, match=r"1,048,576 are left: lower batch_size.*--memory"):
            session.open(a_spec(photos, batch_size=64), slots=4)
        assert len(session.open(a_spec(photos, batch_size=2), slots=4).take((0, 0)).ids) == 2


def test_a_ring_shrinks_to_what_fits(serve: Serve, photos: Path) -> None:
    with serve(1, "--memory=2M") as daemon, Session(daemon.path) as session:
        assert 4 <= session.open(a_spec(photos), slots=100).slots < 20


def test_closing_a_stream_gives_its_memory_back(serve: Serve, photos: Path) -> None:
    with serve(1, "--memory=2M") as daemon, Session(daemon.path) as session:
        for _ in range(20):
            stream = session.open(a_spec(photos), slots=8)
            stream.take((0, 0))
            stream.close()
            eventually(lambda: not daemon.snapshot().streams)
        assert daemon.snapshot().host.ring_bytes == 0


def test_a_closed_stream_says_so(serve: Serve, photos: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        stream.close()
        stream.close()
        with pytest.raises(StreamClosed):
            stream.take((0, 0))


def test_the_daemon_going_away_is_an_error_and_no_hang(serve: Serve, photos: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        batch = stream.take((0, 0))
        whole = digest(batch)
        daemon.process.kill()
        with pytest.raises(DaemonGone):
            for _ in run_of(stream):
                pass
        assert digest(batch) == whole


def test_another_protocol_is_refused_with_both_versions(serve: Serve, runtime: str) -> None:
    path = os.path.join(runtime, "old.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()

        def answer() -> None:
            line = Channel(listener.accept()[0])
            line.receive()
            line.send(Welcome(99, "9.9.9", 1))
            line.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(VersionMismatch, match=r"9\.9\.9.*protocol 99"):
            Session(path)
        thread.join()


NONSENSE: dict[str, Callable[[Channel], object]] = {
    "no message": lambda line: line._socket.send(b"\xff" * 100),
    "too long": lambda line: line._socket.send(b"\0" * 150_000),
    "out of turn": lambda line: line.send(Ack((), (), 0, 0, 0)),
    "hello alone and away": lambda line: line.close(),
}


@pytest.mark.parametrize("what", NONSENSE)
def test_a_client_that_talks_nonsense_is_dropped_alone(
    serve: Serve, photos: Path, what: str
) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        line = dial.dial(daemon.path)
        NONSENSE[what](line)
        if what != "hello alone and away":
            assert isinstance(line.receive(), Refused)
        assert len(list(run_of(stream))) == 24


def test_a_spec_that_cannot_be_read_is_refused_and_the_daemon_lives(
    serve: Serve, photos: Path
) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        reader, writer = os.pipe()
        line = dial.dial(daemon.path)
        line.send(Open(10, (), 4, WHOLE), [reader])
        answer = line.receive()
        assert isinstance(answer, Refused)
        assert answer.kind == "RequestRefused"
        line.close()
        os.close(reader)
        os.close(writer)
        assert len(list(run_of(session.open(a_spec(photos), slots=4)))) == 24


def test_a_start_that_does_not_exist_is_refused_and_the_daemon_lives(
    serve: Serve, photos: Path
) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        with pytest.raises(ProtocolError, match="no batch 9999"):
            session.open(a_spec(photos), 4, Run((0, 9999), 1))
        assert len(list(run_of(session.open(a_spec(photos), slots=4)))) == 24


def test_a_spec_that_no_packet_holds_is_refused_and_the_daemon_lives(
    serve: Serve, photos: Path
) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        huge = RandomAffine(width_shift_range=tuple(float(i) for i in range(30_000)))
        with pytest.raises(InvalidArgument, match="too many values"):
            session.open(with_transform(a_spec(photos), huge), 4)
        assert len(list(run_of(session.open(a_spec(photos), slots=4)))) == 24


def test_a_killed_forkserver_costs_workers_and_not_the_daemon(serve: Serve, photos: Path) -> None:
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        forkserver = psutil.Process(daemon.workers()[0]).parent()
        assert forkserver is not None
        forkserver.kill()
        assert len(list(run_of(stream))) == 24
        assert len(list(run_of(session.open(a_spec(photos), slots=4)))) == 24


def test_the_socket_is_for_its_user_only(serve: Serve, runtime: str) -> None:
    with serve(workers=1) as daemon:
        assert os.stat(daemon.path).st_mode & 0o777 == 0o600
        assert os.stat(os.path.dirname(daemon.path)).st_mode & 0o777 == 0o700


def test_a_file_in_the_sockets_place_is_left_alone(runtime: str) -> None:
    path = os.path.join(runtime, "precious.txt")
    Path(path).write_text("mine")
    words = [sys.executable, "-m", "loaderd", "serve", f"--socket={path}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert "is no socket" in done.stderr
    assert Path(path).read_text() == "mine"


def test_the_end_of_a_daemon_whose_folder_was_cleaned_is_no_fault(
    serve: Serve, runtime: str
) -> None:
    with serve(workers=1) as daemon:
        for name in os.listdir(os.path.dirname(daemon.path)):
            os.unlink(os.path.join(os.path.dirname(daemon.path), name))
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0


def test_pages_are_reserved_before_anyone_writes_to_them() -> None:
    fd = segment.create(10 * 4096)
    try:
        assert os.fstat(fd).st_blocks == 0
        segment.reserve(fd, 10 * 4096)
        assert os.fstat(fd).st_blocks * 512 >= 10 * 4096
        with pytest.raises(NoRoom, match="shm-size"):
            segment.reserve(fd, segment.total() * 2)
    finally:
        os.close(fd)


def test_releasing_a_slot_that_is_not_ours_drops_the_client(serve: Serve, photos: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        good = session.open(a_spec(photos), slots=4)
        bad = session.open(a_spec(photos), slots=4)
        bad.take((0, 0))
        bad._link.channel.send(Ack((), (99,), 0, 0, 0))
        eventually(lambda: len(daemon.snapshot().streams) == 1)
        assert len(list(run_of(good))) == 24


def test_a_draining_daemon_refuses_new_streams(serve: Serve, photos: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        line = dial.dial(daemon.path)
        dial.stop(daemon.path)
        with pytest.raises((RequestRefused, DaemonGone, ConnectionError)):
            session.open(a_spec(photos), slots=4)
        line.close()


def test_error_kinds_cross_the_wire_as_themselves() -> None:
    assert isinstance(from_wire("WorkerCrashed", "x"), WorkerCrashed)
    assert isinstance(from_wire("NeverHeardOf", "x"), RequestRefused)


def test_after_the_error_that_ends_a_program_nothing_follows(serve: Serve, photos: Path) -> None:
    program = (
        "from loaderd_client import ImageDataGenerator as G\n"
        "def read(flow):\n"
        "    flow[10**6]\n"
        f"read(G().flow_from_directory({str(photos)!r}))\n"
    )
    with serve() as daemon:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "LOADERD_SOCKET": daemon.path},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stderr.splitlines()[-1].startswith("ValueError: Asked to retrieve element")
