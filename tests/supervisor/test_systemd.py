"""What the service manager hears, on a real socket in its place."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from loaderd.supervisor import systemd
from loaderd.supervisor.systemd import Notifier
from tests.support.daemons import Serve


class Manager:
    """The other end of the socket."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address)
        self.sock.settimeout(5)

    def hear(self) -> str:
        return self.sock.recv(4096).decode()

    @property
    def silent(self) -> bool:
        heard = bool(select.select([self.sock], [], [], 0)[0])
        if heard:
            self.hear()
        return not heard


@pytest.fixture
def address(runtime: str) -> str:
    return f"{runtime}/notify"


@pytest.fixture
def manager(address: str) -> Iterator[Manager]:
    manager = Manager(address)
    yield manager
    manager.sock.close()


def test_every_word_is_one_datagram(manager: Manager, address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.ready()
    notifier.stopping()
    assert manager.hear() == "READY=1"
    assert manager.hear() == "STOPPING=1"


def test_a_reload_says_when_it_began(manager: Manager, address: str) -> None:
    before = time.monotonic()
    notifier = Notifier({"NOTIFY_SOCKET": address})
    notifier.reloading()
    notifier.ready()
    word, _, moment = manager.hear().partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert before - 0.001 <= int(moment) / 1e6 <= time.monotonic()
    assert manager.hear() == "READY=1"


def test_addresses_that_are_no_files() -> None:
    name = f"loaderd-test-{os.getpid()}"
    manager = Manager(f"\0{name}")
    Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
    assert manager.hear() == "READY=1"
    manager.sock.close()


def test_the_watchdog_is_fed_twice_as_often_as_it_asks_for(manager: Manager, address: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    fed = []
    for second in range(1000, 1060):
        notifier.feed(float(second))
        if not manager.silent:
            fed.append(second)
    assert fed == [1000, 1015, 1030, 1045]


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(
    manager: Manager, address: str, variables: dict[str, str]
) -> None:
    Notifier({"NOTIFY_SOCKET": address, **variables}).feed(1000.0)
    assert manager.silent


def test_a_watchdog_that_is_ours_is_fed(manager: Manager, address: str) -> None:
    pid = str(os.getpid())
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000", "WATCHDOG_PID": pid})
    notifier.feed(0.0)
    assert manager.hear() == "WATCHDOG=1"


def test_what_nobody_heard_is_said_again(runtime: str) -> None:
    address = f"{runtime}/later"
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "30000000"})
    notifier.feed(1000.0)
    manager = Manager(address)
    notifier.feed(1001.0)
    assert manager.hear() == "WATCHDOG=1"
    manager.sock.close()


@pytest.mark.parametrize(
    "said", [None, "", "/nobody/is/here", "@nobody", "vsock:2:1234", "/a\0b", "/" + 200 * "x"]
)
def test_where_nobody_listens_nothing_is_raised(said: str | None) -> None:
    notifier = Notifier({"WATCHDOG_USEC": "1000"} | ({"NOTIFY_SOCKET": said} if said else {}))
    notifier.ready()
    notifier.reloading()
    notifier.stopping()
    notifier.feed(0.0)


def test_a_manager_that_reads_nothing_is_not_waited_for(
    manager: Manager, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "TIMEOUT_SECONDS", 0.05)
    notifier = Notifier({"NOTIFY_SOCKET": address})
    before = time.monotonic()
    while notifier._say("READY=1"):
        pass
    assert time.monotonic() - before < 5


def test_children_inherit_nothing_of_it(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    Notifier(os.environ)
    words = [sys.executable, "-c", "import os; print(*os.environ)"]
    names = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & set(names)


def test_a_daemon_tells_when_it_serves_reloads_and_ends(
    manager: Manager, address: str, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with serve(1) as daemon:
        assert manager.hear() == "READY=1"
        daemon.process.send_signal(signal.SIGHUP)
        assert manager.hear().startswith("RELOADING=1\n")
        assert manager.hear() == "READY=1"
    assert manager.hear() == "STOPPING=1"


def test_the_loop_of_a_daemon_feeds_the_watchdog(
    manager: Manager, address: str, monkeypatch: pytest.MonkeyPatch, serve: Serve
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    with serve(1):
        heard = [manager.hear() for _ in range(4)]
        assert heard.count("WATCHDOG=1") == 3
        assert heard.count("READY=1") == 1
