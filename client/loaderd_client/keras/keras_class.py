"""Keras's class among the bases of ours, from when Keras is loaded.

Keras accepts only instances of its own class, and a trainer that reads batches in a loop of its
own needs no Keras, whose import takes seconds. So the bases of ``KerasSequence`` are the classes of
the Keras versions that are loaded, and follow when another one is.

Keras recognises a sequence by ``isinstance``. For an object whose class does not derive from the
one asked for, Python reads the object's ``__class__`` next: there a newly loaded Keras is noticed.
``docs/explanation/decisions/keras-is-a-base-when-it-is-loaded.md`` says why it is done so.
"""

from __future__ import annotations

from typing import Any

from loaderd_client.keras import adapter


class _Root:
    """Python lets no class below ``object`` itself change its bases."""


class KerasSequence(_Root):
    """A sequence of the Keras versions that are loaded.

    Args:
        workers: Keras's own.
        use_multiprocessing: Keras's own.
        max_queue_size: Keras's own.
    """

    # Keras reads these, of whichever version, also where its class came later than the object.
    _workers = 1
    _use_multiprocessing = False
    _max_queue_size = 10

    def __init__(
        self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10
    ) -> None:
        self._workers = workers
        self._use_multiprocessing = use_multiprocessing
        self._max_queue_size = max_queue_size

    @property
    def max_queue_size(self) -> int:
        """Batches that are kept ready."""
        return self._max_queue_size

    @max_queue_size.setter
    def max_queue_size(self, value: int) -> None:
        self._max_queue_size = value

    @property  # type: ignore[misc]  # which typeshed declares writable
    def __class__(self) -> type[Any]:
        """The object's class; ``KerasSequence``, once, if its bases have changed just now.

        Python does not look at the object's own class a second time.
        """
        return KerasSequence if follow() else type(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        follow()  # pickle compares ``__class__`` with the class that this returns
        return super().__reduce_ex__(protocol)


def follow() -> bool:
    """Derives from the classes of all Keras versions that are loaded; whether any is new."""
    found = adapter.sequences()
    if not found or found == KerasSequence.__bases__:
        return False
    KerasSequence.__bases__ = found
    return True


follow()
