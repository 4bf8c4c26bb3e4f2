"""Arrays whose lifetime is the lease of a slot.

A slot may be written again when no array refers to its memory any more. TensorFlow and JAX alias
NumPy memory, and drop it late and in threads of their own. So the base of every array of a batch
is a holder that exports the slot's memory, all holders refer to one lease, and the lease's
finalizer releases the slot. (A finalizer on the array itself would run too early: NumPy's views
refer to the array's base instead.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.ipc.owned import Owned
from loaderd.ipc.slot_layout import SlotLayout
from loaderd_client.core.dtypes import numpy_dtype
from loaderd_client.core.mapping import Mapping


class _Lease:
    """Lives as long as the arrays of a slot, and keeps the mapping alive."""

    __slots__ = ("__weakref__", "ring")

    def __init__(self, ring: Mapping) -> None:
        self.ring = ring


class _Memory:
    """Exports an array of the ring to NumPy, and refers to the owner of its memory."""

    __slots__ = ("__array_interface__", "holder")

    def __init__(self, interface: dict[str, Any], holder: _Lease | Mapping) -> None:
        self.__array_interface__ = interface
        self.holder = holder


class Ring:
    """A mapped ring, which hands out its slots as leased arrays or as copies.

    Args:
        memory: the mapping.
        layout: of a slot.
        released: called with a slot's number when its last array is freed, in any thread and at
            any moment; must be a single step of C code.
        then: called afterwards, likewise; must neither block nor raise.
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
        arrays = layout.delivered.values()
        self._arrays = [(field, field.stored.str) for field in arrays]
        self._dtypes = [numpy_dtype(field.dtype) for field in arrays]
        stored = [field.stored for field in arrays]
        self._are_numpys = stored == self._dtypes
        self._ids = _all_ids(memory, layout)
        self._leases: weakref.WeakValueDictionary[int, _Lease] = weakref.WeakValueDictionary()

    def lease(self, slot: int, rows: int) -> list[NDArray[Any]]:
        """The arrays of ``layout.delivered``, as writable views."""
        lease = _Lease(self._memory)
        self._held.watch(lease, slot)
        self._leases[slot] = lease
        memories = self._memories(slot, rows, lease)
        return self._typed([np.asarray(memory) for memory in memories])

    def copy(self, slot: int, rows: int) -> list[NDArray[Any]]:
        """The same as private copies, without a lease."""
        memories = self._memories(slot, rows, _Lease(self._memory))
        return self._typed([np.array(memory) for memory in memories])

    def empty(self) -> None:
        """Frees the memory of all slots that are not leased, for good."""
        size = self._layout.nbytes
        for slot in range(self._memory.nbytes // size):
            if slot not in self._leases:
                self._memory.empty(slot * size, size)

    def sweep(self) -> None:
        """Reports slots whose arrays have been freed and that were not reported yet."""
        self._held.sweep()

    @property
    def is_leased(self) -> bool:
        """Whether arrays of it are alive."""
        return any(True for _ in self._leases.values())  # len() may count dead ones

    def ids(self, slot: int, rows: int) -> NDArray[np.int32]:
        """A copy of the sample numbers of the slot's rows."""
        return self._ids[slot, :rows].copy()

    def _typed(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The arrays with their own dtypes, where these are not NumPy's."""
        if self._are_numpys:
            return arrays
        return [array.view(dtype) for array, dtype in zip(arrays, self._dtypes, strict=True)]

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
    """The sample numbers of all slots, int32 (slots, rows); made once, as views are slow."""
    interface = {
        "version": 3,
        "shape": (memory.nbytes // layout.nbytes, *layout.ids.shape),
        "typestr": np.dtype(np.int32).str,
        "strides": (layout.nbytes, 4),
        "data": (memory.address + layout.ids.offset, False),
    }
    return np.asarray(_Memory(interface, memory))
