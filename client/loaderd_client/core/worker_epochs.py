"""The number of the epoch that the worker processes of a PyTorch ``DataLoader`` read.

A ``DataLoader`` starts its workers anew for each epoch from the same object, which stays as it was
in the trainer, and tells them no number of the epoch. So they keep it in memory that they share.
Each writes a word of its own, at once: the epoch, and a key that is equal for the workers of one
epoch. The first of them that finds no word with its key begins the epoch after the last one; if two
are the first at the same time, both find the same last one. There is no lock, which a killed worker
would keep.
"""

from __future__ import annotations

from ctypes import c_uint64
from multiprocessing.context import get_spawning_popen
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple

from loaderd.errors import InvalidArgument

MAX_WORKERS = 1024
_EPOCHS = 2**24
_KEYS = 2**40


class DataLoaderWorker(NamedTuple):
    """A worker process of a ``DataLoader``.

    Attributes:
        number: from 0.
        workers: how many there are.
        seed: of the ``DataLoader`` for this epoch; the same in all its workers.
    """

    number: int
    workers: int
    seed: int


class WorkerEpochs:
    """Counts the epochs that workers have begun; shared with processes started from this one."""

    def __init__(self) -> None:
        self._words = RawArray(c_uint64, MAX_WORKERS)
        self._begun_here = 0

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy; only a process that is being started shares the memory."""
        return dict(vars(self)) if get_spawning_popen() is not None else {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]  # for a copy that shares nothing
        vars(self).update(state)

    @property
    def last(self) -> int:
        """The number of the last epoch that was begun; 0 if none was."""
        return max(word % _EPOCHS for word in self._words)

    def begin(self, worker: DataLoaderWorker) -> int:
        """The number, from 1, of the epoch that a worker begins.

        Raises:
            InvalidArgument: there are too many workers.
        """
        if worker.workers > MAX_WORKERS:
            raise InvalidArgument(
                f"`num_workers` should be at most {MAX_WORKERS}. Received: {worker.workers}"
            )
        self._begun_here += 1  # workers that persist have the same seed in each epoch
        key = hash((worker.seed, worker.workers, self._begun_here)) % _KEYS
        own_key, own = divmod(self._words[worker.number], _EPOCHS)
        before = own if own_key == key else 0  # of another DataLoader with the same seed
        # Read once: another worker may write its word meanwhile, which is a last one for neither.
        words = [divmod(word, _EPOCHS) for word in self._words]
        same = [epoch for its_key, epoch in words if its_key == key and epoch > before]
        epoch = max(same) if same else max(epoch for _, epoch in words) + 1
        self._words[worker.number] = key * _EPOCHS + epoch
        return epoch
