"""Arrays whose life is the lease of a slot.

A slot may be written again when nobody can read it any more, and only the arrays know
when that is: TensorFlow and JAX alias NumPy memory and let go of it late, in threads of
their own. So every array of a batch hangs on a holder that exports the slot's memory,
all holders hang on one lease, and the lease's end releases the slot. (A finalizer on the
array itself would fire too early: NumPy lets views hang on the array's base instead.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc.owned import Owned
from loaderd.ipc.slot_layout import SlotLayout
from loaderd_client.core.mapping import Mapping


class _Lease:
    """Dies with the last array of a slot. Keeps the mapping alive until then."""

    __slots__ = ("__weakref__", "ring")

    def __init__(self, ring: Mapping) -> None:
        self.ring = ring


class _Memory:
    """Exports an array of the ring to NumPy, and holds what keeps it there."""

    __slots__ = ("__array_interface__", "holder")

    def __init__(self, interface: dict[str, Any], holder: _Lease | Mapping) -> None:
        self.__array_interface__ = interface
        self.holder = holder


class Ring:
    """A mapped ring, which hands out its slots as leased arrays or as copies.

    Args:
        memory: the mapping.
        layout: where things lie in a slot.
        released: gets a slot's number when its last array has died; in any thread, at any
            moment, in one step of C code.
        then: called afterwards, likewise; it must neither block nor raise.
    """

    def __init__(
        self,
        memory: Mapping,
        layout: SlotLayout,
        released: Callable[[int], None],
        then: Callable[[], None] | None = None,
    ) -> None:
        self._memory = memory
        self._layout = layout
        self._held = Owned(released, then)
        arrays = (layout.images, layout.labels, layout.weights)
        self._arrays = [(field, np.dtype(field.dtype).str) for field in arrays if field]
        self._ids = _all_ids(memory, layout)
        self._leases: weakref.WeakValueDictionary[int, _Lease] = weakref.WeakValueDictionary()

    def lease(self, slot: int, rows: int) -> list[NDArray[Any]]:
        """The slot's images, and labels and weights if it has them; as writable views, no copy.

        Args:
            slot: the slot's number.
            rows: samples that it holds.
        """
        lease = _Lease(self._memory)
        self._held.watch(lease, slot)
        self._leases[slot] = lease
        return [np.asarray(memory) for memory in self._memories(slot, rows, lease)]

    def copy(self, slot: int, rows: int) -> list[NDArray[Any]]:
        """The same as private copies; the slot stays as it is."""
        memories = self._memories(slot, rows, _Lease(self._memory))
        return [np.array(memory) for memory in memories]

    def empty(self) -> None:
        """Gives the memory of all slots that are not leased back, for good."""
        size = self._layout.nbytes
        for slot in range(self._memory.nbytes // size):
            if slot not in self._leases:
                self._memory.empty(slot * size, size)

    def sweep(self) -> None:
        """Sees to it that all slots whose arrays have died are known to be released."""
        self._held.sweep()

    @property
    def is_leased(self) -> bool:
        """Whether arrays of it live."""
        return any(True for _ in self._leases.values())  # len() would count some that are dead

    def ids(self, slot: int, rows: int) -> NDArray[np.int32]:
        """A copy of the sample numbers of the slot's rows."""
        return self._ids[slot, :rows].copy()

    def _memories(self, slot: int, rows: int, lease: _Lease) -> list[_Memory]:
        address = self._memory.address + slot * self._layout.nbytes
        return [
            _Memory(
                {
                    "version": 3,
                    "shape": (rows, *field.shape[1:]),
                    "typestr": typestr,
                    "data": (address + field.offset, False),
                },
                lease,
            )
            for field, typestr in self._arrays
        ]


def _all_ids(memory: Mapping, layout: SlotLayout) -> NDArray[np.int32]:
    """The sample numbers of all slots, (slots, rows): made once, since a view costs."""
    interface = {
        "version": 3,
        "shape": (memory.nbytes // layout.nbytes, *layout.ids.shape),
        "typestr": np.dtype(np.int32).str,
        "strides": (layout.nbytes, 4),
        "data": (memory.address + layout.ids.offset, False),
    }
    return np.asarray(_Memory(interface, memory))
