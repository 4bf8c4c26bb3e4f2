"""A stream as Keras wants it: indices, a length, and the ends of epochs."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.data.order import SEEDS
from loaderd.errors import DaemonError, DaemonGone, Draining, StreamClosed
from loaderd.wire.bundle import Bundle, Parts
from loaderd.wire.messages import Place
from loaderd.wire.spec import Dataset, Files, Spec
from loaderd_client import bases, forks, history
from loaderd_client import session as sessions
from loaderd_client.patience import Patience
from loaderd_client.places import Places, Touch
from loaderd_client.session import Session
from loaderd_client.stream import Batch, Stream

RING_EXTRA = 2
"""Slots beyond ``max_queue_size``: those that Keras holds while the queue is full."""


@dataclass(slots=True)
class _Request:
    """One batch on its way to the trainer.

    Attributes:
        index: what was asked for.
        places: what gave it a meaning.
        touch: what it means.
    """

    index: int
    places: Places
    touch: Touch


class LoaderSequence(*bases.sequences()):  # type: ignore[misc]  # whichever Keras is in use
    """Batches from a daemon, for ``model.fit``, ``evaluate`` and ``predict``.

    ``sequence[i]`` is (images, labels), or images alone without labels, or (images, labels,
    weights) where substitutes for bad images have a weight of their own: NumPy arrays
    that lie in shared memory and may be changed in place; their slot is used again when
    the last of them has died.

    When the daemon goes away, a sequence waits for it (``Session.reconnect_timeout``) and goes
    on with exactly the batches that are left.

    In a shuffled sequence the batches of an epoch are exchangeable: the first touch of an
    index binds it to the next batch for the rest of the epoch. In an unshuffled one index
    i is batch i. ``workers``, ``use_multiprocessing`` and ``max_queue_size`` are Keras's
    (``keras.utils.PyDataset``); the daemon renders in parallel whatever they are, and
    ``max_queue_size`` sets how many batches it keeps ready.

    Args:
        spec: what the batches are.
        session: where they come from; None takes the innermost open session.
        max_queue_size: batches that the daemon keeps ready.
        parts: arrays that the spec means, by name (see ``loaderd.wire.bundle``).

    Attributes:
        n: samples in an epoch (also ``samples``).
        batch_size: samples in a batch.
        seed: decides order and augmentation; picked if it was None.
        shuffle: whether every epoch has a new order.
        classes: int32 (n,), the class of every sample (also ``labels``).
        class_names: names of the classes in label order.
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
        self._session = session or sessions.current()
        self._slots = max_queue_size + RING_EXTRA
        self._bundle = Bundle(parts) if parts else None
        self._stream = self._session.open(spec, self._slots, bundle=self._bundle)
        self._renew_locks()
        forks.renew_in_child(self)
        self._era = object()
        self._history = history.of_environment()
        self._owed: list[_Request] = []
        self._pid = os.getpid()
        self._toucher: int | None = None
        self._handed_over_in: int | None = None
        self._forks = forks.count()
        self._closed = False
        self._cursor = 0
        self._left = 0  # batches of the runs before the last reset
        manifest = self._stream.manifest
        self.n = self.samples = len(manifest)
        self.batch_size = spec.batch.batch_size
        self.seed: Any = self._stream.seed
        self.shuffle = spec.order.shuffle
        self.directory: Any = manifest.root
        self.class_names = list(manifest.class_names)
        self.class_indices = {name: index for index, name in enumerate(self.class_names)}
        self.num_classes = len(self.class_names)
        self.target_size = spec.pipeline.target_size
        self.color_mode = spec.pipeline.color_mode
        self.dtype: Any = spec.pipeline.dtype
        self.interpolation = spec.pipeline.interpolation
        self._places = self._first_places()

    def _renew_locks(self) -> None:
        """Whoever holds both has taken ``_opening`` first, which may be held for long."""
        self._lock = threading.Lock()
        self._opening = threading.Lock()

    def _first_places(self) -> Places:
        return Places(len(self), self.spec.order.shuffle, ends_told=bases.has_keras2())

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
        return self.spec.pipeline.image_shape

    @property
    def classes(self) -> NDArray[np.int32]:
        """The class of every sample, int32 (n,)."""
        return self._stream.manifest.labels

    @property
    def labels(self) -> Any:
        """The same as ``classes``."""
        return self.classes

    @cached_property
    def filenames(self) -> list[str]:
        """Every sample's path below ``directory``, in the order of ``classes``."""
        return self._stream.manifest.filenames()

    @cached_property
    def filepaths(self) -> list[str]:
        """Every sample's path, in the order of ``classes``."""
        return [os.path.join(self.directory, name) for name in self.filenames]

    @property
    def file_paths(self) -> list[str]:
        """``filepaths`` under the name that ``image_dataset_from_directory`` gives it."""
        return self.filepaths

    def __len__(self) -> int:
        return self._stream.batches

    @property
    def num_batches(self) -> int:
        """Batches in an epoch.

        Keras reads this when a pass over the indices begins, and nothing else tells it:
        so reading it begins a pass (see :mod:`loaderd_client.places`). Ask ``len``.
        """
        with self._lock:
            self._refresh()
            self._places.begin_pass()
        return len(self)

    def on_epoch_end(self) -> None:
        """Keras's word that an epoch is over; it may come early, often or never."""
        with self._lock:
            if self._was_served_by_children():
                self._forks = forks.count()
                self._places.advance()
            else:
                self._places.end_epoch()

    def _was_served_by_children(self) -> bool:
        """Whether the epoch was read by forked children (Keras 2's ``use_multiprocessing``).

        We see forks, one touch at the most (Keras 2 looks at the first batch), and then the
        end of the epoch: twice, from ``fit``'s thread and from that of Keras's queue, which
        by then may have forked for another epoch. ``fit``'s is the thread that had the look.
        """
        return (
            forks.count() != self._forks
            and self._places.hardly_touched
            and self._toucher in (None, threading.get_ident())
        )

    def __next__(self) -> Any:
        """The next batch, endlessly: after the last of an epoch comes the next epoch's first."""
        with self._lock:
            self._follow_all()
            request = self._next_request()
        try:
            return self._assembled(self._deliver(request))
        except BaseException:
            with self._lock:
                if self._stream.ended:  # the batch is not to blame
                    self._owed.append(request)
            raise

    def _next_request(self) -> _Request:
        """What an earlier call could not have, before anything new."""
        if self._owed:
            first = min(self._owed, key=lambda request: request.touch.place)
            self._owed.remove(first)
            return first
        index = self._cursor
        self._cursor = (index + 1) % len(self)
        return self._request(index)

    def reset(self) -> None:
        """``next`` goes on with the first index."""
        self._owed.clear()
        self._cursor = 0

    def __repr__(self) -> str:
        return (
            f"<LoaderSequence: {self.n} images, {self.num_classes} classes, "
            f"{len(self)} batches of {self.directory}>"
        )

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
        return self._assembled(self.fetch(index))

    def _assembled(self, batch: Batch) -> Any:
        """A batch as Keras wants it."""
        if batch.labels is None:
            return batch.images
        if batch.weights is None:
            return batch.images, batch.labels
        return batch.images, batch.labels, batch.weights

    def fetch(self, index: int) -> Batch:
        """The batch at ``index``, with its sample numbers and its place.

        Raises:
            ValueError: there is no such index.
            BadImage: a file of the batch could not be read.
            DaemonGone: the daemon went away, and did not come back in time.
        """
        length = len(self)
        if not -length <= index < length:
            raise ValueError(
                f"Asked to retrieve element {index}, but the Sequence has length {length}"
            )
        with self._lock:
            self._follow_all()
            request = self._request(index % length)
        try:
            return self._deliver(request)
        except BaseException:
            with self._lock:
                if self._stream.ended:  # the batch is not to blame
                    request.places.untouch(request.index, request.touch.place)
            raise

    def _follow_all(self) -> None:
        """Follows what has happened to the sequence since the last batch."""
        self._refresh()
        if os.getpid() != self._pid:
            self._move_to_child()

    def _request(self, index: int) -> _Request:
        return _Request(index, self._places, self._touch(index))

    def _deliver(self, request: _Request) -> Batch:
        """Takes the batch, from another stream if this one ends."""
        left: Patience | None = None
        while True:
            if self._stream.ended:
                self._stream.check()
                left = left or Patience(self._session.reconnect_timeout)
                self._open_if_ended(request.touch.place, left)
            stream = self._stream_for(request)
            try:
                return self._noted(stream.take(request.touch.place, restart=request.touch.restart))
            except StreamClosed:
                if self._closed:
                    raise
            except (DaemonGone, Draining) as error:
                left = self._lose_patience(left, error)

    def _lose_patience(self, left: Patience | None, error: DaemonError) -> Patience:
        """The first loss costs no wait; a daemon that is lost again and again is waited for."""
        if left is None:
            return Patience(self._session.reconnect_timeout)
        self._session.wait(left, error)
        return left

    def _stream_for(self, request: _Request) -> Stream:
        """Another thread may have reset the sequence: then the index means another batch."""
        with self._lock:
            if request.places is not self._places:
                request.places, request.touch = self._places, self._touch(request.index)
            return self._stream

    def _noted(self, batch: Batch) -> Batch:
        if self._history is not None:
            self._history.note(batch, self._seeded(), self._parts, len(self))
        return batch

    def _refresh(self) -> None:
        """Follows what was set since the last batch; there is nothing to set here."""

    def _touch(self, index: int) -> Touch:
        here = threading.get_ident()
        if self._toucher not in (None, here):
            self._handed_over_in = self._places.epoch
        touch = self._places.touch(index, alone=self._handed_over_in != self._places.epoch)
        self._toucher = here
        return touch

    def _open_if_ended(self, place: Place, left: Patience) -> None:
        """Of several threads that miss their stream, one opens another and the rest wait."""
        with self._opening:
            while self._stream.ended and not self._closed:
                with self._lock:
                    era, spec, bundle = self._era, self._again(), self._bundle
                start = place if self._slots else None
                lost = self._stream.lost
                self._stream.let_go()  # the new ring may need the room of the old one
                stream = self._session.reopen(spec, self._slots, start, bundle, left, lost=lost)
                if stream is not None:
                    self._adopt(stream, era)

    def _adopt(self, stream: Stream, era: object) -> None:
        with self._lock:
            if era is self._era and not self._closed:
                self._stream = stream
            else:  # another thread has reset, changed or closed the sequence meanwhile
                stream.close()

    def _again(self) -> Spec:
        """The same samples again: a batch is a pure function of its place.

        They are not listed again: what was found once is what the epochs are made of,
        whatever has become of the folder.
        """
        spec = self._seeded()
        if not isinstance(spec.dataset, Dataset):
            return spec
        if "manifest" not in self._parts:
            table = np.frombuffer(self._stream.manifest.table, np.uint8)
            self._bundle = Bundle({**self._parts, "manifest": table})
        return msgspec.structs.replace(spec, dataset=Files(spec.dataset.directory))

    def _seeded(self) -> Spec:
        """The spec with the seed that counts."""
        seed = (self.seed + self._left) % SEEDS if self._left else self.seed
        order = msgspec.structs.replace(self.spec.order, seed=seed)
        return msgspec.structs.replace(self.spec, order=order)

    @property
    def _parts(self) -> Parts:
        return self._bundle.parts if self._bundle else {}

    def _change(self, spec: Spec, parts: Parts) -> None:
        """Goes on with the same samples in the same order, made in another way."""
        self.spec = spec
        self._bundle = Bundle(parts) if parts else None
        self._era = object()
        self._stream.close()

    def _begin_again(self) -> None:
        """Ends the run of batches; the next begins an epoch, with the next batch's number."""
        self._left += self._places.drawn
        self._places = self._first_places()
        self._owed.clear()
        self._era = object()
        self._stream.close()

    def _move_to_child(self) -> None:
        """In a forked child: an index means what it means to all, whoever of them is asked.

        The parent's stream counts as ended here. Other children ask for other indices, so
        nothing is made that was not asked for.
        """
        self._slots = 0
        self._places = self._places.settled()
        self._owed.clear()  # those are the parent's
        self._pid = os.getpid()

    def close(self) -> None:
        """Ends the stream. Arrays that were handed out stay valid."""
        self._closed = True
        self._stream.close()
        self._bundle = None
