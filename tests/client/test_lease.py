"""A lease lasts exactly as long as its arrays."""

from __future__ import annotations

import gc
import mmap
import os

import ml_dtypes
import msgspec
import numpy as np
import pytest

from loaderd.ipc.slot_layout import ALIGNMENT, SlotLayout, slot_layout, view_slot
from loaderd.spec.output import Batching
from loaderd_client.core.lease import Ring
from loaderd_client.core.mapping import Mapping
from tests.support.specs import rendering, with_output

SPEC = msgspec.structs.replace(rendering(target_size=(5, 7)), batch=Batching(batch_size=3))
LAYOUT = slot_layout(SPEC, classes=2)
SLOTS = 2


class Fixture:
    def __init__(self, layout: SlotLayout) -> None:
        fd = os.memfd_create("ring")
        os.ftruncate(fd, layout.nbytes * SLOTS)
        self.memory = mmap.mmap(fd, layout.nbytes * SLOTS)
        mapping = Mapping(fd, layout.nbytes * SLOTS)
        os.close(fd)
        self.slots = [view_slot(memoryview(self.memory), layout, slot) for slot in range(SLOTS)]
        self.released: list[int] = []
        self.ring = Ring(mapping, layout, self.released.append)


@pytest.fixture
def ring() -> Fixture:
    return Fixture(LAYOUT)


def test_arrays_are_the_slots_memory_writable_and_aligned(ring: Fixture) -> None:
    ring.slots[1].images[...] = 3
    images, labels = ring.ring.lease(1, 2)
    assert images.shape == (2, 5, 7, 3)
    assert labels.shape == (2, 2)
    assert (images == 3).all()
    images /= 3
    assert (ring.slots[1].images[:2] == 1).all()
    assert images.ctypes.data % ALIGNMENT == labels.ctypes.data % ALIGNMENT == 0
    assert images.flags.c_contiguous


def test_the_slot_is_released_when_the_last_view_dies_and_not_before(ring: Fixture) -> None:
    images, labels = ring.ring.lease(1, 3)
    view = images[1:][::2].reshape(-1)
    del images
    gc.collect()
    assert ring.released == []
    del labels
    gc.collect()
    assert ring.released == []
    del view
    gc.collect()
    assert ring.released == [1]


def test_whoever_aliases_the_memory_holds_the_lease(ring: Fixture) -> None:
    images, labels = ring.ring.lease(0, 3)
    alias = np.frombuffer(images.data.cast("B"), np.uint8)
    del images, labels
    gc.collect()
    assert ring.released == []
    del alias
    gc.collect()
    assert ring.released == [0]


def test_a_copy_holds_no_lease_and_does_not_change(ring: Fixture) -> None:
    ring.slots[0].images[...] = 5
    images, _ = ring.ring.copy(0, 3)
    ring.slots[0].images[...] = 6
    assert (images == 5).all()
    assert ring.released == []


def test_bfloat16_is_a_view_of_the_slot_that_holds_the_lease() -> None:
    fixture = Fixture(slot_layout(with_output(SPEC, dtype="bfloat16"), 2))
    slot = fixture.slots[1]
    assert slot.images.dtype == np.uint16
    slot.images[...] = 0x3F80  # 1 in bfloat16
    images, labels = fixture.ring.lease(1, 2)
    copy, _ = fixture.ring.copy(1, 2)
    assert {array.dtype for array in (images, labels, copy)} == {np.dtype(ml_dtypes.bfloat16)}
    assert (images == 1).all()
    images[...] = 2
    assert (slot.images[:2] == 0x4000).all()
    assert (copy == 1).all()
    view = images[1:].reshape(-1)
    del images, labels
    gc.collect()
    assert fixture.released == []
    del view
    gc.collect()
    assert fixture.released == [1]


def test_arrays_outlive_the_ring() -> None:
    fixture = Fixture(LAYOUT)
    fixture.slots[0].images[...] = 4
    images, _ = fixture.ring.lease(0, 3)
    del fixture
    gc.collect()
    assert (images == 4).all()
