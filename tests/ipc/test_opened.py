"""What a daemon hands over with a stream is held against what was asked for."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from loaderd.errors import ProtocolError
from loaderd.ipc import manifest, opened, segment
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.messages import Opened
from loaderd.ipc.slot_layout import SlotLayout, slot_layout
from loaderd.spec.output import Order
from loaderd.spec.spec import Spec
from tests.support.streams import a_spec

SPEC = a_spec(Path("/photos"))
LAYOUT = slot_layout(SPEC, 2)
TABLE = manifest.pack("/photos", ("a", "b"), [b"1.jpg"] * 20, np.zeros(20, np.int32))
GOOD = Opened(
    stream=1,
    seed=11,
    samples=20,
    batch_size=8,
    classes=2,
    slots=4,
    ring_bytes=4 * LAYOUT.nbytes,
    manifest_bytes=len(TABLE),
)


def ring(size: int = GOOD.ring_bytes) -> int:
    return segment.create(size)


def take_over(
    ring: int, manifest: int | None = None, asked: Spec = SPEC, **changes: Any
) -> tuple[SlotLayout, mmap.mmap, Manifest]:
    """With the descriptors that there were before, whatever comes of it."""
    said = msgspec.structs.replace(GOOD, **changes)
    table = segment.publish(TABLE) if manifest is None else manifest
    try:
        return opened.take_over(asked, said, ring, table, mmap.mmap)
    finally:
        for fd in (ring, table):
            with pytest.raises(OSError):
                os.fstat(fd)


def test_a_stream_that_is_what_it_claims_is_mapped() -> None:
    layout, memory, listing = take_over(ring())
    assert layout == LAYOUT
    assert len(memory) == GOOD.ring_bytes
    assert listing.path(19) == b"/photos/1.jpg"
    memory[0] = 7


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 0},
        {"samples": -1},
        {"samples": 21},
        {"batch_size": 16},
        {"batch_size": 0},
        {"classes": 3},
        {"classes": -2},
        {"slots": 0},
        {"slots": 5},
        {"ring_bytes": GOOD.ring_bytes + 4096},
        {"manifest_bytes": len(TABLE) + 1},
        {"manifest_bytes": 0},
    ],
    ids=str,
)
def test_numbers_that_contradict_each_other_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=r"^the daemon "):
        take_over(ring(), **changes)


@pytest.mark.parametrize(
    ("order", "samples"),
    [
        (Order(shuffle=False, count=9), 9),
        (Order(shuffle=False, count=99), 20),
        (Order(shuffle=False, given=True), 70),
    ],
)
def test_an_epoch_may_have_other_samples_than_there_are_where_that_was_asked_for(
    order: Order, samples: int
) -> None:
    asked = msgspec.structs.replace(SPEC, order=order)
    assert len(take_over(ring(), asked=asked, samples=samples)[2]) == 20
    if not order.given:
        with pytest.raises(ProtocolError, match=r"^the daemon sent a manifest"):
            take_over(ring(), asked=asked, samples=samples - 1)


def read_only() -> int:
    fd = ring()
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ring(GOOD.ring_bytes - 4096),
        lambda: os.eventfd(0),
        lambda: os.open("/", os.O_PATH),
        lambda: os.open("/dev/zero", os.O_RDWR),
        read_only,
    ],
    ids=["shorter", "an eventfd", "a folder", "a device", "read-only"],
)
def test_memory_of_another_kind_or_size_is_refused(make: Callable[[], int]) -> None:
    with pytest.raises(ProtocolError, match="ring"):
        take_over(make())


def test_a_manifest_that_is_none_is_refused() -> None:
    with pytest.raises(ProtocolError, match="manifest"):
        take_over(ring(), segment.publish(bytes(len(TABLE))))


@pytest.mark.parametrize("slot", [-1, 4, 2**40])
def test_a_slot_that_the_ring_has_not_is_refused(slot: int) -> None:
    opened.check_slot(3, 4)
    with pytest.raises(ProtocolError, match=f"slot {slot} of 4"):
        opened.check_slot(slot, 4)
