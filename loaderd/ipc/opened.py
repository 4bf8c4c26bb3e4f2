"""Checks a daemon's answer to Open against the request.

Arrays are made on the memory that it sends, by the sizes that it reports. A wrong size would
cause an error far from here, or a SIGBUS in the trainer.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
from collections.abc import Callable
from typing import TypeVar

from loaderd.errors import ProtocolError
from loaderd.ipc.manifest import Manifest
from loaderd.ipc.messages import Opened
from loaderd.ipc.slot_layout import SlotLayout, slot_layout
from loaderd.spec.output import Order
from loaderd.spec.spec import Spec, fitted

_Ring = TypeVar("_Ring")


def take_over(
    asked: Spec, opened: Opened, ring: int, manifest: int, map_ring: Callable[[int, int], _Ring]
) -> tuple[SlotLayout, _Ring, Manifest]:
    """Checks and maps ring and manifest of a stream.

    Args:
        asked: the requested spec.
        opened: the daemon's answer.
        ring: descriptor of the ring; always closed.
        manifest: descriptor of the manifest; always closed.
        map_ring: maps the ring, given its descriptor, which it must not close, and its bytes.

    Returns:
        The layout of a slot, the mapped ring, and the manifest.

    Raises:
        ProtocolError: sizes, counts or access contradict the spec or each other.
        OSError: it cannot be mapped, for lack of descriptors or memory.
    """
    try:
        layout = _layout(asked, opened)
        _check_memory("ring", ring, opened.ring_bytes)
        _check_memory("manifest", manifest, opened.manifest_bytes)
        if fcntl.fcntl(ring, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            raise ProtocolError("the daemon sent a ring that cannot be written")
        memory = map_ring(ring, opened.ring_bytes)
        table = mmap.mmap(manifest, opened.manifest_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(ring)
        os.close(manifest)
    found = Manifest.view(table)
    samples = _epoch_samples(asked.order, len(found), opened.samples)
    if (samples, len(found.class_names)) != (opened.samples, opened.classes):
        raise ProtocolError(
            f"the daemon sent a manifest of {len(found)} samples and {len(found.class_names)} "
            f"classes, and speaks of {opened.samples} and {opened.classes}"
        )
    return layout, memory, found


def _epoch_samples(order: Order, listed: int, reported: int) -> int:
    """The samples that an epoch must have."""
    if order.given:
        return reported  # a given order may repeat samples and leave others out
    return listed if order.count is None else min(order.count, listed)


def check_slot(slot: int, slots: int) -> None:
    """Checks that the number of a slot, from the daemon, is within a ring of ``slots``.

    Raises:
        ProtocolError: there is no such slot.
    """
    if not 0 <= slot < slots:
        raise ProtocolError(f"the daemon speaks of slot {slot} of {slots}")


def _layout(asked: Spec, opened: Opened) -> SlotLayout:
    expected = fitted(asked, max(1, opened.samples))
    if opened.samples < 1 or opened.batch_size != expected.batch.batch_size:
        raise ProtocolError(
            f"the daemon speaks of batches of {opened.batch_size} of {opened.samples} samples, "
            f"and {asked.batch.batch_size} were asked for"
        )
    layout = slot_layout(expected, max(0, opened.classes))
    if opened.slots < 1 or opened.ring_bytes != opened.slots * layout.nbytes:
        raise ProtocolError(
            f"the daemon speaks of a ring of {opened.ring_bytes} bytes with {opened.slots} slots "
            f"of {layout.nbytes}"
        )
    return layout


def _check_memory(what: str, fd: int, size: int) -> None:
    state = os.fstat(fd)
    if not stat.S_ISREG(state.st_mode):
        raise ProtocolError(f"the daemon sent something else than memory as the {what}")
    if size < 1 or state.st_size != size:
        raise ProtocolError(f"the daemon sent a {what} of {state.st_size} bytes, not {size}")
