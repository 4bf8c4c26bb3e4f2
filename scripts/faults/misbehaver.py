"""A client that breaks the rules of the protocol, and dies while it holds batches.

usage: python -m scripts.faults.misbehaver SEED DATA

Every act is done by a forked child, as most of them end in its death. ``LOADERD_SOCKET`` is the
daemon's address.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable

from loaderd.errors import LoaderdError
from loaderd.ipc import channel, dial
from loaderd.ipc.channel import Closed
from loaderd.ipc.messages import Observe
from loaderd.spec.load import Load
from loaderd.spec.operations import RandomAffine
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Directory
from loaderd.spec.spec import Spec
from loaderd_client.core.session import Session

PAUSE = 0.3
ACT_SECONDS = 4.0
"""Seconds that an act may take; then it is killed."""

Act = Callable[[str, Spec, random.Random], None]


def nonsense(path: str, _: Spec, rng: random.Random) -> None:
    """Packets of random bytes, before and after a Hello."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        sock.send(rng.randbytes(rng.randint(1, 5000)))
    connection = dial.dial(path)
    with socket.socket(fileno=os.dup(connection.fileno())) as sock:
        sock.send(rng.randbytes(rng.randint(1, 500)))


def silence(path: str, _: Spec, rng: random.Random) -> None:
    """A connection on which nothing is sent."""
    connection = channel.connect(path)
    time.sleep(rng.uniform(0.5, 3))
    connection.close()


def descriptors(path: str, _: Spec, rng: random.Random) -> None:
    """Requests with descriptors that do not belong there."""
    connection = dial.dial(path)
    for count in rng.choices(range(1, 6), k=20):
        connection.send(Observe(), [0] * count)
        connection.receive()


def flood(path: str, _: Spec, rng: random.Random) -> None:
    """Endless requests, whose answers are not read."""
    connection = dial.dial(path)
    end = time.monotonic() + rng.uniform(0.2, 1)
    while time.monotonic() < end:
        connection.send(Observe())


def unread(path: str, spec: Spec, rng: random.Random) -> None:
    """Streams from which nothing is taken, and an end without goodbye."""
    session = Session(path)
    streams = [session.open(spec, 6) for _ in range(rng.randint(1, 3))]
    time.sleep(rng.uniform(0.1, 2))
    del streams
    os._exit(0)


def hold_and_die(path: str, spec: Spec, rng: random.Random) -> None:
    """Killed while it holds leases."""
    stream = Session(path).open(spec, 6)
    held = [stream.take((0, position)) for position in range(rng.randint(1, 6))]
    time.sleep(rng.uniform(0, 0.5))
    os.kill(os.getpid(), signal.SIGKILL)
    del held


def hold_and_stop(path: str, spec: Spec, rng: random.Random) -> None:
    """Stopped for a while with leases held, and then goes on."""
    stream = Session(path).open(spec, 6)
    held = [stream.take((0, position)) for position in range(rng.randint(1, 4))]
    os.kill(os.getpid(), signal.SIGSTOP)
    held += [stream.take((0, position)) for position in range(4, 8)]


def jump(path: str, spec: Spec, rng: random.Random) -> None:
    """Random access, and each batch released at once."""
    stream = Session(path).open(spec, 4)
    for _ in range(rng.randint(5, 30)):
        stream.take((rng.randrange(100), rng.randrange(stream.batches)))


ACTS: tuple[Act, ...] = (
    nonsense,
    silence,
    descriptors,
    flood,
    unread,
    hold_and_die,
    hold_and_stop,
    jump,
)


def perform(act: Act, path: str, spec: Spec, rng: random.Random) -> None:
    """Fork a child that does it, and make sure that it ends."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(LoaderdError, Closed, OSError):  # also where no daemon is
            act(path, spec, rng)
        os._exit(0)
    try:
        _await_end(child, rng.uniform(1, 3))
    finally:
        with contextlib.suppress(OSError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _await_end(child: int, stopped_for: float) -> None:
    """Wait until the child ends; continue it some time after it has stopped itself."""
    end = time.monotonic() + ACT_SECONDS
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if pid and not os.WIFSTOPPED(status):
            return
        if pid:
            time.sleep(stopped_for)
            os.kill(child, signal.SIGCONT)
        time.sleep(0.02)


def a_spec(data: str) -> Spec:
    """A spec with larger batches than the trainers', which cost more."""
    return Spec(
        source=Directory(directory=data, extensions=(".jpg",)),
        load=Load(target_size=(128, 128)),
        transforms=(RandomAffine(rotation_range=30.0),),
        output=Output(),
        batch=Batching(batch_size=16),
        order=Order(seed=99),
    )


def main() -> None:
    """Misbehave until SIGTERM; print the number of acts."""
    seed, data = sys.argv[1:]
    rng, path = random.Random(f"misbehaver {seed}"), os.environ["LOADERD_SOCKET"]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for number in itertools.count(1):
        perform(rng.choice(ACTS), path, a_spec(data), rng)
        print(number, flush=True)
        time.sleep(rng.uniform(0, 2 * PAUSE))


if __name__ == "__main__":
    main()
