"""Where sockets lie: which runtime folders count, how long a path may be, whom it is left to."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaderd.errors import DaemonError, ForeignDaemon, InvalidArgument
from loaderd.ipc import address, channel

FALLBACK = f"/tmp/loaderd-{os.geteuid()}"
OTHER = 65534
"""Some other user."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")


def test_a_runtime_folder_of_ours_is_used(runtime: str) -> None:
    assert address.runtime_dir() == f"{runtime}/loaderd"
    assert address.socket_path("gpu0") == f"{runtime}/loaderd/gpu0.sock"


@pytest.mark.parametrize("where", [(), ("gpu0",), ("my gpu",), (None, "/tmp/a b.sock")])
def test_the_command_that_is_advised_starts_a_daemon_at_the_same_address(
    runtime: str, where: tuple[str, ...]
) -> None:
    path = address.socket_path(*where)
    _, verb, *options = shlex.split(address.start_command(path))
    given = dict(zip(options[::2], options[1::2], strict=True))
    assert verb == "start"
    assert address.socket_path(given.get("--name"), given.get("--socket")) == path


def nothing(folder: Path) -> None:
    pass


def a_file(folder: Path) -> None:
    folder.touch()


def a_dangling_link(folder: Path) -> None:
    folder.symlink_to("nowhere")


def of_somebody_else(folder: Path) -> None:
    folder.mkdir()
    os.chown(folder, OTHER, OTHER)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (nothing, "No such file or directory"),
        (a_file, "it is no folder"),
        (a_dangling_link, "No such file or directory"),
        pytest.param(of_somebody_else, "it belongs to user", marks=as_root),
    ],
)
def test_one_that_is_not_ours_to_use_is_left_alone(
    make: object, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert callable(make)
    make(folder)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    assert address.runtime_dir() == FALLBACK
    assert reason in address.why_unusable(str(folder))


@pytest.mark.parametrize("value", ["", "run/user", "/with\0null"])
def test_a_value_that_is_no_path_is_not_used(value: str) -> None:
    assert address.why_unusable(value)


def test_a_link_to_a_folder_of_ours_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "link"))
    assert address.runtime_dir() == f"{tmp_path}/link/loaderd"


@contextlib.contextmanager
def listening(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        with address.usable(path) as short:
            sock.bind(short)
        sock.listen()
        yield sock


def test_a_path_of_any_length_can_be_listened_at_and_reached(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 200) / ("y" * 200)
    folder.mkdir(parents=True)
    path = address.socket_path(socket=f"{folder}/a.sock")
    before = os.listdir("/proc/self/fd")
    with listening(path):
        channel.connect(path).close()
    assert os.path.exists(path)
    assert os.listdir("/proc/self/fd") == before


def test_a_file_name_that_is_too_long_is_named_with_what_to_do() -> None:
    with pytest.raises(InvalidArgument, match=r"longer than 80 bytes: .*--name or --socket"):
        address.socket_path("x" * 120)


def test_a_relative_path_in_a_folder_that_is_gone_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(InvalidArgument, match="the working directory is gone"):
        address.socket_path(socket="x.sock")


class TestWhoseItIs:
    @pytest.fixture
    def place(self, runtime: str) -> Iterator[str]:
        path = address.socket_path("default")
        address.make_folder(path)
        with listening(path):
            os.chmod(path, 0o600)
            yield path

    def test_our_own_is_trusted(self, place: str) -> None:
        address.check_place(place)

    @pytest.mark.parametrize("which", [os.path.dirname, str])
    def test_what_others_may_write_is_not(self, place: str, which: object) -> None:
        assert callable(which)
        os.chmod(which(place), 0o720)
        with pytest.raises(ForeignDaemon, match=f"^{which(place)} can be written by other users"):
            address.check_place(place)

    @as_root
    @pytest.mark.parametrize("which", [os.path.dirname, str])
    def test_nor_is_what_is_another_users(self, place: str, which: object) -> None:
        assert callable(which)
        os.chown(which(place), OTHER, OTHER)
        with pytest.raises(ForeignDaemon, match=rf"^{which(place)} belongs to user .*\({OTHER}\)"):
            address.check_place(place)
        os.chown(which(place), 0, 0)

    @as_root
    def test_no_socket_is_made_in_another_users_folder(self, runtime: str) -> None:
        os.mkdir(address.runtime_dir())
        os.chown(address.runtime_dir(), OTHER, OTHER)
        with pytest.raises(DaemonError, match="belongs to user"):
            address.make_folder(address.socket_path("default"))

    def test_a_folder_that_somebody_chose_is_as_they_want_it(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o777)
        address.check_place(str(tmp_path / "x.sock"))
