"""A bad peer is dropped alone: the others get their batches, and the daemon keeps nothing of it."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from loaderd.cli import serve as serve_verb
from loaderd.errors import InvalidArgument, LoaderdError, NoDaemon, NoRoom, RequestRefused
from loaderd.ipc import channel, dial, manifest
from loaderd.ipc.bundle import Bundle
from loaderd.ipc.channel import Channel, Closed, Unread
from loaderd.ipc.descriptors import copies
from loaderd.ipc.messages import (
    PROTOCOL,
    Ack,
    Hello,
    ListBad,
    Message,
    Observe,
    Observed,
    Open,
    Opened,
    Plan,
    Refused,
    Welcome,
)
from loaderd.ipc.prefetch import WHOLE, Run
from loaderd.spec import spec
from loaderd.spec.operations import NamedFunction, UserCode
from loaderd.spec.output import Batching
from loaderd.spec.spec import Spec
from loaderd.supervisor import clients, request_limits
from loaderd.supervisor.clients import (
    HELLO_SECONDS,
    MAX_OF_ONE_PROCESS,
)
from loaderd_client import Session
from tests.process.test_given import a_living_daemon, descriptors, files
from tests.support.daemons import Daemon, Serve, eventually
from tests.support.specs import with_load, with_transform
from tests.support.streams import a_spec, digest, run_of

HELLO = Hello(PROTOCOL, "1", 1)


def ask(line: Channel, data: bytes, *more: int, size: int | None = None) -> Message:
    """Asks for a stream with a spec of these bytes, as no client of ours would."""
    fd = os.memfd_create("spec")
    os.write(fd, data)
    try:
        line.send(Open(len(data) if size is None else size, (), 4, WHOLE), [fd, *more])
    finally:
        os.close(fd)
    return hear(line)


def hear(line: Channel) -> Message:
    answer, fds = line.receive_with_fds()
    for fd in fds:
        os.close(fd)
    return answer


def ends(line: Channel) -> bool:
    """Whether the daemon has closed the connection, whatever it said before."""
    with contextlib.suppress(Closed):
        while True:
            hear(line)
    return True


def with_source(asked: Spec, **fields: Any) -> Spec:
    return msgspec.structs.replace(asked, source=msgspec.structs.replace(asked.source, **fields))


# ---- who may come, and how long it may wait ------------------------------------------


def test_a_client_that_says_no_hello_is_dropped_in_time(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (daemon, _):
        polite, silent = dial.dial(daemon.path), channel.connect(daemon.path)
        began = time.monotonic()
        silent.settimeout(HELLO_SECONDS + 5)
        answer = silent.receive()
        assert isinstance(answer, Refused)
        assert "no Hello" in answer.text
        assert time.monotonic() - began > HELLO_SECONDS - 1
        assert ends(silent)
        assert isinstance(dial.ask(polite, Observe(), daemon.path), Observed)
        polite.close()
        silent.close()


def test_one_process_does_not_take_all_connections(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (daemon, _):  # whose stream is one connection
        lines = [dial.dial(daemon.path) for _ in range(MAX_OF_ONE_PROCESS - 1)]
        with pytest.raises(RequestRefused, match=f"has {MAX_OF_ONE_PROCESS} connections"):
            dial.dial(daemon.path)
        program = f"from loaderd.ipc import dial; dial.observe({daemon.path!r})"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
        for line in lines:
            line.close()
        eventually(lambda: answers(daemon))


def answers(daemon: Daemon) -> bool:
    with contextlib.suppress(LoaderdError):
        return bool(daemon.workers())
    return False


def lowest_free(daemon: Daemon) -> int:
    """The descriptor that the daemon gets next."""
    taken = {int(name) for name in os.listdir(f"/proc/{daemon.process.pid}/fd")}
    return min(set(range(len(taken) + 1)) - taken)


@contextlib.contextmanager
def descriptors_limited(daemon: Daemon, most: int) -> Iterator[None]:
    pid = daemon.process.pid
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_some_descriptors_are_kept_for_those_who_are_in(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (daemon, session):
        free = lowest_free(daemon)
        most = free + clients.SPARE_DESCRIPTORS + 1
        text = f"no descriptors left.*{most}"
        with descriptors_limited(daemon, most):
            line = dial.dial(daemon.path)
            with pytest.raises(RequestRefused, match=text):
                session.open(a_spec(photos), 4)
            line.close()
            eventually(lambda: lowest_free(daemon) == free)
            assert isinstance(ask(dial.dial(daemon.path), spec.encode(a_spec(photos))), Opened)


def test_a_lack_of_descriptors_leaves_the_daemon_deaf_for_a_moment_only(
    serve: Serve, photos: Path
) -> None:
    with a_living_daemon(serve, photos) as (daemon, _):
        with descriptors_limited(daemon, lowest_free(daemon)):
            line = channel.connect(daemon.path)
            eventually(lambda: "nobody is let in" in daemon.log)
        line.settimeout(5)
        line.send(HELLO)
        assert isinstance(line.receive(), Welcome)  # nobody has gone, and yet
        line.close()


def test_one_process_does_not_take_all_streams(serve: Serve, photos: Path) -> None:
    small = with_load(a_spec(photos, batch_size=1), target_size=(2, 2))
    with a_living_daemon(serve, photos) as (_, session):  # which holds one
        streams = [
            session.open(small, slots=4) for _ in range(request_limits.MAX_STREAMS_OF_ONE - 1)
        ]
        with pytest.raises(
            RequestRefused, match=f"has {request_limits.MAX_STREAMS_OF_ONE} streams"
        ):
            session.open(small, slots=4)
        assert len(streams[-1].take((0, 0)).ids) == 1


def test_streams_are_counted_over_all_processes() -> None:
    request_limits.check_number(0, range(request_limits.MAX_STREAMS - 1))
    with pytest.raises(RequestRefused, match=f"{request_limits.MAX_STREAMS} streams"):
        request_limits.check_number(0, range(request_limits.MAX_STREAMS))


# ---- floods --------------------------------------------------------------------------


def said(line: Channel) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            line.receive()
            count += 1
    return count


def flood(line: Channel, message: Message, enough: threading.Event, counts: list[int]) -> None:
    count = 0
    while not enough.is_set():
        line.send(message)
        line.receive()
        count += 1
    counts.append(count)


def test_a_flood_starves_nobody(serve: Serve, photos: Path) -> None:
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        expected = [digest(batch) for batch in run_of(session.open(a_spec(photos), slots=4))]
        enough, counts = threading.Event(), list[int]()
        threads = [
            threading.Thread(target=flood, args=(dial.dial(daemon.path), what, enough, counts))
            for what in (HELLO, ListBad(), Observe(), HELLO)
        ]
        for thread in threads:
            thread.start()
        try:
            found = [digest(batch) for batch in run_of(session.open(a_spec(photos), slots=4))]
        finally:
            enough.set()
            for thread in threads:
                thread.join()
        assert found == expected
        assert sum(counts) > 100


def test_a_client_that_reads_nothing_is_dropped(serve: Serve, photos: Path) -> None:
    with a_living_daemon(serve, photos) as (daemon, _):
        line = dial.dial(daemon.path)
        with pytest.raises(Closed):
            for _ in range(20_000):
                line.send(ListBad())
        line.close()
        eventually(lambda: "does not read what it is sent" in daemon.log)
        before = psutil.Process(daemon.process.pid).memory_info().rss
        for _ in range(3):
            line = dial.dial(daemon.path)
            with contextlib.suppress(Closed):
                for _ in range(20_000):
                    line.send(Observe())
            line.close()
        assert psutil.Process(daemon.process.pid).memory_info().rss < before + 2**25


def test_what_waits_unsent_is_limited_by_number_and_by_bytes() -> None:
    for message, limit in ((HELLO, 1000), (Refused("x", "y" * 100_000), 8 * 2**20 // 100_000)):
        ours, theirs = channel.pair()
        ours.setblocking(False)
        line = Channel(ours)
        sent = 0
        with pytest.raises(Unread):
            while True:
                line.send(message)
                sent += 1
        kept = Channel(theirs)
        kept.settimeout(0)
        assert sent - said(kept) == pytest.approx(limit, abs=1)
        line.flush()
        assert said(kept)  # what was kept goes as far as it goes
        line.close()
        kept.close()


def test_what_the_kernel_refuses_later_ends_the_connection() -> None:
    ours, theirs = channel.pair()
    ours.setblocking(False)
    line, other = Channel(ours), Channel(theirs)
    with contextlib.suppress(Unread):
        while not line.unsent:
            line.send(HELLO)
    line._unsent.appendleft((bytes(2**22), ()))  # longer than any buffer
    with contextlib.suppress(BlockingIOError):
        while True:
            theirs.recv(1000, socket.MSG_DONTWAIT)
    with pytest.raises(Closed):
        line.flush()
    with pytest.raises(Closed):
        other.receive()
    line.close()
    other.close()


def test_last_words_are_heard_though_much_was_left_unread() -> None:
    ours, theirs = channel.pair()
    line, other = Channel(ours), Channel(theirs)
    for _ in range(10):
        other.send(HELLO)
    line.send(Refused("RequestRefused", "no"))
    line.hang_up()
    assert isinstance(other.receive(), Refused)
    with pytest.raises(Closed):
        other.receive()
    with pytest.raises(Closed):
        other.send(HELLO)
    other.close()


def test_descriptors_that_cannot_be_kept_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(os.listdir("/proc/self/fd"))
    dup, left = os.dup, [2]

    def scarce(fd: int) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(24, "Too many open files")
        return dup(fd)

    monkeypatch.setattr(os, "dup", scarce)
    with pytest.raises(OSError, match="Too many"):
        copies([0, 0, 0])
    assert len(os.listdir("/proc/self/fd")) == before


# ---- what it sends -------------------------------------------------------------------


OUT_OF_TURN: dict[str, Callable[[int], Message]] = {
    "a batch beyond the epoch": lambda _: Plan(((0, 10**6),), None),
    "a run from nowhere": lambda _: Plan((), Run((2**63, 0), 1)),
    "too many batches": lambda _: Plan(((0, 1),) * 1025, None),
    "a slot that is not there": lambda _: Ack((99,), (), 0, 0, 0),
    "a slot that was not given": lambda slots: Ack((), tuple(range(slots)) * 2, 0, 0, 0),
    "a negative slot": lambda _: Ack((-1,), (), 0, 0, 0),
    "a stream without a spec": lambda _: Open(10, (), 4, WHOLE),
    "a message of ours": lambda _: Welcome(1, "", 1),
}


@pytest.mark.parametrize("what", OUT_OF_TURN)
def test_whatever_is_out_of_turn_ends_that_stream_alone(
    serve: Serve, photos: Path, what: str
) -> None:
    with a_living_daemon(serve, photos) as (daemon, _):
        line = dial.dial(daemon.path)
        answer = ask(line, spec.encode(a_spec(photos)))
        assert isinstance(answer, Opened)
        line.send(OUT_OF_TURN[what](answer.slots))
        assert ends(line)
        eventually(lambda: len(daemon.snapshot().streams) == 1)
        line.close()


def test_two_streams_asked_for_at_once_are_none(serve: Serve, photos: Path) -> None:
    data = spec.encode(a_spec(photos))
    fd = os.memfd_create("spec")
    os.write(fd, data)
    with a_living_daemon(serve, photos) as (daemon, _):
        line = dial.dial(daemon.path)
        for _ in range(2):
            line.send(Open(len(data), (), 4, WHOLE), [fd])
        assert ends(line)
        line.close()
        eventually(lambda: len(daemon.snapshot().streams) == 1)
    os.close(fd)


def test_descriptors_that_come_unasked_are_closed(serve: Serve, photos: Path) -> None:
    unasked = [os.open("/", os.O_RDONLY)] * 5
    with a_living_daemon(serve, photos) as (daemon, _):
        line, stream = dial.dial(daemon.path), dial.dial(daemon.path)
        assert isinstance(ask(stream, spec.encode(a_spec(photos))), Opened)
        before = descriptors(daemon)
        for _ in range(20):
            line.send(Observe(), unasked)
            assert isinstance(line.receive(), Observed)
            assert isinstance(ask(line, b"{}"), Refused)
            stream.send(Plan((), None), unasked)
        daemon.snapshot()
        eventually(lambda: descriptors(daemon) <= before)
        for count in (0, 3, 5, 7, 200):
            odd = dial.dial(daemon.path)
            odd.send(Open(10, (), 4, WHOLE), unasked[:1] * count)
            assert ends(odd)
            odd.close()
        eventually(lambda: descriptors(daemon) <= before)
        line.close()
        stream.close()
    os.close(unasked[0])


def test_a_spec_in_anything_but_filled_memory_is_refused(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    data = spec.encode(a_spec(photos))
    (tmp_path / "spec").write_bytes(data)
    os.mkfifo(tmp_path / "fifo")
    short, huge = os.memfd_create("short"), os.memfd_create("huge")
    os.write(short, data[:-1])
    os.truncate(huge, 2**26)
    fds = {
        "on a disk": (os.open(tmp_path / "spec", os.O_RDONLY), len(data)),
        "short": (short, len(data)),
        "short, and said to be long": (short, 2**26),
        "all zeros": (huge, 2**26),
        "fifo": (os.open(tmp_path / "fifo", os.O_RDWR), 10),
        "endless": (os.open("/dev/zero", os.O_RDONLY), 2**26),
        "folder": (os.open("/", os.O_RDONLY), 10),
        "path": (os.open(tmp_path / "spec", os.O_PATH), len(data)),
        "event": (os.eventfd(1), 8),
    }
    with a_living_daemon(serve, photos) as (daemon, _):
        line = dial.dial(daemon.path)
        before = psutil.Process(daemon.process.pid).memory_info().rss
        for what, (fd, size) in fds.items():
            line.send(Open(size, (), 4, WHOLE), [fd])
            answer = line.receive()
            assert isinstance(answer, Refused), what
            assert ("is no memory" in answer.text) == (what != "all zeros"), what
        assert psutil.Process(daemon.process.pid).memory_info().rss < before + 2**24
        line.send(Open(2**26 + 1, (), 4, WHOLE), [huge])
        assert ends(line)
        line.close()
    for fd in {fd for fd, _ in fds.values()}:
        os.close(fd)


def test_sizes_that_cannot_be_meant_are_named(serve: Serve, photos: Path) -> None:
    good = a_spec(photos)
    odd: dict[str, tuple[Spec, type[LoaderdError]]] = {
        "target_size": (with_load(good, target_size=(2**40, 2**40)), InvalidArgument),
        "lower batch_size": (with_load(good, target_size=(10_000, 10_000)), NoRoom),
        "channels": (with_load(good, channels=2**40), InvalidArgument),
        "seed": (with_source(good, shuffle_seed=2**32), InvalidArgument),
        "validation_split": (with_source(good, split_per_class=(0.0, 1e300)), InvalidArgument),
        "labels": (with_source(good, labels=(2**40,) * 96), InvalidArgument),
        "directory": (with_source(good, directory="a\0b"), LoaderdError),
    }
    with a_living_daemon(serve, photos) as (_, session):
        for words, (asked, kind) in odd.items():
            with pytest.raises(kind, match=words):
                session.open(asked, 4)
        huge = msgspec.structs.replace(good, batch=Batching(batch_size=2**60))
        assert len(session.open(huge, 2**60).take((0, 0)).ids) == 96
        assert session.open(good, -5).slots == 1


def test_labels_of_very_many_classes_are_counted_before_they_are_laid_out(
    serve: Serve, photos: Path
) -> None:
    classes = tuple(f"class {number}" for number in range(200_000))
    names = [b"cat/000.jpg"] * 20_000
    table = manifest.pack(str(photos), classes, names, np.zeros(len(names), np.int32))
    asked = msgspec.structs.replace(files(photos), batch=Batching(batch_size=len(names)))
    with a_living_daemon(serve, photos) as (_, session), pytest.raises(NoRoom, match="batch_size"):
        session.open(asked, 4, bundles=[Bundle({"manifest": np.frombuffer(table, np.uint8)})])


def test_an_odd_manifest_is_told_and_no_death(serve: Serve, photos: Path) -> None:
    deep = manifest.pack("", ("x" * 5000,), [b"a"], np.zeros(1, np.int32))
    at = deep.index(b'{"root"')
    table = np.frombuffer(deep[:at] + (b"[" * 5000).ljust(len(deep) - at, b"["), np.uint8)
    with (
        a_living_daemon(serve, photos) as (_, session),
        pytest.raises(LoaderdError, match=r"RecursionError|cannot be read"),
    ):
        session.open(files(photos), 4, bundles=[Bundle({"manifest": table})])


def test_nobody_answers_where_nobody_listens(runtime: str) -> None:
    with pytest.raises(NoDaemon):
        dial.observe(os.path.join(runtime, "nobody.sock"))


# ---- what is written down ------------------------------------------------------------


def test_names_reach_the_log_escaped(serve: Serve, tmp_path: Path, photos: Path) -> None:
    name = "x\n2026 CRITICAL all is lost\x1b[2J"
    (tmp_path / name / "cat").mkdir(parents=True)
    (tmp_path / name / "cat" / f"{name}.jpg").write_bytes(b"no picture")
    code = UserCode((NamedFunction("", name),), python=(3, 0))
    with a_living_daemon(serve, photos) as (daemon, session):
        for asked in (a_spec(tmp_path / name), with_transform(a_spec(photos), code)):
            stream = session.open(asked, 4)
            with pytest.raises(LoaderdError):
                stream.take((0, 0))
        log = daemon.log
    assert "\x1b" not in log
    assert log.count("\\n2026 CRITICAL all is lost\\x1b[2J") >= 2
    assert not [line for line in log.splitlines() if line.startswith("2026 CRITICAL")]


def test_a_traceback_in_the_log_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.Logger("own")
    log.addHandler(serve_verb.log_handler())
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        log.exception("a\nb")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith(r"ERROR a\nb")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == r"ValueError: \x1b[2J"


def may_unshare() -> bool:
    done = subprocess.run(["unshare", "-pf", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not may_unshare(), reason="needs the right to make namespaces")
def test_a_client_whose_process_cannot_be_seen_is_served_like_any_other(
    serve: Serve, photos: Path
) -> None:
    script = (
        "import os, sys; from loaderd_client import ImageDataGenerator, connect\n"
        "assert os.getpid() < 5\n"
        "with connect(sys.argv[1]):\n"
        "    flow = ImageDataGenerator().flow_from_directory(sys.argv[2], target_size=(9, 9))\n"
        "    print(sum(len(flow[i][0]) for i in range(len(flow))))\n"
    )
    with serve(workers=1) as daemon:
        words = ["unshare", "-pf", sys.executable, "-c", script, daemon.path, str(photos)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.splitlines()[-1:] == ["96"], done.stderr
        eventually(lambda: not daemon.snapshot().streams)
    assert "nobody is let in" not in daemon.log
