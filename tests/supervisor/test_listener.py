"""A daemon can be found, whatever cleaners and logouts remove."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loaderd.errors import DaemonError, DaemonRunning
from loaderd.ipc import address, channel, lock
from loaderd.supervisor import listener as listeners
from loaderd.supervisor.listener import Listener
from loaderd.supervisor.loop import Loop
from loaderd_client import Session
from tests.support.daemons import Serve, eventually
from tests.support.streams import a_spec, digest, read_all


@pytest.fixture
def loop() -> Iterator[Loop]:
    with Loop() as one:
        yield one


class Door:
    """A listener, and those who came."""

    def __init__(self, loop: Loop, path: str, name: str = "", required: bool = True) -> None:
        self.came: list[socket.socket] = []
        self.listener = Listener(loop, path, name, required=required)
        self.listener.watch(lambda: self.came.append(self.listener.accept()))
        self._loop = loop

    def lets_in(self) -> bool:
        """Whether somebody who knocks is let in."""
        before = len(self.came)
        try:
            line = channel.connect(self.listener.path)
        except OSError:
            return False
        self._loop.turn(1)
        line.close()
        return len(self.came) > before


@pytest.fixture
def door(loop: Loop) -> Iterator[Door]:
    """At the usual place of the daemon called ``default``."""
    one = Door(loop, address.socket_path("default"), "default")
    with one.listener:
        yield one
        for sock in one.came:
            sock.close()


def folder(door: Door) -> str:
    return os.path.dirname(door.listener.path)


def the_socket(door: Door) -> None:
    os.unlink(door.listener.path)


def the_lock(door: Door) -> None:
    os.unlink(lock.path_of(door.listener.path))


def both(door: Door) -> None:
    the_socket(door)
    the_lock(door)


def the_folder(door: Door) -> None:
    shutil.rmtree(folder(door))


@pytest.mark.parametrize("remove", [the_socket, the_lock, both, the_folder])
def test_what_was_removed_is_made_again(
    door: Door, remove: Callable[[Door], None], caplog: pytest.LogCaptureFixture
) -> None:
    door.listener.check()
    remove(door)
    with caplog.at_level(logging.WARNING, "loaderd"):
        door.listener.check()
    assert door.lets_in()
    assert f"the socket {door.listener.path} was removed" in caplog.text
    with pytest.raises(DaemonRunning):
        lock.take(door.listener.path)
    caplog.clear()
    door.listener.check()
    assert not caplog.text


def test_with_the_runtime_folder_it_moves_to_the_other_usual_place(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As commands do, which look there from then on."""
    session = tmp_path / "session"
    session.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(session))
    name = f"moves-{os.getpid()}"
    door = Door(loop, address.socket_path(name), name)
    with door.listener:
        shutil.rmtree(session)
        door.listener.check()
        assert door.listener.path == address.socket_path(name)
        assert door.listener.path.startswith(f"/tmp/loaderd-{os.geteuid()}/")
        assert door.lets_in()
    assert not os.path.exists(door.listener.path)


def test_a_place_that_somebody_chose_stays_the_place(loop: Loop, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen" / "x.sock"
    door = Door(loop, str(chosen), "default")
    with door.listener:
        shutil.rmtree(chosen.parent)
        door.listener.check()
        assert door.listener.path == str(chosen)
        assert door.lets_in()


def test_another_daemon_that_took_the_place_meanwhile_keeps_it(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    both(door)
    with Loop() as another, Listener(another, door.listener.path):
        for _ in range(2):
            door.listener.check()
        assert caplog.text.count("a daemon already serves") == 1
    door.listener.check()
    assert door.lets_in()


def test_at_its_end_it_removes_what_is_its_own_and_nothing_else(loop: Loop) -> None:
    path = address.socket_path("default")
    with Listener(loop, path, "default"):
        os.unlink(lock.path_of(path))
        os.unlink(path)
        other = Loop()
        second = Listener(other, path)
    assert sorted(os.listdir(os.path.dirname(path))) == ["default.lock", "default.sock"]
    with other, second:
        pass
    assert os.listdir(os.path.dirname(path)) == []


@pytest.mark.parametrize("trouble", ["a folder in the way", "full"])
def test_a_place_that_cannot_be_used_is_an_error_or_none_at_all(
    loop: Loop, trouble: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, bound = address.socket_path("private-7"), listeners._bound
    if trouble == "full":

        def no_room(path: str) -> socket.socket:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(listeners, "_bound", no_room)
    else:
        os.makedirs(lock.path_of(path))
    with pytest.raises(DaemonError) as raised:
        Listener(loop, path)
    assert "\n" not in str(raised.value)
    with Listener(loop, path, "private-7", required=False) as one:
        one.watch(lambda: None)
        one.check()
        assert caplog.text.count("no new client can find this daemon") == 1
        monkeypatch.setattr(listeners, "_bound", bound)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(lock.path_of(path))
        one.check()
        channel.connect(path).close()


def test_a_pause_lets_clients_wait(door: Door, loop: Loop) -> None:
    door.listener.pause()
    line = channel.connect(door.listener.path)
    loop.turn(0)
    assert not door.came
    door.listener.resume()
    loop.turn(1)
    assert door.came
    line.close()


def test_stale_sockets_of_private_daemons_are_removed_and_living_ones_are_not(
    runtime: str, loop: Loop
) -> None:
    path = address.socket_path("default")
    address.make_folder(path)
    for pid in (11, 12):
        for ending in ("lock", "sock"):
            Path(os.path.dirname(path), f"private-{pid}.{ending}").touch()
    with open(os.path.join(os.path.dirname(path), "private-12.lock")) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with Listener(loop, path):
            left = [name for name in os.listdir(os.path.dirname(path)) if "private" in name]
            assert sorted(left) == ["private-12.lock", "private-12.sock"]


def listens(path: str) -> bool:
    """Whether somebody answers there: a socket has a path a moment before it listens."""
    with contextlib.suppress(OSError):
        channel.connect(path).close()
        return True
    return False


def test_a_shared_daemon_is_found_again_within_seconds_and_its_streams_go_on(
    serve: Serve, photos: Path
) -> None:
    with serve(1, "--sample-timeout=1") as daemon:
        expected = read_all(daemon.path, a_spec(photos))
        with Session(daemon.path) as session:
            stream = session.open(a_spec(photos), slots=4)
            got = [digest(stream.take((0, 0)))]
            shutil.rmtree(os.path.dirname(daemon.path))
            got += [digest(stream.take((0, position))) for position in range(1, 12)]
            eventually(lambda: listens(daemon.path))
            assert read_all(daemon.path, a_spec(photos)) == expected
        assert got == expected[:12]
        assert daemon.snapshot().daemon.socket == daemon.path
