"""Programs with many open files, and with no descriptor left."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from loaderd.errors import NoDescriptor
from loaderd.ipc import channel, descriptors, messages
from loaderd.ipc.channel import Channel
from loaderd.ipc.messages import Stop
from tests.process.test_places import BEGIN
from tests.support.daemons import eventually, serving

FEW = (
    BEGIN
    + """
import json, os, resource
from loaderd.errors import NoDescriptor

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

def held():
    "All that are left."
    found = []
    with contextlib.suppress(OSError):
        while True:
            found.append(os.open("/dev/null", os.O_RDONLY))
    return found

def tried(attempt):
    try:
        return attempt()
    except NoDescriptor as error:
        return str(error)

def with_left(left, attempt):
    taken = held()
    for _ in range(left):
        os.close(taken.pop())
    try:
        return tried(attempt)
    finally:
        for fd in taken:
            os.close(fd)

def batch():
    with connect() as session:
        return rows(session)

import select
rows()  # what is imported is imported
loaderd_client.core.session.current().close()
before = len(os.listdir("/proc/self/fd"))
told = [with_left(left, batch) for left in range(14)]
told.append(batch())
with connect() as session:
    told += [with_left(left, lambda: rows(session)) for left in range(8)]
    told.append(rows(session))
after = len(os.listdir("/proc/self/fd"))
print(json.dumps([told, after - before]))
"""
)


def test_a_lack_of_descriptors_is_one_line_and_the_program_goes_on_when_there_are_some(
    photos: Path,
) -> None:
    running = subprocess.Popen(
        [sys.executable, "-c", FEW, str(photos)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = running.communicate(timeout=100)
    assert running.returncode == 0, err.decode()
    told, more = json.loads(out)
    lacks = [one for one in told if one != 32]
    assert more == 0
    assert all("no descriptor is left" in line and "ulimit -n is 256" in line for line in lacks)
    assert not any("\n" in line for line in lacks)
    assert len(lacks) >= 4
    assert (told[14], told[-1]) == (32, 32)
    assert 32 in told[:14]
    eventually(lambda: not serving(f"--owner={running.pid}"))


MANY = (
    BEGIN
    + """
import os, resource
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
for fd in held:
    os.set_inheritable(fd, True)
print(rows())
words = [sys.executable, "-m", "loaderd"]
for verb in ("start", "status", "stop"):
    print(subprocess.run([*words, verb], close_fds=False, stdout=-3).returncode)
print(len(os.listdir(f"/proc/{daemon()}/fd")) < 100)
"""
)


def test_more_than_1024_of_them_are_no_trouble_and_are_handed_on_to_nobody(photos: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 2048:
        pytest.skip("fewer are allowed here")
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(photos)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout.split() == ["32", "0", "0", "0", "True"], done.stderr


def test_no_module_of_ours_uses_select_which_ends_at_1024() -> None:
    root = Path(__file__).parents[2]
    for path in (*root.glob("loaderd/**/*.py"), *root.glob("client/**/*.py")):
        assert "select.select(" not in path.read_text(), path


def test_descriptors_that_the_kernel_could_not_hand_over_are_told_from_too_many() -> None:
    ours, theirs = channel.pair()
    with ours, theirs:
        line = Channel(theirs)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        socket.send_fds(ours, [messages.encode(Stop())], [0, 1])
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        try:
            with pytest.raises(NoDescriptor, match=f"ulimit -n is {lowest}"):
                line.receive_with_fds()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_is_raised_as_far_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, new: limits.append(new))
    for now, then in (((64, 1024), [(1024, 1024)]), ((64, -1), [(4096, -1)]), ((-1, -1), [])):
        monkeypatch.setattr(resource, "getrlimit", lambda what, now=now: now)
        descriptors.raise_limit(4096)
        assert limits == then
        limits.clear()


def test_a_daemon_has_more_than_its_trainer(photos: Path) -> None:
    program = f"""{BEGIN}
import resource
import socket
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
print(rows(), resource.prlimit(daemon(), resource.RLIMIT_NOFILE)[0] > 64)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(photos)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "32 True\n", done.stderr
