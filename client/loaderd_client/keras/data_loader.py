"""A sequence in a ``DataLoader`` of PyTorch, which knows no epochs: each of its passes is one.

::

    trainer   DataLoader ── indices ──► fetcher ──► sequence[i]           num_workers=0
                  │
    workers       └─ indices ─► fetcher ─► a copy of the sequence [i]     one for each worker

A pass has a fetcher of its own in every process that reads by index. So the first read of another
fetcher begins an epoch: in the trainer the next one, and in a worker the one that the workers have
agreed on (``loaderd_client.core.worker_epochs``). PyTorch is not imported here.
``docs/explanation/decisions/a-pass-of-a-dataloader-is-an-epoch.md`` says why it is done so.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from loaderd.ipc.prefetch import Place
from loaderd_client.core.epochs import mapped
from loaderd_client.core.supply import is_ready
from loaderd_client.core.worker_epochs import DataLoaderWorker, WorkerEpochs
from loaderd_client.keras.reader import Reader, Request
from loaderd_client.keras.samples import Samples

_sequences: weakref.WeakValueDictionary[int, InDataLoader] = weakref.WeakValueDictionary()


class InDataLoader(Samples):
    """The part of a sequence that follows the passes of a ``DataLoader``."""

    _reader: Reader
    # Of the sequence; see ``Requester``.
    _prepare: Callable[[Request], None]
    _end_epoch: Callable[[], None]

    _worker_epochs: WorkerEpochs | None = None
    _fetcher: weakref.ref[Any] | None = None  # of the last pass that has read here by index
    _after_fetched = 0  # the epoch after that of the last such pass

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """Notes each one, however it is made, for ``_share_all_epochs``."""
        made = super().__new__(cls)
        _sequences[id(made)] = made
        return made

    def _share_epochs(self) -> None:
        """Makes the memory that workers share, which must be there before they are started."""
        if self._own_epochs() is None and "torch.utils.data" in sys.modules:
            self._worker_epochs = WorkerEpochs()

    def _own_epochs(self) -> WorkerEpochs | None:
        """What the workers of this process share; of a worker, what it shares with the others."""
        shared = self._worker_epochs
        if shared is None or shared.owner == os.getpid() or DataLoaderWorker.here() is not None:
            return shared
        self._worker_epochs = shared.copy()  # a process that was forked trains by itself
        return self._worker_epochs

    def _forget_workers(self) -> None:
        """Counts anew, after a state was loaded."""
        self._fetcher, self._after_fetched = None, 0
        shared = self._own_epochs()
        if shared is not None and DataLoaderWorker.here() is None:
            shared.expire()
            self._worker_epochs = WorkerEpochs()

    def _after_workers(self) -> Place:
        """The first place that no worker has read; (0, 0) in a worker."""
        shared = self._own_epochs()
        return (0 if shared is None or DataLoaderWorker.here() is not None else shared.next, 0)

    def _next_place(self) -> Place:
        self._reader.guard.run(lambda: self._end_epochs(self._after_passes()))
        return self._reader.places.upcoming_pass

    def _has_next(self) -> bool:
        return is_ready(self._supply, self._reader.places.following)

    def _begin_share(self, worker: DataLoaderWorker, resumed: bool) -> Place:
        """Begins an epoch, of which a worker reads its share.

        Returns:
            (epoch, position) of the first batch of all workers.
        """
        self._reader.guard.run(lambda: self._begin_in_worker(worker, resumed))
        return self._reader.places.upcoming_pass

    def _begin_in_worker(self, worker: DataLoaderWorker, resumed: bool = False) -> None:
        shared = self._own_epochs()
        assert shared is not None
        first = max(self._reader.places.upcoming_pass[0], self._after_fetched)
        self._end_epochs(shared.begin(worker, first, resumed))

    def _follow_data_loader(self, request: Request) -> None:
        """Ends epochs that passes of a ``DataLoader`` have read; called under the guard."""
        if request.kind == "index":
            fetcher = fetcher_above()
            if fetcher is not None and self._fetcher != weakref.ref(fetcher):
                self._begin_pass_of(fetcher)
        elif request.kind in ("begin", "next"):
            self._end_epochs(self._after_passes())
            if request.kind == "begin":
                self._note(self._reader.places.upcoming_pass[0])

    def _for_data_loader(self, batch: Any) -> Any:
        """The batch; copied if others read it too and PyTorch makes tensors of it.

        Tensors may be changed, whatever an array allows.
        """
        return batch if fetcher_above() is None else mapped(_own, batch)

    def _begin_pass_of(self, fetcher: Any) -> None:
        worker = DataLoaderWorker.here()
        if worker is not None:
            self._begin_in_worker(worker)
        else:
            self._end_epochs(max(self._reader.places.upcoming_pass[0], self._after_passes()))
            self._note(self._reader.places.epoch)
        self._after_fetched = self._reader.places.epoch + 1
        self._fetcher = weakref.ref(fetcher)

    def _note(self, epoch: int) -> None:
        """Notes that the trainer itself begins an epoch."""
        shared = self._own_epochs()
        if shared is not None and DataLoaderWorker.here() is None:
            shared.note(epoch)

    def _after_passes(self) -> int:
        """The epoch after all passes of a ``DataLoader``."""
        return max(self._after_workers()[0], self._after_fetched)

    def _end_epochs(self, epoch: int) -> None:
        """Ends the epochs before this one, so that an index is one of this epoch."""
        while self._reader.places.epoch < epoch:
            self._prepare(Request("end"))
            self._end_epoch()


def _own(array: Any) -> Any:
    return array if array.flags.writeable else array.copy()


def fetcher_above() -> Any:
    """What reads one pass of a ``DataLoader`` by index, if that has called; else None."""
    fetch = sys.modules.get("torch.utils.data._utils.fetch")
    if fetch is None:
        return None
    code = fetch._MapDatasetFetcher.fetch.__code__
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return None if frame is None else frame.f_locals["self"]


def _share_all_epochs() -> None:
    for reference in _sequences.valuerefs():
        sequence = reference()
        if sequence is not None:
            sequence._share_epochs()


os.register_at_fork(before=_share_all_epochs)
