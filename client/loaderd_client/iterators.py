"""The base of Keras's iterators, and of those that load from a daemon.

Names, arguments, checks and words follow ``keras/src/legacy/preprocessing/image.py``.
``next`` is Keras's stream of batches at the same seed, and ``fit`` sees the same stream.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator as Iterable
from operator import is_
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.data.order import SEEDS, EpochOrder
from loaderd.errors import InvalidArgument
from loaderd.wire import spec as specs
from loaderd.wire.bundle import Parts, same_bytes
from loaderd.wire.spec import LabelMode, Order, Pipeline, Spec
from loaderd_client import arguments, bases
from loaderd_client.places import Touch
from loaderd_client.sequence import LoaderSequence

if TYPE_CHECKING:
    from loaderd_client.generator import ImageDataGenerator

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
"""What Keras's generators take for images: they look at endings, not at what the dot parts off."""


class Iterator(*bases.sequences()):  # type: ignore[misc]  # whichever Keras is in use
    """The base of Keras's iterators, for those that people write themselves.

    A subclass has ``_get_batches_of_transformed_samples(index_array)``, which makes a batch
    in the trainer itself; the iterators of this module load theirs from a daemon.

    Args:
        n: samples in an epoch.
        batch_size: samples in a batch.
        shuffle: a new order for every epoch.
        seed: seeds NumPy's global generator before each batch.
        **kwargs: Keras's own.
    """

    white_list_formats = EXTENSIONS

    def __init__(
        self, n: int, batch_size: int, shuffle: bool, seed: int | None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.n = n
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.batch_index = 0
        self.total_batches_seen = 0
        self.lock = threading.Lock()
        self.index_array: NDArray[np.int64] | None = None
        self.index_generator = self._flow_index()

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """The batch at ``index`` of this epoch's order.

        Raises:
            ValueError: there is no such index.
        """
        if index >= len(self):
            raise ValueError(_beyond(index, len(self)))
        self._seed_next()
        if self.index_array is None:
            self._set_index_array()
        assert self.index_array is not None
        first = self.batch_size * index
        return self._get_batches_of_transformed_samples(
            self.index_array[first : first + self.batch_size]
        )

    def on_epoch_end(self) -> None:
        """Makes the next epoch's order."""
        self._set_index_array()

    def reset(self) -> None:
        """``next`` begins an epoch."""
        self.batch_index = 0

    def __iter__(self) -> Any:
        """Endless: epoch after epoch."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        with self.lock:
            index_array = next(self.index_generator)
        return self._get_batches_of_transformed_samples(index_array)

    def next(self) -> Any:
        """The next batch; the same as ``next(iterator)``."""
        return self.__next__()

    def _seed_next(self) -> None:
        if self.seed is not None:
            np.random.seed(self.seed + self.total_batches_seen)
        self.total_batches_seen += 1

    def _set_index_array(self) -> None:
        self.index_array = np.random.permutation(self.n) if self.shuffle else np.arange(self.n)

    def _flow_index(self) -> Iterable[NDArray[np.int64]]:
        while True:
            self._seed_next()
            if self.batch_index == 0:
                self._set_index_array()
            assert self.index_array is not None
            first = self.batch_index * self.batch_size % max(self.n, 1)
            is_last = first + self.batch_size >= self.n
            self.batch_index = 0 if is_last else self.batch_index + 1
            yield self.index_array[first : first + self.batch_size]

    def _get_batches_of_transformed_samples(self, index_array: NDArray[np.int64]) -> Any:
        raise NotImplementedError


def _beyond(index: int, length: int) -> str:
    return f"Asked to retrieve element {index}, but the Sequence has length {length}"


_SETTABLE = (
    "batch_size",
    "cache",
    "class_mode",
    "color_mode",
    "data_format",
    "decode",
    "dtype",
    "exif",
    "interpolation",
    "keep_aspect_ratio",
    "on_error",
    "save_format",
    "save_prefix",
    "save_to_dir",
    "seed",
    "shuffle",
    "substitute_weight",
    "target_size",
)
"""Attributes of iterators that scripts may set, which count from the next batch on."""


class LoadedIterator(LoaderSequence, Iterator):
    """An iterator whose batches come from a daemon.

    A subclass has ``_spec`` and calls ``_load`` when its attributes are set.
    """

    image_data_generator: ImageDataGenerator | None
    _before: tuple[Pipeline, Parts] | None = None
    """What was sent with the same function, while it is looked at again."""
    _may_have_changed = False
    """Whether the function's state is to be looked at before the next batch."""

    def _load(self, batch_size: int, shuffle: bool, seed: int | None, max_queue_size: int) -> None:
        """Opens the stream.

        Raises:
            InvalidArgument: a subclass makes batches itself, which nobody would ask it for.
        """
        made = type(self)._get_batches_of_transformed_samples
        if made is not LoadedIterator._get_batches_of_transformed_samples:
            raise InvalidArgument(
                f"{type(self).__name__} overrides _get_batches_of_transformed_samples, but its "
                "batches are made by workers: derive it from Iterator, or give the code as "
                "preprocessing_function"
            )
        self.shuffle, self.seed = shuffle, arguments.seed(seed)
        self.batch_size = batch_size = arguments.whole("batch_size", batch_size)
        spec, parts = self._spec()
        LoaderSequence.__init__(self, spec, max_queue_size=max_queue_size, parts=parts)
        self.batch_size = batch_size
        self.lock = threading.Lock()
        self.total_batches_seen = 0
        self._seed = self.seed
        self._number_epochs()
        self._seen = self._look()

    def _spec(self) -> tuple[Spec, Parts]:
        raise NotImplementedError

    def _order(self) -> Order:
        self.seed = arguments.seed(self.seed)
        shuffle = arguments.flag("shuffle", self.shuffle)
        return Order(shuffle=shuffle, seed=self.seed, draws="batch")

    def _batch(self, label_mode: LabelMode) -> specs.Batch:
        return specs.Batch(
            batch_size=arguments.whole("batch_size", self.batch_size), label_mode=label_mode
        )

    def _number_epochs(self) -> None:
        order = msgspec.structs.replace(self._order(), seed=(self.seed + self._left) % SEEDS)
        self._epochs = EpochOrder(order, self.n, self.batch_size)
        self._indices: tuple[int, NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    @property
    def batch_index(self) -> int:
        """The index that ``next`` reads next."""
        return self._cursor

    @batch_index.setter
    def batch_index(self, value: int) -> None:
        self._cursor = value

    @property
    def index_array(self) -> NDArray[np.int64] | None:  # type: ignore[override]  # read-only
        """The samples of this epoch, in order; None before the first batch."""
        if not self.total_batches_seen:
            return None
        epochs, epoch = self._epochs, self._places.epoch
        if self._indices is None or self._indices[0] != epoch:
            ids = [epochs.ids(epoch, position) for position in range(epochs.batches)]
            self._indices = (epoch, np.concatenate(ids).astype(np.int64))
        return self._indices[1]

    def __iter__(self) -> Any:
        """Endless: epoch after epoch."""
        return self

    def reset(self) -> None:
        """``next`` begins an epoch.

        In mid-epoch that is another epoch, as in Keras: its order and its parameters are
        drawn from the number of its first batch. Where nothing is random it is the same one.
        """
        if self._cursor and (self.shuffle or self.spec.pipeline.is_random):
            with self._lock:
                self._begin_again()
                self._number_epochs()
        self._may_have_changed = True
        super().reset()

    def _touch(self, index: int) -> Touch:
        touch = super()._touch(index)
        self.total_batches_seen += 1
        return touch

    def _get_batches_of_transformed_samples(self, index_array: Any) -> Any:
        raise NotImplementedError(
            "batches are made by workers: take them by next(iterator) or iterator[i]"
        )

    def _refresh(self) -> None:
        """Scripts set attributes, of iterators and generators, and fit generators, at any time."""
        seen = self._look()
        same = len(seen) == len(self._seen) and all(map(is_, seen, self._seen))
        if same and not self._begins_epoch():
            return
        self._before = (self.spec.pipeline, self._parts) if same else None
        spec, parts = self._spec()
        self._seen = seen  # not before: what is not allowed is told again, until it is mended
        if not _same(spec, self.spec, self._seed) or not _equal(parts, self._parts):
            self._follow(spec, parts)

    def _begins_epoch(self) -> bool:
        """Whether what is held by the generator and its function may have been changed.

        In Keras a change counts at once. Looking takes longer than a batch should wait, so
        it counts from the next epoch on.
        """
        told, self._may_have_changed = self._may_have_changed, False
        return told or self._places.between_epochs

    def on_epoch_end(self) -> None:
        """Keras's word that an epoch is over; it may come early, often or never."""
        self._may_have_changed = True
        super().on_epoch_end()

    def _follow(self, spec: Spec, parts: Parts) -> None:
        """The next batch is made as the spec says; with another order, it begins an epoch."""
        old = msgspec.structs.replace(self.spec.order, seed=self._seed)
        begins = (old, self.spec.batch.batch_size) != (spec.order, spec.batch.batch_size)
        self._change(spec, parts)
        if begins:
            self._seed = self.seed
            self._begin_again()
            self._number_epochs()
            self._cursor = 0

    def _look(self) -> list[Any]:
        """What decides about batches, and may have been set."""
        generator = self.image_data_generator
        own = [getattr(self, name, None) for name in _SETTABLE]
        return own if generator is None else [*own, *vars(generator).values()]


def _same(spec: Spec, other: Spec, seed: int) -> bool:
    order = msgspec.structs.replace(other.order, seed=seed)
    return spec == msgspec.structs.replace(other, order=order)


def _equal(parts: Parts, others: Parts) -> bool:
    """Whether these are the parts of a bundle that we have; its manifest may be beside them."""
    if parts.keys() | {"manifest"} != others.keys() | {"manifest"}:
        return False
    return all(
        part is others[name] or same_bytes(part, others[name]) for name, part in parts.items()
    )
