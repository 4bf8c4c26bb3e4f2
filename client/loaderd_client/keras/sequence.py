"""``LoaderSequence``: a stream with Keras's interface."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from operator import index as whole
from typing import Any

from loaderd.ipc.bundle import Parts
from loaderd.ipc.prefetch import Place
from loaderd.spec.spec import Spec
from loaderd_client.core import session as sessions
from loaderd_client.core.batch import Batch
from loaderd_client.core.guard import Caller
from loaderd_client.core.session import Session
from loaderd_client.core.shared_supply import Sharing, supply_of
from loaderd_client.keras import adapter
from loaderd_client.keras.batch_index import PassKind, Places
from loaderd_client.keras.functions import ListedFunctions
from loaderd_client.keras.hand_over import HandOver
from loaderd_client.keras.keras_class import KerasSequence
from loaderd_client.keras.preview import Preview
from loaderd_client.keras.reader import Request
from loaderd_client.keras.resumable import Resumable

_OWN = ("_digest", "_fetcher", "_index_generator", "_issued", "lock")
"""Attributes that are not copied."""
_MOVING = ("_reader", "_segments", "_worker_epochs")
"""Attributes with the position of a sequence."""

RING_EXTRA = 2
"""Slots beyond ``max_queue_size``, for the batches that Keras holds while its queue is full."""


class LoaderSequence(Resumable, HandOver, Preview, adapter.OneWorker, KerasSequence):
    """Batches from a daemon, for ``model.fit``, ``evaluate`` and ``predict``.

    ``sequence[i]`` is (images, labels); images alone if there are no labels; or (images, labels,
    weights) if substitutes for bad images have a weight of their own. These are NumPy arrays in
    shared memory, which may be changed in place. Their slot is used again when the last of them is
    freed.

    Index i is batch i of the present epoch, in whatever order indices are read. Read again, it has
    the same samples and other random parameters. ``on_epoch_end`` ends the epoch. Keras's own
    passes (``fit``), and loops over the sequence, read a whole epoch each; in those of a shuffled
    sequence the batches come in their own order, whatever the order of the indices.
    ``next(sequence)`` gives batch after batch, over the ends of epochs.

    When the daemon goes away, a sequence waits for it (``Session.reconnect_timeout``), and goes on
    with exactly the batches that are left.

    Args:
        spec: what the batches are, with everything that decides their bytes.
        session: where they come from; None takes the innermost open session, and opens one if there
            is none.
        max_queue_size: batches that the daemon keeps ready.
        parts: arrays that the spec refers to, by name (see ``loaderd.ipc.bundle``).
        functions: the user's functions that ``spec.code`` names; state of theirs that has changed
            is sent with the next epoch.
        sharing: the stream that it shares with other trainers; its arrays are read-only.

    Raises:
        DatasetNotFound: the directory is missing (also a ``FileNotFoundError``).
        EmptyDataset: it holds no image (also a ``ValueError``).
        InvalidArgument: a stream of that name is open, and has other batches.
        NoRoom: the ring does not fit in shared memory (also a ``MemoryError``).
    """

    def __init__(
        self,
        spec: Spec,
        session: Session | None = None,
        max_queue_size: int = 10,
        parts: Parts | None = None,
        functions: Sequence[Callable[..., Any]] = (),
        sharing: Sharing | None = None,
    ) -> None:
        self.max_queue_size = max_queue_size
        slots, session = max_queue_size + RING_EXTRA, session or sessions.current()
        self._supply = supply_of(spec, parts or {}, session, slots, sharing)
        self.spec = self._supply.seeded(spec)
        self._read()
        self._functions = ListedFunctions(functions)

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy, also in another process: it continues from the same position."""
        self._share_epochs()
        state = {name: value for name, value in vars(self).items() if name not in _OWN}
        # Copied together, as they refer to one another; the supply is shared.
        moving = {name: state[name] for name in _MOVING if name in state}
        return state | copy.deepcopy(moving, {id(self._supply): self._supply})

    @property
    def _places(self) -> Places:
        return self._reader.places

    @property
    def num_batches(self) -> int:
        """Batches in an epoch. Keras reads this to begin a pass over the indices.

        Reading it begins a pass, so use ``len(sequence)`` for the length.
        """
        frame = sys._getframe(1)
        if adapter.reading(frame, self.spec.order.shard) == "pass":
            return self._reader.begin_pass(id(frame), self, adapter.kind_of_pass(frame))
        return len(self)

    def on_epoch_end(self) -> None:
        """Ends the epoch of reads by index. Keras may call it early, often or never."""
        self._reader.end_epoch(adapter.epoch_end(sys._getframe(1)), self)

    def __iter__(self) -> Iterator[Any]:
        """One pass over an epoch, each time a new one."""
        key = object()
        self._reader.begin_pass(key, self, PassKind(anew=True))
        for _ in range(len(self)):
            if self._places.left(key):
                yield self._deliver(Request("pass", None, key))

    _one_epoch = __iter__  # of iterators, too, whose ``iter()`` is endless

    def reset(self) -> None:
        """Makes ``next`` continue with the first index."""
        self._places.position = 0

    def __getitem__(self, index: int) -> Any:
        """(images, labels) at ``index``, or images alone where there are no labels.

        Returns:
            images of shape (rows, height, width, channels) and the stream's dtype; labels
            by ``class_mode`` or ``label_mode``, one row for each image.

        Raises:
            ValueError: there is no such index.
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
        """
        frame, index = sys._getframe(1), _position(index, len(self))
        reads = adapter.reading(frame, self.spec.order.shard)
        return self._for_data_loader(self._deliver(Request(reads, index, id(frame))))

    def fetch(self, index: int) -> Batch:
        """Returns the batch at ``index`` with its sample numbers and its place.

        Args:
            index: number of the batch in its epoch; negative numbers count from the end.

        Returns:
            The batch; its ``ids`` count in the order of ``filenames``, and a substitute has its
            own.

        Raises:
            ValueError: the index is outside of the epoch.
            BadImage: a file of the batch cannot be read.
            DaemonGone: the daemon went away, and did not come back in time.
        """
        request = Request("index", _position(index, len(self)))
        return self._reader.deliver(request, self, self._fetched)

    def __next__(self) -> Any:
        """The next batch, endlessly: after the last of an epoch comes the next epoch's first."""
        return self._deliver(Request("next"))

    def _look(self, index: int) -> Batch:
        return self._reader.deliver(Request("look", index), self, self._fetched)

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        self._supply.close()

    def _deliver(self, request: Request) -> Any:
        return self._reader.deliver(request, self, self._made)

    # -- overridden by iterators -----------------------------------------------------

    def _prepare(self, request: Request) -> None:
        """Applies what has changed since the last request; called under the guard."""
        self._follow_data_loader(request)
        if request.kind == "end":
            self._functions.may_have_changed = True
        elif self._functions.are_due(self._places.between_epochs):
            changed = self._functions.changed(self.spec, self._supply.parts)
            if changed is not None:
                self.spec, parts = changed
                self._supply.change(self.spec, parts)

    def _end_epoch(self) -> None:
        self._places.end_epoch()

    def _fetched(self, places: Places, place: Place, me: Caller) -> Batch:
        return self._reader.fetch(places, place, me)

    def _made(self, places: Places, place: Place, me: Caller) -> Any:
        return self._assembled(self._fetched(places, place, me))

    def _assembled(self, batch: Batch) -> Any:
        """A batch in Keras's form."""
        return batch.images if batch.labels is None else batch.labelled


def _position(index: int, length: int) -> int:
    """An index from 0; negative ones count from the end, as in a list."""
    asked = whole(index)
    if not -length <= asked < length:
        raise ValueError(f"Asked to retrieve element {index}, but the Sequence has length {length}")
    return asked % length
