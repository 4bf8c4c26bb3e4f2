"""The base of Keras's iterators, and of those that load from a daemon.

Names, arguments, checks and messages follow ``keras/src/legacy/preprocessing/image.py``.
``next`` and ``fit`` give the same batches as Keras's iterators at the same seed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator as Iterable
from operator import is_
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import NoSuchSample, StateError
from loaderd.ipc.bundle import Parts, same_bytes
from loaderd.ipc.prefetch import Place
from loaderd.sampling.epoch_layout import EpochLayout
from loaderd.sampling.order import SEEDS
from loaderd.spec.base import LabelMode
from loaderd.spec.output import Batching, Order
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments
from loaderd_client.core.batch import Batch
from loaderd_client.core.guard import Caller
from loaderd_client.core.supply import Supply
from loaderd_client.keras import pil_settings
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.batch_index import Places
from loaderd_client.keras.functions import PackedFunction
from loaderd_client.keras.keras_class import KerasSequence
from loaderd_client.keras.loading import Loading
from loaderd_client.keras.ordered import OrderedSequence
from loaderd_client.keras.reader import Reader
from loaderd_client.keras.segments import Issued, Segment, Segments, within

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
"""The ends of names that Keras's generators take for images, with or without a dot."""


class Iterator(KerasSequence):
    """The base of Keras's iterators, for subclasses in user code.

    A subclass has ``_get_batches_of_transformed_samples(index_array)``, which makes a batch in the
    trainer; a ``LoadedIterator`` loads it from a daemon.

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
        return EpochLayout(self.n, self.batch_size).batches

    def __getitem__(self, index: int) -> Any:
        """The batch at ``index`` of this epoch's order.

        Raises:
            ValueError: there is no such index.
        """
        if index >= len(self):
            raise ValueError(
                f"Asked to retrieve element {index}, but the Sequence has length {len(self)}"
            )
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


_SETTABLE = (
    *Loading._fields,
    "batch_size",
    "class_mode",
    "color_mode",
    "data_format",
    "dtype",
    "interpolation",
    "keep_aspect_ratio",
    "n",
    "save_format",
    "save_prefix",
    "save_to_dir",
    "seed",
    "shuffle",
    "target_size",
)
"""Attributes that scripts may set, with effect from the next batch on."""


class LoadedIterator(OrderedSequence, Iterator):
    """An iterator whose batches come from a daemon.

    A subclass has ``_spec``, and calls ``_load`` when its attributes are set. Programs may set them
    at any time, with effect from the next batch on.
    """

    image_data_generator: Augmentation | None
    _before: PackedFunction | None = None
    """The function as it was sent last; None after any attribute was set."""

    def _load(self, batch_size: int, shuffle: bool, seed: int | None, max_queue_size: int) -> None:
        """Opens the stream."""
        self.batch_size = batch_size = arguments.whole("batch_size", batch_size)
        self.shuffle, self.seed = shuffle, arguments.seed(seed)
        self._seeds_globally = seed is not None
        self._count = 0
        self.lock = threading.Lock()
        self._issued = Issued()
        spec, parts = self._spec()
        OrderedSequence.__init__(self, spec, max_queue_size=max_queue_size, parts=parts)
        self.batch_size = batch_size
        self._opened()
        self._segments = Segments(Segment(self._settings(), self._total()))
        self._reader = Reader(self._supply, self._segments)
        self._before = PackedFunction.of(spec, parts)
        self.spec, parts = self._spec()
        if _equal(parts, self._supply.parts):  # else a subclass shows other files
            self._segments.applied = self._now
        self._seen = self._present_values()

    @property
    def _is_open(self) -> bool:
        """Whether the stream was opened and has a segment."""
        return "_segments" in vars(self)

    def _opened(self) -> None:
        """Called when the stream is opened for the first time."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See ``LoaderSequence.__getstate__``."""
        self.__dict__.update(state)
        self.lock = threading.Lock()
        self._issued = Issued()
        self._seen = self._present_values()

    def _spec(self) -> tuple[Spec, Parts]:
        """The spec and its parts, from the attributes and the present segment."""
        raise NotImplementedError

    def _order(self) -> Order:
        if self._is_open:
            return self._now.order
        return Order(shuffle=arguments.flag("shuffle", self.shuffle), seed=self.seed, draws="batch")

    def _batch(self, label_mode: LabelMode, substitute_weight: float | None = None) -> Batching:
        size = arguments.whole("batch_size", self.batch_size)
        return Batching(size, label_mode, substitute_weight)

    def _load_place(self, places: Places, place: Place, me: Caller) -> Any:
        """The batch at a place, in Keras's form."""
        segment = self._now
        segment.check(place[1])
        if segment.is_empty(place[1]):
            return self._explicit(np.empty(0, np.int64))
        batch = self._fetched(places, place, me)
        if not self._is_as_shown(batch):
            self._reload()
            batch = self._fetched(places, place, me)
        return self._assembled(batch)

    def _fetched(self, places: Places, place: Place, me: Caller) -> Batch:
        if self._segments.applied is not self._now:
            self._reload()
        return super()._fetched(places, place, me)

    def _explicit(self, index_array: Any) -> Any:
        """A batch of any sample numbers, by a separate stream."""
        me = Caller()
        ids = within(np.asarray(index_array), self._total())
        if (ids < 0).any():
            raise NoSuchSample(f"there are {self.samples} samples, and none of {index_array}")
        self._follow()
        spec, parts = self._spec()
        number = int(np.random.randint(0, SEEDS, dtype=np.int64))
        order = Order(shuffle=False, seed=number, draws="batch", given=True)
        rows = msgspec.structs.replace(spec.batch, batch_size=max(1, len(ids)))
        spec = msgspec.structs.replace(spec, order=order, batch=rows)
        order_part = ids if len(ids) else np.zeros(1, np.int64)
        batch = self._supply.beside(spec, {**parts, "order": order_part}, me)
        return self._assembled(batch if len(ids) else batch.first(0))

    def _is_as_shown(self, batch: Batch) -> bool:
        """Whether the batch fits the attributes, which may have been changed in place."""
        del batch
        return True

    def _reload(self) -> None:
        """Makes the next batch follow the attributes."""
        me = Caller()
        self._reader.guard.enter(me)
        self._apply()
        self._reader.guard.give_back()

    def _apply(self) -> None:
        """Replaces the stream by one of the present attributes and segment."""
        segment = self._now
        self.spec, parts = self._spec()
        self._supply.change(self.spec, {**parts, **segment.part})
        self._segments.applied = segment

    # -- states ----------------------------------------------------------------------

    def _settle(self) -> None:
        self._follow()
        assigned = self._now.given is not None or self._has_own_generator
        if assigned or self._overrides("_flow_index"):
            raise StateError(
                "the program has assigned the order of this epoch (index_array, index_generator, "
                "or an attribute such as n in mid-epoch), which a state does not hold: save it at "
                "the end of the epoch"
            )

    def _order_seed(self) -> int:
        return self._now.order.seed or 0

    def _identified_spec(self) -> Spec:
        order = Segment(self._settings(), self._total()).order
        return msgspec.structs.replace(self._spec()[0], order=order)

    def _supply_of(self, seed: int) -> Supply:
        return self._supply  # the order belongs to the segment

    def _continue_at(self, place: Place, seed: int) -> None:
        self._follow()
        settings = self._settings()
        self._begin_segment((seed - settings.seed) % SEEDS)
        self._places.resume(place)
        self._count = self._now.base + place[0] * settings.batches + place[1]

    # -- attributes that were set ----------------------------------------------------

    def _follow(self) -> None:
        """Applies attributes set, and statistics fitted, since the last call."""
        seen = self._present_values()
        same = len(seen) == len(self._seen) and all(map(is_, seen, self._seen))
        if same and not self._begins_epoch():
            return
        if not same:
            self._before = None
            if self.seed is None:  # Keras seeds nothing from here on
                self.seed, self._seeds_globally = arguments.seed(None), False
        if self._settings() != self._now.settings:
            self._segments.follow(self._settings(), self._total())
        spec, parts = self._spec()
        self._before = PackedFunction.of(spec, parts)
        self._seen = seen  # not before: an invalid value raises in every call until it is fixed
        applied = self._segments.applied is self._now
        if applied and (spec != self.spec or not _equal(parts, self._supply.parts)):
            self._apply()

    def _begins_epoch(self) -> bool:
        """Whether to check the state of the generator and its function for changes in place.

        Keras applies such a change at once. The check is slow, so here it is made once an epoch.
        """
        requested, self._may_have_changed = self._may_have_changed, False
        return requested or self._places.between_epochs

    def _present_values(self) -> list[Any]:
        """The present values of all that programs may set and that decides the batches."""
        generator = self.image_data_generator
        own = [getattr(self, name, None) for name in _SETTABLE] + pil_settings.current_values()
        own += [vars(self).get(name) for name in ("_shown_paths", "_x")]
        return own if generator is None else [*own, *vars(generator).values()]


def _equal(parts: Parts, others: Parts) -> bool:
    """Whether ``others`` has the same parts; it may have a manifest in addition."""
    if parts.keys() | {"manifest"} != others.keys() | {"manifest"}:
        return False
    return all(
        part is others[name] or same_bytes(part, others[name]) for name, part in parts.items()
    )
