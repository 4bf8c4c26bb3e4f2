"""Several hosts on one machine: network namespaces on one bridge, and a Ray node in each."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.clusters import STORE_BYTES
from tests.support.daemons import eventually, family, gone

PORT = 6379
RAY = str(Path(sys.executable).parent / "ray")


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def may_make_hosts() -> bool:
    """Whether network namespaces may be made here."""
    name = f"ld{os.getpid()}try"
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        run("ip", "netns", "add", name)
        run("ip", "netns", "del", name)
        return True
    return False


class Hosts:
    """The namespaces; number 0 holds the bridge, and the head of the cluster.

    Attributes:
        address: of the head, for all of them.
    """

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self.address = f"10.77.0.1:{PORT}"

    def inside(self, number: int) -> list[str]:
        """What goes before a command that is run on a host."""
        return ["ip", "netns", "exec", self._names[number]]

    def cut(self, number: int) -> None:
        """Nothing passes the host's link until ``join``."""
        run(*self.inside(0), "ip", "link", "set", f"port{number}", "down")

    def join(self, number: int) -> None:
        run(*self.inside(0), "ip", "link", "set", f"port{number}", "up")

    def connect(self, number: int) -> None:
        """Puts a host on the bridge."""
        port, name = f"port{number}", self._names[number]
        link = ["type", "veth", "peer", "name", "eth0", "netns", name]
        run(*self.inside(0), "ip", "link", "add", port, *link)
        run(*self.inside(0), "ip", "link", "set", port, "master", "bridge", "up")
        run(*self.inside(number), "ip", "addr", "add", f"10.77.0.{number + 1}/24", "dev", "eth0")
        run(*self.inside(number), "ip", "link", "set", "eth0", "up")


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """So many hosts, each with a Ray node; all but the first lend one CPU."""
    names = [f"ld{os.getpid()}-{number}" for number in range(count)]
    folder = tempfile.mkdtemp(prefix="ldr-")
    nodes: list[subprocess.Popen[bytes]] = []
    made: list[str] = []
    try:
        for name in names:
            run("ip", "netns", "add", name)
            made.append(name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        there = Hosts(names)
        run(*there.inside(0), "ip", "link", "add", "bridge", "type", "bridge")
        run(*there.inside(0), "ip", "addr", "add", "10.77.0.1/24", "dev", "bridge")
        run(*there.inside(0), "ip", "link", "set", "bridge", "up")
        for number in range(1, count):
            there.connect(number)
        nodes.extend(_node(there, number, folder) for number in range(count))
        yield there
    finally:
        ours = [one for node in nodes for one in family(node.pid)]
        for one in reversed(ours):
            with contextlib.suppress(OSError):
                os.kill(one.pid, signal.SIGKILL)
        for node in nodes:
            node.wait()
        eventually(lambda: all(gone(one) for one in ours))
        for name in made:
            run("ip", "netns", "del", name)
        shutil.rmtree(folder, ignore_errors=True)


def _node(there: Hosts, number: int, folder: str) -> subprocess.Popen[bytes]:
    """A Ray node on a host, once it is up."""
    where = [f"--address={there.address}"]
    if number == 0:
        where = ["--head", f"--port={PORT}", f"--temp-dir={folder}", "--include-dashboard=false"]
    words = [
        *(RAY, "start", "--block", "--disable-usage-stats", *where),
        *(f"--node-ip-address=10.77.0.{number + 1}", f"--num-cpus={int(number > 0)}"),
        f"--object-store-memory={STORE_BYTES}",
    ]
    log = Path(folder) / f"start-{number}.log"
    with log.open("wb") as file:
        node = subprocess.Popen(
            [*there.inside(number), *words], stdout=file, stderr=subprocess.STDOUT
        )
    eventually(lambda: "Ray runtime started" in log.read_text() or node.poll() is not None)
    assert node.poll() is None, log.read_text()
    return node
