"""The number of the epoch that the worker processes of a PyTorch ``DataLoader`` read.

A ``DataLoader`` starts its workers anew for each pass from the same object, which stays as it was
in the trainer, and tells them no number of the epoch. So they keep it in memory that they share.
Each writes a word of its own, at once: the epoch, and a key that is equal for the workers of one
pass. The first of them that finds no word with its key begins the epoch after the last one; if two
are the first at the same time, both find the same last one. There is no lock, which a killed worker
would keep.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from ctypes import c_uint64
from multiprocessing.context import get_spawning_popen
from multiprocessing.sharedctypes import RawArray
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np

from loaderd.errors import InvalidArgument, StateError

MAX_WORKERS = 1024
_EPOCHS = 2**24
_KEYS = 2**40
_TRAINER, _EXPIRED = MAX_WORKERS, MAX_WORKERS + 1
"""Words of the trainer: the epoch after its own last one, and whether a state was loaded."""


class DataLoaderWorker(NamedTuple):
    """A worker process of a ``DataLoader``.

    Attributes:
        number: from 0.
        workers: how many there are.
        seed: of the ``DataLoader`` for this pass; the same in all its workers.
    """

    number: int
    workers: int
    seed: int

    @classmethod
    def here(cls) -> Self | None:
        """The worker that this process is; None if it is none."""
        data = sys.modules.get("torch.utils.data")
        info = None if data is None else data.get_worker_info()
        return None if info is None else cls(info.id, info.num_workers, info.seed - info.id)


class WorkerState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a worker of a ``StatefulDataLoader`` is.

    Attributes:
        begun: the sequence's state at the beginning of the pass.
        read: batches of its share that it has handed out.
        number, workers: which worker it is, and of how many.
    """

    begun: dict[str, Any]
    read: int
    number: int
    workers: int

    @classmethod
    def of(cls, state: Mapping[str, Any], worker: DataLoaderWorker) -> Self:
        """Reads the state of a worker.

        Raises:
            InvalidArgument: it is none, or that of another worker.
        """
        try:
            saved = msgspec.convert(dict(state), cls)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise InvalidArgument(f"`state` is not of a worker of a DataLoader: {error}") from error
        if (saved.number, saved.workers) != (worker.number, worker.workers):
            raise InvalidArgument(
                f"`state` is of worker {saved.number} of {saved.workers}, and this is worker "
                f"{worker.number} of {worker.workers}: keep `num_workers` as it was"
            )
        return saved


class WorkerEpochs:
    """Counts the epochs that workers have begun; shared with processes started from this one.

    Args:
        words: of another one, from which this one goes on; none to begin.

    Attributes:
        owner: the process of the trainer.
    """

    def __init__(self, words: Sequence[int] = ()) -> None:
        self.owner = os.getpid()
        self._words = RawArray(c_uint64, MAX_WORKERS + 2)
        self._words[: len(words)] = list(words)
        self._begun_here = 0

    def copy(self) -> WorkerEpochs:
        """Another one, which goes on from here."""
        return WorkerEpochs(self._words[:_EXPIRED])

    def __deepcopy__(self, memo: dict[int, Any]) -> WorkerEpochs:
        return self.copy() if get_spawning_popen() is None else self

    def __reduce__(self) -> Any:
        """Only a process that is being started shares the memory."""
        if get_spawning_popen() is None:
            return WorkerEpochs, (self._words[:_EXPIRED],)
        return WorkerEpochs, (), vars(self)

    @property
    def next(self) -> int:
        """The epoch after the last one that a worker has begun; 0 if none has."""
        words = np.ctypeslib.as_array(self._words)[:MAX_WORKERS]
        return int((words % _EPOCHS).max())

    def note(self, epoch: int) -> None:
        """Notes that the trainer itself begins an epoch, for workers that persist."""
        self._words[_TRAINER] = epoch + 1

    def expire(self) -> None:
        """Has workers that persist raise when they begin an epoch: a state was loaded."""
        self._words[_EXPIRED] = 1

    def begin(self, worker: DataLoaderWorker, first: int, resumed: bool = False) -> int:
        """The number, from 0, of the epoch that a worker begins.

        Args:
            worker: that begins it.
            first: the epoch that comes next as far as the worker knows.
            resumed: whether that is the one, whatever was begun before.

        Raises:
            InvalidArgument: there are too many workers.
            StateError: a state was loaded in the trainer after they were started.
        """
        if worker.workers > MAX_WORKERS:
            raise InvalidArgument(
                f"`num_workers` should be at most {MAX_WORKERS}. Received: {worker.workers}"
            )
        if self._words[_EXPIRED]:
            raise StateError(
                "a state was loaded after the workers of this DataLoader were started, and they "
                "do not know it: make another DataLoader, or leave out `persistent_workers`"
            )
        self._begun_here += 1  # workers that persist have the same seed in each epoch
        key = hash((worker.seed, worker.workers, self._begun_here)) % _KEYS
        after = first + 1 if resumed else self._after(key, worker.number, first)
        if resumed:
            self._forget_others(key)
        self._words[worker.number] = key * _EPOCHS + after
        return after - 1

    def _after(self, key: int, number: int, first: int) -> int:
        """The epoch after the one that a worker begins."""
        own_key, own = divmod(self._words[number], _EPOCHS)
        before = own if own_key == key else 0  # of another DataLoader with the same seed
        # Read once: another worker may write its word meanwhile, which is a last one for neither.
        words = [divmod(word, _EPOCHS) for word in self._words[:_EXPIRED]]
        same = [after for its_key, after in words if its_key == key and after > before]
        return max(same) if same else max(first, *(after for _, after in words)) + 1

    def _forget_others(self, key: int) -> None:
        for number, word in enumerate(self._words[:_EXPIRED]):
            if word // _EPOCHS != key:
                self._words[number] = 0
