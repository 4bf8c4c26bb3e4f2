"""A stream as Keras wants it: indices, a length, and the ends of epochs."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from operator import index as whole
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import LoaderdError
from loaderd.ipc.bundle import Parts
from loaderd.ipc.prefetch import Place
from loaderd.ipc.text import printable
from loaderd.spec.spec import Spec
from loaderd_client.core import session as sessions
from loaderd_client.core.guard import Caller, Guard
from loaderd_client.core.session import Session
from loaderd_client.core.stream import Batch
from loaderd_client.core.supply import Superseded, Supply
from loaderd_client.keras import adapter, history
from loaderd_client.keras.batch_index import Places

Claimed = tuple[Places, Place]

_OWN = ("_early_ends", "_guard", "_history", "_index_generator", "_issued", "lock")
"""Attributes that no copy has from its original."""
_MOVING = ("_places", "_segment", "_standard", "_applied")
"""Attributes that say where a sequence is."""

RING_EXTRA = 2
"""Slots beyond ``max_queue_size``: those that Keras holds while the queue is full."""


class LoaderSequence(*adapter.sequences()):  # type: ignore[misc]  # whichever Keras is in use
    """Batches from a daemon, for ``model.fit``, ``evaluate`` and ``predict``.

    ``sequence[i]`` is (images, labels), or images alone without labels, or (images, labels,
    weights) where substitutes for bad images have a weight of their own: NumPy arrays
    that lie in shared memory and may be changed in place; their slot is used again when
    the last of them has died.

    When the daemon goes away, a sequence waits for it (``Session.reconnect_timeout``) and goes
    on with exactly the batches that are left.

    Index i is batch i of the present epoch, whoever asks for it and in whatever order; read
    again, it has the same samples and other random parameters, and ``on_epoch_end`` ends the
    epoch. Keras's own passes (``fit``), and loops over the sequence, read a whole epoch each; in
    those of a shuffled sequence the batches come in their own order, whatever the order of the
    indices. ``workers``, ``use_multiprocessing`` and ``max_queue_size`` are Keras's
    (``keras.utils.PyDataset``); the daemon renders in parallel whatever they are, and
    ``max_queue_size`` sets how many batches it keeps ready.

    Args:
        spec: what the batches are.
        session: where they come from; None takes the innermost open session.
        max_queue_size: batches that the daemon keeps ready.
        parts: arrays that the spec means, by name (see ``loaderd.ipc.bundle``).

    Attributes:
        n: samples in an epoch (also ``samples``).
        batch_size: samples in a batch.
        seed: decides order and augmentation; picked if it was None.
        shuffle: whether every epoch has a new order.
        classes: int32 (n,), the class of every sample (also ``labels``).
        class_names: names of the classes in label order; None without labels.
        class_indices: class name → class.
        num_classes: number of classes.
        directory: the folder that was listed.

    Raises:
        DatasetNotFound: the directory is missing.
        EmptyDataset: it holds no image.
        NoRoom: the ring does not fit.
    """

    def __init__(
        self,
        spec: Spec,
        session: Session | None = None,
        max_queue_size: int = 10,
        parts: Parts | None = None,
    ) -> None:
        self.max_queue_size = max_queue_size
        self.spec = spec
        self._guard = Guard()
        self._history = history.of_environment()
        # Of pictures that are saved there shall be as many as were taken, and no more.
        ahead = spec.output.save is None
        slots = max_queue_size + RING_EXTRA
        self._supply = Supply(spec, parts or {}, session or sessions.current(), slots, ahead)
        manifest = self._supply.manifest
        self.n = self.samples = len(manifest)
        self.batch_size = spec.batch.batch_size
        self.seed: Any = self._supply.spec.order.seed
        self.shuffle = spec.order.shuffle
        self.directory: Any = manifest.root
        self.class_names: Any = list(manifest.class_names) or None
        self.class_indices = {name: index for index, name in enumerate(manifest.class_names)}
        self.num_classes = len(manifest.class_names)
        self.target_size = spec.load.target_size
        self.color_mode = spec.load.color_mode
        self.dtype: Any = spec.output.dtype
        self.interpolation = spec.load.interpolation
        self._places = self._first_places()
        self._early_ends: dict[int | None, int] = {}  # enqueuer → epochs that it has ended

    def _first_places(self) -> Places:
        return Places(len(self), self.spec.order.shuffle)

    @property
    def max_queue_size(self) -> int:
        """Batches that the daemon keeps ready; set when the sequence is made."""
        return self._max_queue_size

    @max_queue_size.setter
    def max_queue_size(self, value: int) -> None:
        self._max_queue_size = value

    @property
    def workers(self) -> int:
        """Always 1, whatever is assigned: the workers are the daemon's.

        Above 1 Keras would put threads or forked processes of its own in between
        (``OrderedEnqueuer``), which render nothing here, and which on JAX and torch leave
        batches of an abandoned pass in a queue, to be trained on in the next one.
        """
        return 1

    @workers.setter
    def workers(self, value: int) -> None:
        del value

    @property
    def use_multiprocessing(self) -> bool:
        """Always False, whatever is assigned; see ``workers``."""
        return False

    @use_multiprocessing.setter
    def use_multiprocessing(self, value: bool) -> None:
        del value

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image, in its data format."""
        return self.spec.image_shape

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class of every sample, int32 (n,)."""
        return self._supply.manifest.labels

    @property
    def labels(self) -> Any:
        """The same as ``classes``."""
        return self.classes

    @cached_property
    def filenames(self) -> list[str]:
        """Every sample's path below ``directory``, in the order of ``classes``."""
        return self._supply.manifest.filenames()

    @cached_property
    def filepaths(self) -> list[str]:
        """Every sample's path, in the order of ``classes``."""
        return [os.path.join(self.directory, name) for name in self.filenames]

    @property
    def file_paths(self) -> list[str]:
        """``filepaths`` under the name that ``image_dataset_from_directory`` gives it."""
        return self.filepaths

    def __len__(self) -> int:
        return self._supply.batches

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.n} images in {len(self)} batches{self._origin()}>"

    def _origin(self) -> str:
        """What the images are, behind their number."""
        classes = f", {self.num_classes} classes" if self.num_classes else ""
        return f"{classes}, of {printable(os.fsdecode(self.directory))}"

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes: the same batches from here on, by another stream."""
        state = {name: value for name, value in vars(self).items() if name not in _OWN}
        # Together, as they mean one another, and not the original's.
        moving = {name: state[name] for name in _MOVING if name in state}
        return state | copy.deepcopy(moving)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See ``__getstate__``."""
        self.__dict__.update(state)
        self._guard = Guard()
        self._early_ends = {}
        self._history = history.of_environment()

    # -- epochs ----------------------------------------------------------------------

    @property
    def num_batches(self) -> int:
        """Batches in an epoch. Keras's passes begin by reading this."""
        frame = sys._getframe(1)
        if adapter.reading(frame) == "pass":
            self._begin_pass(id(frame))
        return len(self)

    def on_epoch_end(self) -> None:
        """Ends the epoch; Keras's own calls may come early, often or never, and it bears them."""
        me, end = Caller(), adapter.epoch_end(sys._getframe(1))
        self._guard.enter(me)
        self._heed_epoch_end()
        if end.enqueuer is not None:
            self._end_enqueued(end)
        elif end.reads == "index":
            self._end_epoch()
        else:
            self._places.end_pass()
        self._guard.give_back()

    def _end_enqueued(self, end: adapter.EpochEnd) -> None:
        """Ends an epoch that is read through an enqueuer of Keras 2.

        The enqueuer says so when all of it was handed out, and reads ahead of ``fit`` into the
        next one; ``fit`` says so when it is through, mostly later, but if its steps are short it
        stops the enqueuer first. Whichever it was, the next epoch is read from its beginning.
        """
        early = self._early_ends.get(end.enqueuer, 0)
        if end.steps is None:
            self._early_ends[end.enqueuer] = early + 1
            self._end_epoch()
            return
        self._early_ends.pop(end.enqueuer, None)
        due = max(1, -(-end.steps // len(self)))
        for _ in range(due - early):
            self._end_epoch()
        self._places.begin_again(max(0, early - due))

    def __iter__(self) -> Iterator[Any]:
        """One pass over an epoch, each time a new one."""
        key = object()
        self._begin_pass(key, anew=True)
        for index in range(len(self)):
            yield self._read_in_pass(key, index)

    def _begin_pass(self, key: object, anew: bool = False) -> None:
        me = Caller()
        self._guard.enter(me)
        self._follow()
        self._prepare_pass()
        self._places.begin_pass(key, anew=anew)
        self._guard.give_back()

    def reset(self) -> None:
        """``next`` goes on with the first index."""
        self._places.position = 0

    # -- batches ---------------------------------------------------------------------

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
        me, frame, index = Caller(), sys._getframe(1), self._checked(index)
        reads = adapter.reading(frame)
        if reads == "pass":
            return self._read_in_pass(id(frame), index)
        if reads == "look":
            return self._delivered(lambda: self._claim(me, lambda: self._places.peek(index)), me)
        return self._delivered(lambda: self._claim_index(index, me), me)

    def fetch(self, index: int) -> Batch:
        """The batch at ``index``, with its sample numbers and its place.

        Raises:
            ValueError: there is no such index.
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
        """
        me, index = Caller(), self._checked(index)
        while True:
            places, place = self._claim_index(index, me)
            try:
                batch = self._fetched(places, place, me)
            except Superseded:
                continue
            places.done(place)
            return batch

    def __next__(self) -> Any:
        """The next batch, endlessly: after the last of an epoch comes the next epoch's first."""
        me = Caller()
        return self._delivered(lambda: self._claim_next(me), me)

    def _read_in_pass(self, key: object, index: int) -> Any:
        me = Caller()
        claim = lambda: self._claim(me, lambda: self._places.read_pass(key, index))  # noqa: E731
        return self._delivered(claim, me)

    def _claim_next(self, me: Caller) -> Claimed:
        return self._claim(me, lambda: self._places.next(me), self._prepare_next)

    def _claim_index(self, index: int, me: Caller) -> Claimed:
        prepare = lambda: self._prepare_index(index)  # noqa: E731
        return self._claim(me, lambda: self._places.read(index, me), prepare)

    def _claim(
        self, me: Caller, choose: Callable[[], Place], prepare: Callable[[], None] | None = None
    ) -> Claimed:
        """The batch that is meant, and what gave it a meaning."""
        self._guard.enter(me)
        self._follow()
        if prepare is not None:
            prepare()
        claimed = self._places, choose()
        self._guard.give_back()
        return claimed

    def _checked(self, index: int) -> int:
        length, asked = len(self), whole(index)
        if not -length <= asked < length:
            raise ValueError(
                f"Asked to retrieve element {index}, but the Sequence has length {length}"
            )
        return asked % length

    def _delivered(self, claim: Callable[[], Claimed], me: Caller) -> Any:
        """The batch that is claimed as Keras wants it; from then on it counts as delivered."""
        while True:
            places, place = claim()
            try:
                result = self._made(places, place, me)
            except Superseded:
                continue  # another thread has reset or changed the sequence meanwhile
            places.done(place)
            return result

    def _made(self, places: Places, place: Place, me: Caller) -> Any:
        return self._assembled(self._fetched(places, place, me))

    def _fetched(self, places: Places, place: Place, me: Caller) -> Batch:
        try:
            batch = self._supply.fetch(place, me, lambda: places is self._places)
        except LoaderdError:
            if not self._supply.ended:  # the batch is to blame: it is not asked for again
                places.done(place)
            raise
        if self._history is not None:
            self._history.note(batch, self._seeded(), self._supply.parts, len(self))
        return batch

    def _seeded(self) -> Spec:
        return msgspec.structs.replace(self.spec, order=self._supply.spec.order)

    def _assembled(self, batch: Batch) -> Any:
        """A batch as Keras wants it."""
        if batch.labels is None:
            return batch.images
        if batch.weights is None:
            return batch.images, batch.labels
        return batch.images, batch.labels, batch.weights

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        self._supply.close()

    # -- what iterators have to do besides, within the guard -------------------------

    def _follow(self) -> None:
        """Follows what was set since the last batch."""

    def _prepare_next(self) -> None:
        """Before ``next``."""

    def _prepare_index(self, index: int) -> None:
        """Before an index is read."""

    def _prepare_pass(self) -> None:
        """Before a pass."""

    def _heed_epoch_end(self) -> None:
        """Before whoever says that an epoch is over is heard."""

    def _end_epoch(self) -> None:
        self._places.end_epoch()
