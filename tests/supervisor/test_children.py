"""Children of the fork server: started, told of, and gone with it, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from loaderd.ipc.channel import Closed
from loaderd.ipc.messages import Detach
from loaderd.launch import interpreter
from loaderd.supervisor import children
from loaderd.supervisor.children import Child, ForkServer
from loaderd.supervisor.loop import Loop
from loaderd.supervisor.server_process import FORKS
from tests.support.daemons import DEADLINE, Serve, eventually, gone


def run_words(sock: socket.socket) -> None:
    """A child that runs what it is sent."""
    while said := sock.recv(100):
        exec(said)


def raises(sock: socket.socket) -> None:
    raise OSError("it says why")


class Nursery:
    """A fork server in this process, whose loop is turned until something is so."""

    def __init__(self, loop: Loop, forks: ForkServer) -> None:
        self.forks = forks
        self._loop = loop

    def until(self, so: Callable[[], object]) -> None:
        end = time.monotonic() + DEADLINE
        while not so():
            assert time.monotonic() < end
            self._loop.turn(0.05)
            self.forks.check()

    def child(self) -> Child:
        one = self.forks.spawn(run_words)
        self.until(lambda: one.pid)
        return one

    @property
    def server(self) -> psutil.Process:
        assert self.forks._server is not None
        return psutil.Process(self.forks._server.process.pid)


def tell(child: Child, words: str) -> None:
    child.channel._socket.send(words.encode())


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """Not under pytest's own children: it takes note of the end of every child of its process."""
    with Loop() as loop, ForkServer(loop) as forks:
        yield Nursery(loop, forks)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("raise SystemExit", 1),
        ("import sys; sys.exit(3)", 3),
        ("import os; os._exit(0)", 0),
        ("import os; os.kill(os.getpid(), 11)", -11),
    ],
)
def test_how_a_child_ended_is_told(nursery: Nursery, words: str, code: int) -> None:
    child = nursery.child()
    tell(child, words)
    nursery.until(lambda: child.ended)
    assert child.code == code
    child.close()


def test_a_child_whose_work_raises_says_so_and_ends_with_1(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with Loop() as loop, ForkServer(loop) as server:
        child = server.spawn(raises)
        Nursery(loop, server).until(lambda: child.ended)
        child.close()
    assert child.code == 1
    assert "OSError: it says why" in capfd.readouterr().err


def test_a_child_is_killed_by_its_number_and_never_after_its_end(nursery: Nursery) -> None:
    child = nursery.child()
    ends: list[int] = []
    child.when_ended(lambda: ends.append(1))
    child.kill()
    nursery.until(lambda: child.ended)
    child.kill()
    assert (child.code, ends) == (-signal.SIGKILL, [1])
    child.when_ended(lambda: ends.append(2))
    assert ends == [1, 2]
    child.close()


def test_children_die_with_the_fork_server_and_their_ends_are_told_when_they_are_dead(
    nursery: Nursery,
) -> None:
    children = [nursery.child() for _ in range(3)]
    processes = [psutil.Process(child.pid) for child in children]
    os.kill(children[0].pid, signal.SIGSTOP)
    nursery.server.kill()
    nursery.until(lambda: all(child.ended for child in children))
    assert all(map(gone, processes))
    assert {child.code for child in children} == {-signal.SIGKILL}
    another = nursery.child()
    tell(another, "import os; os._exit(7)")
    nursery.until(lambda: another.ended)
    assert another.code == 7
    for child in (*children, another):
        child.close()


def test_a_death_beside_that_of_the_fork_server_is_told_as_it_was(nursery: Nursery) -> None:
    child = nursery.child()
    nursery.server.suspend()
    tell(child, "import os; os.kill(os.getpid(), 11)")
    eventually(lambda: gone(psutil.Process(child.pid)))
    nursery.server.kill()
    nursery.until(lambda: child.ended)
    assert child.code == -signal.SIGSEGV
    child.close()


def test_one_that_was_stopped_is_continued(nursery: Nursery) -> None:
    child = nursery.child()
    nursery.server.suspend()
    child.kill()
    nursery.until(lambda: child.ended)
    nursery.server.suspend()
    another = nursery.child()
    for one in (child, another):
        one.close()


def test_what_a_child_was_sent_and_has_not_read_can_be_taken_back(nursery: Nursery) -> None:
    child = nursery.forks.spawn(run_words, revocable=True)
    nursery.until(lambda: child.pid)
    os.kill(child.pid, signal.SIGSTOP)
    for stream in (1, 2):
        child.channel.send(Detach(stream))
    assert [message for message, _ in child.take_back()] == [Detach(1), Detach(2)]
    assert child.take_back() == []
    child.close()


def test_a_child_holds_nothing_but_its_socket(nursery: Nursery) -> None:
    """Neither the supervisor's descriptors nor the fork server's."""
    child = nursery.child()
    tell(child, "import os; sock.send(' '.join(os.listdir('/proc/self/fd')).encode())")
    nursery.until(lambda: _received(child))
    held = [fd for fd in _said.pop().split() if int(fd) > 2]
    assert len(held) <= 2  # its socket, and the folder that is being listed
    child.close()


_said: list[str] = []


def _received(child: Child) -> bool:
    with contextlib.suppress(BlockingIOError):
        _said.append(child.channel._socket.recv(1000).decode())
    return bool(_said)


def test_asking_for_a_child_waits_for_nobody(nursery: Nursery) -> None:
    """The fork server still loads the decoders, which takes hundreds of times as long."""
    begun = time.perf_counter()
    children = [nursery.forks.spawn(run_words) for _ in range(3)]
    assert time.perf_counter() - begun < 0.1
    assert not any(child.pid for child in children)
    nursery.until(lambda: all(child.pid for child in children))
    for child in children:
        child.close()


def test_the_sockets_end_is_seen_when_the_child_ends(nursery: Nursery) -> None:
    child = nursery.child()
    child.kill()
    nursery.until(lambda: child.ended)
    with pytest.raises(Closed):
        child.channel.receive()
    child.close()


def test_the_daemon_leaves_nothing_in_the_temporary_folder(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with serve(1) as daemon:
        assert os.listdir(tmp_path) == []
        daemon.process.kill()
        daemon.process.wait()
    assert os.listdir(tmp_path) == []


NO_MORE = """
import os

def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")

os.fork = fork
from loaderd.forkserver.server import main
main()
"""


def test_a_lack_of_processes_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "FORKS", FORKS._replace(text=NO_MORE))
    with Loop() as loop, ForkServer(loop) as server:
        nursery = Nursery(loop, server)
        child = server.spawn(run_words)
        nursery.until(lambda: child.ended)
        child.close()
    assert child.code is None
    assert child.trouble == "no process could be started: Resource temporarily unavailable"


def test_a_fork_server_that_cannot_be_started_is_an_error_and_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Loop() as loop:
        monkeypatch.setattr(interpreter, "find", lambda: "/not/there")
        with ForkServer(loop) as server:
            with pytest.raises(OSError, match="/not/there"):
                server.spawn(run_words)
            monkeypatch.undo()
            Nursery(loop, server).child().close()
