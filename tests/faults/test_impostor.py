"""Another user of the machine who listens where a daemon should: nothing is sent there."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaderd.cli import stat
from loaderd.cli.main import main
from loaderd.errors import ForeignDaemon
from loaderd_client import Session, connect
from tests.support.streams import a_spec

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")

OTHER = 65534


class Impostor:
    """A process of another user that listens at a path, and what it was sent."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._heard, tell = os.pipe()
        ready, here = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.setgroups([])
                os.setgid(OTHER)
                os.setuid(OTHER)
                _listen(path, here, tell)
            finally:
                os._exit(1)
        os.close(tell)
        os.close(here)
        assert os.read(ready, 1)
        os.close(ready)

    @property
    def heard(self) -> bytes:
        """What it was sent so far, a dot for each connection."""
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        return os.read(self._heard, 2**16) if poll.poll(200) else b""

    def end(self) -> None:
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)
        os.close(self._heard)


def _listen(path: str, here: int, tell: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.bind(path)
        os.chmod(path, 0o777)
        sock.listen()
        os.write(here, b"1")
        while True:
            with sock.accept()[0] as line:
                os.write(tell, b".")
                with contextlib.suppress(OSError):
                    os.write(tell, line.recv(2**16))


@contextlib.contextmanager
def listening(path: str) -> Iterator[Impostor]:
    one = Impostor(path)
    try:
        yield one
    finally:
        one.end()


@pytest.fixture
def usual(runtime: str) -> Iterator[Impostor]:
    """One who was first in the usual folder."""
    folder = os.path.join(runtime, "loaderd")
    os.chmod(runtime, 0o755)
    os.mkdir(folder)
    os.chown(folder, OTHER, OTHER)
    with listening(os.path.join(folder, "default.sock")) as one:
        yield one


@pytest.fixture
def chosen() -> Iterator[Impostor]:
    """One at a path that somebody chose."""
    with tempfile.TemporaryDirectory(prefix="ld-") as folder:
        os.chmod(folder, 0o777)
        with listening(os.path.join(folder, "x.sock")) as one:
            yield one


def test_a_trainer_starts_its_own_and_says_whose_the_other_is(
    usual: Impostor, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with Session() as session:
        assert session.open(a_spec(photos), slots=4).take((0, 0)).place == (0, 0)
        (said,) = capfd.readouterr().err.splitlines()
    assert os.path.dirname(usual.path) in said
    assert f"({OTHER})" in said
    assert "started a private one" in said
    assert usual.heard == b""


def test_a_trainer_that_wants_no_private_one_gets_an_error(usual: Impostor) -> None:
    with pytest.raises(ForeignDaemon, match=rf"belongs to user .*\({OTHER}\)") as raised:
        connect("auto")
    assert "\n" not in str(raised.value)
    assert usual.heard == b""


@pytest.mark.parametrize("verb", ["start", "stop", "status", "errors", "stat"])
def test_commands_say_in_one_line_whose_it_is(
    usual: Impostor, verb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    code = stat.main([]) if verb == "stat" else main([verb])
    assert code == (3 if verb == "status" else 1)
    got = capfd.readouterr()
    (said,) = (got.out + got.err).splitlines()
    assert f"({OTHER})" in said
    os.kill(usual.pid, 0)
    assert usual.heard == b""


def test_at_a_path_that_somebody_chose_the_kernel_tells_who_listens(chosen: Impostor) -> None:
    with pytest.raises(ForeignDaemon, match=rf"is run by user .*\({OTHER}\).*loaderd start"):
        connect(chosen.path)
    assert chosen.heard == b"."


def test_nor_is_it_stopped(chosen: Impostor, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", f"--socket={chosen.path}"]) == 1
    assert f"({OTHER})" in capfd.readouterr().err
    os.kill(chosen.pid, 0)
    assert chosen.heard == b"."


def test_a_folder_that_others_may_write_is_not_trusted_until_it_is_made_safe(
    runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = os.path.join(runtime, "loaderd")
    os.mkdir(folder)
    os.chmod(folder, 0o777)
    with pytest.raises(ForeignDaemon, match="can be written by other users"):
        connect("auto")
    assert main(["start", "--workers=1"]) == 0
    assert os.stat(folder).st_mode & 0o777 == 0o700
    assert main(["stop"]) == 0
