"""Valid control messages, mutated: their trees, their bytes, their specs and their descriptors."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from loaderd.ipc import channel, messages
from loaderd.ipc.bundle import Bundle
from loaderd.ipc.messages import PROTOCOL, Ack, Hello, ListBad, Message, Observe, Open, Plan, Stop
from loaderd.ipc.prefetch import ROUND, WHOLE, Run
from loaderd.spec import spec
from loaderd.spec.operations import NamedFunction, UserCode
from loaderd.spec.output import Batching, Order
from loaderd.spec.source import Directory, Files
from loaderd.spec.spec import Spec
from tests.support.specs import stages

Random = random.Random

ODD: tuple[Any, ...] = (
    *(-1, 0, 1, 7, 255, 2**31, 2**32, 2**40, 2**63 - 1, 2**64 - 1, -(2**63)),
    *(0.0, 1.5, -1e308, float("nan"), float("inf"), None, True, False),
    *("", "x", "\0", "é\n\x1b[2J", "y" * 5000, b"", b"\xff\xfe", {}, {"type": "Stop"}, []),
)
TAGS = ("Hello", "Open", "Plan", "Ack", "Observe", "ListBad", "Opened", "Ready", "Done", "Chunk")
"""Of what a client says, and of what it must not say; Stop would end the run."""

RAW = (
    b"",
    b"\xc1",
    b"\x91" * 2000,
    b"\x92\xa7Observe" + b"\x91" * 2000 + b"\x90",
    b"\x94\xa5Hello\x01\xa2\xff\xfe\x01",
    b"\x96\xa4Took\xdd\xff\xff\xff\xff",
    b"\x93\xa4Plan\xdc\xff\xff\x92\x00\x00",
    b"\x92\xa7Observe\xc7\x0c\xff" + b"\xff" * 12,
)
"""Bytes that no mutation would soon find."""


class Frame(NamedTuple):
    """What is sent at once: a packet and descriptors; ``spent`` is closed afterwards."""

    data: bytes
    fds: tuple[int, ...] = ()
    spent: tuple[int, ...] = ()


def packed(message: Message) -> Frame:
    return Frame(messages.encode(message))


def a_spec(folder: Path) -> Spec:
    return Spec(
        source=Directory(directory=str(folder), extensions=(".jpg",)),
        **stages(target_size=(8, 8)),
        batch=Batching(batch_size=4),
        order=Order(seed=1),
    )


class Descriptors:
    """All sorts of descriptors, and specs in memory. A context manager.

    Args:
        folder: a dataset.
    """

    def __init__(self, folder: Path) -> None:
        self._cleanup = contextlib.ExitStack()
        self.spec = a_spec(folder)
        self.bundle = Bundle({"mean": np.zeros(3), "manifest": np.zeros(500, np.uint8)})
        self._refused = msgspec.to_builtins(self._with_function())
        self.odd = [self._own(fd) for fd in _odd(folder)] + [self.bundle.fd]

    def _with_function(self) -> Spec:
        """The daemon runs no user code here, so that no opener is started for it."""
        return msgspec.structs.replace(
            self.spec, transforms=(UserCode((NamedFunction("m", "f"),)),)
        )

    def __enter__(self) -> Descriptors:
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def _own(self, fd: int) -> int:
        self._cleanup.callback(os.close, fd)
        return fd

    def open(self, data: bytes, *more: int, bundle_bytes: int = 0, slots: int = 4) -> Frame:
        """An Open whose spec is ``data``."""
        fd = os.memfd_create("fuzz")
        os.write(fd, data)
        asked = Open(len(data), (bundle_bytes,) * bool(bundle_bytes), slots, WHOLE)
        return Frame(messages.encode(asked), (fd, *more), (fd,))

    def good(self, rng: Random) -> Frame:
        """What a good client asks for."""
        return self.open(spec.encode(self.spec), slots=rng.choice([4, 8]))

    def odd_spec(self, rng: Random, *, refused: bool) -> Frame:
        """A spec that is not quite one; ``refused`` before an opener is started for it."""
        tree = self._refused if refused else msgspec.to_builtins(self.spec)
        tree = mutate_tree(rng, tree)
        if refused and isinstance(tree, dict) and isinstance(tree.get("transforms"), list):
            tree["transforms"] += self._refused["transforms"]
        data = msgspec.json.encode(tree)
        return self.open(mutate_bytes(rng, data) if refused and rng.random() < 0.2 else data)

    def odd_files(self, rng: Random) -> Frame:
        """A bundle whose manifest is rubbish; an opener has to find out."""
        asked = msgspec.structs.replace(self.spec, source=Files())
        return self.open(spec.encode(asked), self.bundle.fd, bundle_bytes=self.bundle.nbytes)

    def odd_open(self, rng: Random) -> Frame:
        """An Open with descriptors that hold no spec."""
        fds = tuple(rng.choices(self.odd, k=rng.choice([0, 1, 1, 1, 2, 2, 3, 5, 7])))
        size = rng.choice([0, 1, 100, 5000, 2**26, 2**28, 2**63, -1])
        bundle = rng.choice([0, 0, 1, -1, self.bundle.nbytes, 2**50])
        return packed(
            Open(size, (bundle,) * rng.choice([0, 1, 3]), rng.choice(SMALL), _run(rng))
        )._replace(fds=fds)


def _odd(folder: Path) -> list[int]:
    pipe, pair = os.pipe(), socket.socketpair()
    holes = os.memfd_create("holes", os.MFD_ALLOW_SEALING)
    os.ftruncate(holes, 2**28)
    sealed = os.memfd_create("sealed", os.MFD_ALLOW_SEALING)
    os.ftruncate(sealed, 100)
    fcntl.fcntl(sealed, fcntl.F_ADD_SEALS, 15)
    return [
        *(*pipe, *(end.detach() for end in pair), holes, sealed, os.memfd_create("empty")),
        *(os.open(path, os.O_RDONLY) for path in ("/dev/null", "/dev/zero", folder, __file__)),
        *(os.open("/", os.O_PATH), os.eventfd(0), os.pidfd_open(os.getpid())),
    ]


SMALL = (-1, 0, 1, 2, 4, 300, 2**63 - 1)


def _place(rng: Random) -> tuple[int, int]:
    return rng.choice([(0, 0), (0, 1), (3, 1), (0, -1), (2**40, 0), (0, 2**40)])


def _run(rng: Random) -> Run:
    steps, strides = rng.choice([1, 0, -1, ROUND]), rng.choice([1, 2, 0, -1, -(2**40)])
    return Run(
        rng.choice([None, _place(rng)]), rng.choice(SMALL), steps, rng.choice(SMALL), strides
    )


MAKERS: tuple[tuple[int, Callable[[Random], Message]], ...] = (
    (2, lambda rng: Hello(rng.choice([PROTOCOL, 0, -1]), "1", 1)),
    (1, lambda rng: Observe()),
    (2, lambda rng: ListBad(rng.choice(SMALL))),
    (2, lambda rng: Plan((_place(rng),) * rng.choice([0, 1, 3]), rng.choice([None, _run(rng)]))),
    (2, lambda rng: Ack((rng.choice(SMALL),), (rng.choice(SMALL),), *rng.choices(SMALL, k=3))),
)
_WEIGHTS = [weight for weight, _ in MAKERS]


def any_frame(rng: Random, fds: Descriptors) -> Frame:
    """One frame, valid, nearly valid or rubbish, that starts no opener."""
    pick = rng.random()
    if pick < 0.15:
        return fds.odd_spec(rng, refused=True)
    frame = fds.odd_open(rng) if pick < 0.3 else packed(_any_message(rng))
    if rng.random() < 0.3:
        frame = frame._replace(data=mutate(rng, frame.data))
    if not frame.fds and rng.random() < 0.1:
        frame = frame._replace(fds=tuple(rng.choices(fds.odd, k=rng.randint(1, 7))))
    return frame


def _any_message(rng: Random) -> Message:
    ((_, make),) = rng.choices(MAKERS, _WEIGHTS)
    return make(rng)


def unasked(rng: Random) -> Frame:
    """What is sent instead of Hello."""
    sorts: list[Message] = [Stop(), Observe(), Ack((), (), 0, 0, 0), Plan((), None)]
    data = messages.encode(rng.choice(sorts))
    return Frame(mutate(rng, data) if rng.random() < 0.5 else data)


def mutate(rng: Random, data: bytes) -> bytes:
    """Another packet, which is seldom a valid one."""
    pick = rng.random()
    if pick < 0.55:
        tree = mutate_tree(rng, msgspec.msgpack.decode(data))
        if isinstance(tree, list) and tree and rng.random() < 0.3:
            tree[0] = rng.choice(TAGS)
        return _without_stop(msgspec.msgpack.encode(tree))
    if pick < 0.85:
        return _without_stop(mutate_bytes(rng, data))
    if pick < 0.98:
        return rng.choice(RAW)
    return rng.choice([rng.randbytes(rng.randint(1, 300)), b"\0" * (channel.LONGEST_PACKET + 1)])


def _without_stop(data: bytes) -> bytes:
    return data.replace(b"Stop", b"stop")


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """Flips, cuts, inserts or repeats."""
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 1:
            return data[:at]
        case 2:
            return data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]
        case _:
            return data[:at] + data[at:] * rng.randint(2, 20)


def mutate_tree(rng: Random, tree: Any) -> Any:
    """The same tree, with one of its parts changed."""
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        key = rng.choice(list(tree))
        if rng.random() < 0.1:
            return {name: part for name, part in tree.items() if name != key}
        return tree | {key: mutate_tree(rng, tree[key])}
    if isinstance(tree, list | tuple) and tree and rng.random() < 0.9:
        return _mutate_list(rng, list(tree))
    return rng.choice(ODD)


def _mutate_list(rng: Random, parts: list[Any]) -> list[Any]:
    at = rng.randrange(len(parts))
    match rng.randrange(6):
        case 0:
            del parts[at]
        case 1:
            parts.insert(at, rng.choice(ODD))
        case 2:
            parts += [parts[at]] * rng.choice([1, 5, 2000])
        case _:
            parts[at] = mutate_tree(rng, parts[at])
    return parts
