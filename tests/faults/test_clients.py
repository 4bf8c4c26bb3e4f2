"""Clients that are killed, stopped, or fork: they harm nobody, and lose nothing that they need."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from loaderd.errors import StreamClosed
from loaderd_client import LoaderSequence, Session
from loaderd_client.core import session as sessions
from loaderd_client.core.guard import Caller
from tests.support.daemons import (
    Daemon,
    Serve,
    as_if_ours,
    eventually,
    gone,
    kill_private,
    stream_of,
)
from tests.support.streams import a_spec, digest, run_of

PROGRAM = """
    import os, signal, sys
    from pathlib import Path
    from loaderd_client import Session
    from tests.process.test_streams import a_spec, digest, run_of
    spec = a_spec(Path(sys.argv[1]))
    session = Session()
    stream = session.open(spec, slots=6)
    run = run_of(stream)
    held = [next(run) for _ in range(2)]
    for batch in held:
        print(digest(batch), flush=True)
"""
Client = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def client(photos: Path) -> Iterator[Client]:
    """Starts a trainer that holds two batches, and then does something."""
    with contextlib.ExitStack() as stack:

        def start(then: str) -> subprocess.Popen[str]:
            program = textwrap.dedent(PROGRAM) + textwrap.dedent(then)
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(photos)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def has_nothing(daemon: Daemon) -> bool:
    now = daemon.snapshot()
    return not now.streams and not now.host.ring_bytes


def undisturbed(daemon: Daemon, photos: Path) -> list[str]:
    with Session(daemon.path) as session:
        return [digest(batch) for batch in run_of(session.open(a_spec(photos), slots=6))]


def test_of_a_client_that_is_killed_with_leases_nothing_is_left(
    serve: Serve, photos: Path, client: Client
) -> None:
    with serve() as daemon:
        process = client("input()")
        lines(process, 2)
        eventually(lambda: daemon.snapshot().streams[0].leased == 2)
        process.kill()
        eventually(lambda: has_nothing(daemon))
        assert len(undisturbed(daemon, photos)) == 24


def test_a_client_that_is_stopped_holds_up_nobody_and_goes_on(
    serve: Serve, photos: Path, client: Client
) -> None:
    with serve() as daemon:
        process = client("for batch in run:\n    input()\n    print(digest(batch), flush=True)")
        got = lines(process, 2)
        process.send_signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
        expected = undisturbed(daemon, photos)
        assert len(expected) == 24
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.write("\n" * 22)
        process.stdin.flush()
        assert got + lines(process, 22) == expected


def test_a_child_that_keeps_the_socket_does_not_keep_the_stream(
    serve: Serve, client: Client
) -> None:
    with serve() as daemon:
        process = client("pid = os.fork() or signal.pause()\nprint(pid, flush=True)\ninput()")
        child = psutil.Process(int(lines(process, 3)[-1]))
        assert not has_nothing(daemon)
        process.kill()
        process.wait()
        try:
            eventually(lambda: has_nothing(daemon))
            assert not gone(child)
        finally:
            child.kill()


CHILDREN_THAT_END = {
    "leaves": "sys.exit()",
    "drops everything": "del stream, run, held",
}


@pytest.mark.parametrize("how", CHILDREN_THAT_END)
def test_a_child_that_ends_leaves_daemon_and_stream_to_its_parent(
    photos: Path, client: Client, serve: Serve, how: str
) -> None:
    with serve() as daemon:
        expected = undisturbed(daemon, photos)
    process = client(
        f"""
        pid = os.fork()
        if not pid:
            {CHILDREN_THAT_END[how]}
            sys.exit()
        assert os.waitpid(pid, 0)[1] == 0
        for batch in run:
            print(digest(batch), flush=True)
        print(digest(session.open(spec, slots=6).take((0, 0))), flush=True)
        """
    )
    assert lines(process, 25) == [*expected, expected[0]]


# -- children of a trainer with sequences ----------------------------------------------


def answer_of(question: Callable[[], Any]) -> Any:
    """What a forked child answers."""
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe()
    child = context.Process(target=lambda: its.send(question()))
    child.start()
    try:
        assert mine.poll(30), "the child does not answer"
        return mine.recv()
    finally:
        child.kill()
        child.join()


def test_a_stream_in_a_forked_child_says_whose_it_is(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=6)
        first = digest(stream.take((0, 0)))

        def refused() -> str:
            with pytest.raises(StreamClosed) as caught:
                stream.take((0, 1))
            return str(caught.value)

        assert f"process {os.getpid()}" in answer_of(refused)
        assert "LoaderSequence" in answer_of(refused)
        assert digest(next(run_of(stream))) == first


def test_a_child_opens_a_stream_of_its_own(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=6)
        own = answer_of(lambda: digest(session.open(a_spec(photos), slots=6).take((0, 3))))
        assert own == digest(stream.take((0, 3)))


def test_children_of_a_sequence_read_the_same_bytes(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        expected = [digest(sequence.fetch(index)) for index in range(12)]
        sequence = LoaderSequence(a_spec(photos), session)
        assert digest(sequence.fetch(0)) == expected[0]
        for index in (7, 2):
            assert answer_of(lambda: digest(sequence.fetch(index))) == expected[index]  # noqa: B023
        assert [digest(sequence.fetch(index)) for index in range(1, 12)] == expected[1:]
        eventually(lambda: len(daemon.snapshot().streams) == 1)


def test_a_fork_while_another_thread_is_within_all_guards_is_no_deadlock(
    serve: Serve, photos: Path
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        expected = digest(LoaderSequence(a_spec(photos), session).fetch(1))
        sequence = LoaderSequence(a_spec(photos), session)
        sequence.fetch(0)
        reader, stream = sequence._reader, stream_of(sequence)
        guards = [reader.guard, stream._guard, session._guard, sessions._making]
        held, enough = threading.Event(), threading.Event()

        def hold() -> None:
            me = Caller()
            for guard in guards:
                guard.enter(me)
            held.set()
            enough.wait(60)
            for guard in guards:
                guard.give_back()

        thread = threading.Thread(target=as_if_ours(hold))
        thread.start()
        held.wait(30)

        def everything() -> str:
            assert sessions.current() is session
            assert sequence.num_batches == 12
            taken: str = digest(sequence.fetch(1))
            sequence.on_epoch_end()
            sequence.close()
            session.close()
            return taken

        try:
            assert answer_of(everything) == expected
        finally:
            enough.set()
            thread.join()
        assert digest(sequence.fetch(1)) == expected


def test_a_child_whose_parents_private_daemon_died_starts_its_own(
    photos: Path, runtime: str
) -> None:
    folder = os.path.join(runtime, "loaderd")
    with Session() as session:
        expected = digest(LoaderSequence(a_spec(photos), session).fetch(11))
        sequence = LoaderSequence(a_spec(photos), session, max_queue_size=4)
        sequence.fetch(0)  # and the last batch is not there yet
        kill_private(session)
        assert answer_of(lambda: digest(sequence.fetch(11))) == expected
        assert digest(sequence.fetch(11)) == expected
        eventually(lambda: len(os.listdir(folder)) == 2)  # the child's has gone with it
    assert os.listdir(folder) == []
