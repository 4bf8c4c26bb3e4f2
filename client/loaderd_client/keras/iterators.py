"""The base of Keras's iterators, and of those that load from a daemon.

Names, arguments, checks and words follow ``keras/src/legacy/preprocessing/image.py``.
``next`` is Keras's stream of batches at the same seed, and ``fit`` sees the same stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from collections.abc import Iterator as Iterable
from operator import is_
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import NoSuchSample
from loaderd.ipc.bundle import Parts, same_bytes
from loaderd.ipc.prefetch import Place
from loaderd.sampling.order import SEEDS
from loaderd.spec import spec as specs
from loaderd.spec.spec import LabelMode, Order, Spec
from loaderd_client.core import arguments
from loaderd_client.core.guard import Caller
from loaderd_client.core.stream import Batch
from loaderd_client.core.supply import Superseded
from loaderd_client.keras import adapter, pil_settings
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.batch_index import Places
from loaderd_client.keras.functions import Packed
from loaderd_client.keras.segments import Ids, Issued, Segment, Settings, within
from loaderd_client.keras.sequence import Claimed, LoaderSequence

EXTENSIONS = ("png", "jpg", "jpeg", "bmp", "ppm", "tif", "tiff")
"""What Keras's generators take for images: they look at endings, not at what the dot parts off."""


class Iterator(*adapter.sequences()):  # type: ignore[misc]  # whichever Keras is in use
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
    "n",
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

    A subclass has ``_spec`` and calls ``_load`` when its attributes are set. What programs do to
    Keras's iterators from outside, they can do to these: set attributes, replace ``index_array``
    or change it in place, take from ``index_generator``, call or override
    ``_get_batches_of_transformed_samples``, ``_set_index_array`` and ``_flow_index``.
    """

    image_data_generator: Augmentation | None
    _segment: Segment | None = None
    _applied: Segment | None = None
    """The segment of which the workers know."""
    _standard: Segment | None = None
    """The last segment whose order the workers know themselves."""
    _index_generator: Iterable[Ids] | None = None
    _before: Packed | None = None
    """What was sent with the same function, while that is not assigned anew."""
    _may_have_changed = False
    """Whether the function's state is to be looked at before the next batch."""

    def _load(self, batch_size: int, shuffle: bool, seed: int | None, max_queue_size: int) -> None:
        """Opens the stream."""
        self.batch_size = batch_size = arguments.whole("batch_size", batch_size)
        self.shuffle, self.seed = shuffle, arguments.seed(seed)
        self._seeds_globally = seed is not None
        self._count = 0
        self.lock = threading.Lock()
        self._issued = Issued()
        spec, parts = self._spec()
        LoaderSequence.__init__(self, spec, max_queue_size=max_queue_size, parts=parts)
        self.batch_size = batch_size
        self._opened()
        self._enter(Segment(self._settings(), self._total()))
        self._before = Packed.of(spec.pipeline, parts)
        self.spec, parts = self._spec()
        if _equal(parts, self._supply.parts):  # else a subclass shows other files than were found
            self._applied = self._segment
        self._seen = self._look()

    def _opened(self) -> None:
        """The stream is open for the first time."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        """See ``LoaderSequence.__getstate__``."""
        super().__setstate__(state)
        self.lock = threading.Lock()
        self._issued = Issued()
        self._seen = self._look()

    def _spec(self) -> tuple[Spec, Parts]:
        """What the attributes say, for the present segment."""
        raise NotImplementedError

    def _order(self) -> Order:
        if self._segment is not None:
            return self._segment.order
        return Order(shuffle=arguments.flag("shuffle", self.shuffle), seed=self.seed, draws="batch")

    def _batch(self, label_mode: LabelMode) -> specs.Batch:
        return specs.Batch(
            batch_size=arguments.whole("batch_size", self.batch_size), label_mode=label_mode
        )

    def _settings(self) -> Settings:
        return Settings(
            arguments.whole("n", self.n),
            arguments.whole("batch_size", self.batch_size),
            arguments.flag("shuffle", self.shuffle),
            arguments.seed(self.seed),
        )

    def _total(self) -> int:
        """Samples that there are."""
        return len(self._supply.manifest)

    def _first_places(self) -> Places:
        return Places(len(self), bool(self.shuffle))  # until the segment is there

    @property
    def _now(self) -> Segment:
        assert self._segment is not None
        return self._segment

    def _enter(self, segment: Segment) -> None:
        """Goes on in a segment; its stream is opened when a batch is wanted."""
        if segment.given is None:
            self._standard = segment
        self._places = segment.places
        self._segment = segment

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    # -- Keras's attributes ----------------------------------------------------------

    @property
    def batch_index(self) -> int:
        """The index that ``next`` reads next."""
        return self._places.position

    @batch_index.setter
    def batch_index(self, value: int) -> None:
        if not value:
            self.reset()
            return
        me = Caller()
        self._guard.enter(me)
        self._follow()
        number = self._now.number
        self._begin_segment(number - value, self._shown())
        self._places.position = value
        self._guard.give_back()

    @property
    def total_batches_seen(self) -> int:
        """Batches that were asked for. Assigned, it is the number of the next one."""
        return self._count

    @total_batches_seen.setter
    def total_batches_seen(self, value: int) -> None:
        me = Caller()
        self._guard.enter(me)
        self._follow()
        self._count = arguments.whole("total_batches_seen", value)
        position = self._places.position
        self._begin_segment(value - position, self._shown() if position else None)
        self._places.position = position
        self._guard.give_back()

    @property
    def index_array(self) -> NDArray[Any] | None:
        """The samples of this epoch, in order; None before the first batch.

        It may be replaced, or changed in place: that is the order until the epoch ends.
        """
        return self._shown() if self._now.given is not None or self._places.touched else None

    @index_array.setter
    def index_array(self, value: Any) -> None:
        if self._guard.is_ours:  # a _set_index_array of the program's, which we have called
            self._take_order(np.asarray(value))
            return
        me = Caller()
        self._guard.enter(me)
        self._follow()
        if value is None:
            self._places.end_epoch()
        else:
            self._take_order(np.asarray(value))
        self._guard.give_back()

    def _shown(self) -> NDArray[Any]:
        return self._now.shown()

    @property
    def index_generator(self) -> Iterable[Ids]:
        """What gives ``next`` the samples of its batches."""
        if self._index_generator is None:  # not before: it holds the iterator
            self._index_generator = self._flow_index()
        return self._index_generator

    @index_generator.setter
    def index_generator(self, value: Iterable[Ids]) -> None:
        self._index_generator = value
        self._flows_otherwise = True

    _flows_otherwise = False

    # -- batches ---------------------------------------------------------------------

    def __iter__(self) -> Any:
        """Endless: epoch after epoch."""
        return self

    def __next__(self) -> Any:
        """The next batch."""
        if self._flows_otherwise or self._overrides("_flow_index"):
            with self.lock:
                indices = next(self.index_generator)
            return self._get_batches_of_transformed_samples(indices)
        return super().__next__()

    def _flow_index(self) -> Iterable[Ids]:
        while True:
            yield self._next_indices()

    def _next_indices(self) -> Ids:
        me = Caller()
        places, place = self._claim_next(me)
        places.done(place)  # from here on it is the caller's
        return self._issued.issue(place, self._now)

    def _claim(
        self, me: Caller, choose: Callable[[], Place], prepare: Callable[[], None] | None = None
    ) -> Claimed:
        claimed = super()._claim(me, choose, prepare)
        self._count += 1
        return claimed

    def _prepare_next(self) -> None:
        if self._places.position == 0:
            self._begin_epoch()
        self._heed_edits(self._places.position)

    def _prepare_index(self, index: int) -> None:
        if self._overrides("_set_index_array") and self.index_array is None:
            self._set_index_array()
        self._heed_edits(index)

    def _prepare_pass(self) -> None:
        if self._overrides("_set_index_array"):
            self._set_index_array()
        elif self._now.given is not None:
            self._resume()

    def _made(self, places: Places, place: Place, me: Caller) -> Any:
        if not self._overrides("_get_batches_of_transformed_samples"):
            return self._made_here(places, place, me)
        segment = self._now
        if segment.places is not places:
            raise Superseded
        ids = self._issued.issue(place, segment)
        return self._get_batches_of_transformed_samples(ids)

    def _made_here(self, places: Places, place: Place, me: Caller) -> Any:
        """The batch at a place, as Keras gives it."""
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
        if self._applied is not self._segment:
            self._reload()
        return super()._fetched(places, place, me)

    def _get_batches_of_transformed_samples(self, index_array: Any) -> Any:
        """The batch of these samples.

        Random parameters are those of ``next`` or of the index that gave the samples; for others
        they are drawn anew in each call.
        """
        me = Caller()
        place = self._issued.find(index_array, self._now)
        if place is None:
            return self._explicit(index_array)
        return self._made_here(self._places, place, me)

    def _explicit(self, index_array: Any) -> Any:
        """A batch of any samples, by a stream of its own."""
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
        """Whether the batch is of what the attributes say, which may be changed in place."""
        del batch
        return True

    def _reload(self) -> None:
        """Has the next batch made as the attributes say."""
        me = Caller()
        self._guard.enter(me)
        self._apply()
        self._guard.give_back()

    def _apply(self) -> None:
        """Goes on with a stream of what the attributes and the segment say."""
        segment = self._now
        self.spec, parts = self._spec()
        self._supply.change(self.spec, {**parts, **segment.part})
        self._applied = segment

    # -- epochs ----------------------------------------------------------------------

    def reset(self) -> None:
        """``next`` begins an epoch.

        In mid-epoch that is another epoch, as in Keras: its order and its parameters are
        drawn from the number of its first batch. Where nothing is random it is the same one.
        """
        me = Caller()
        self._guard.enter(me)
        self._may_have_changed = True
        if self._places.position:
            if self.shuffle or self.spec.pipeline.is_random or self._now.given is not None:
                self._begin_segment(self._now.number)
            else:
                self._places.position = 0
        self._guard.give_back()

    def _end_epoch(self) -> None:
        """``on_epoch_end``, of whoever reads by index."""
        if self._now.given is not None:
            position = self._places.position
            self._resume()
            self._places.position = position
        self._places.end_epoch()
        if self._overrides("_set_index_array"):
            self._set_index_array()

    def _begin_epoch(self) -> None:
        """``next`` comes to a new epoch: an order that was given has an end."""
        number = self._now.number
        if self._overrides("_set_index_array"):
            if self._seeds_globally:
                np.random.seed((self.seed + number) % SEEDS)
            self._set_index_array()
        elif self._now.given is not None:
            self._resume()
            if self._now.number != number:
                self._begin_segment(number)

    def _resume(self) -> None:
        """Goes back to the order that the workers know, where it was left."""
        if self._standard is not None and self._standard.settings == self._settings():
            self._enter(self._standard)
        else:
            self._begin_segment(self._now.number)

    def _set_index_array(self) -> None:
        """Draws an order for this epoch from NumPy's global generator, as Keras does."""
        if self.shuffle:
            self.index_array = np.random.permutation(self.n)
        elif self._now.given is not None:
            self.index_array = np.arange(self.n)

    def _take_order(self, order: NDArray[Any]) -> None:
        """Goes on at the same position, in an order that is given."""
        position = self._places.position
        self._begin_segment(self._now.number - position, order)
        self._places.position = position

    def _begin_segment(self, base: int, given: NDArray[Any] | None = None) -> None:
        self._enter(Segment(self._settings(), self._total(), base, given))

    def _heed_edits(self, position: int) -> None:
        """Programs may change ``index_array`` in place."""
        if self._now.is_edited(position):
            self._take_order(self._shown())

    # -- what was set ----------------------------------------------------------------

    def _follow(self) -> None:
        """Scripts set attributes, of iterators and generators, and fit generators, at any time."""
        seen = self._look()
        same = len(seen) == len(self._seen) and all(map(is_, seen, self._seen))
        if same and not self._begins_epoch():
            return
        if not same:
            self._before = None
            if self.seed is None:  # Keras seeds nothing from here on
                self.seed, self._seeds_globally = arguments.seed(None), False
        if self._settings() != self._now.settings:
            self._follow_order()
        spec, parts = self._spec()
        self._before = Packed.of(spec.pipeline, parts)
        self._seen = seen  # not before: what is not allowed is told again, until it is mended
        applied = self._applied is self._segment
        if applied and (spec != self.spec or not _equal(parts, self._supply.parts)):
            self._apply()

    def _begins_epoch(self) -> bool:
        """Whether what is held by the generator and its function may have been changed.

        In Keras a change counts at once. Looking takes longer than a batch should wait, so
        it counts from the next epoch on.
        """
        told, self._may_have_changed = self._may_have_changed, False
        return told or self._places.between_epochs

    def _heed_epoch_end(self) -> None:
        self._may_have_changed = True

    def _follow_order(self) -> None:
        """Another order begins with the next epoch, as in Keras; this one goes on as it is."""
        now, settings = self._now, self._settings()
        if not self._places.touched and now.given is None:
            self._begin_segment(now.number)
            return
        order, number, size = self._shown(), now.number, settings.batch_size
        first = self._places.position * size % max(1, settings.n)
        position = settings.batches - -(-(settings.n - first) // size)
        # Where batches begin elsewhere now, the epoch ends with the same samples all the same.
        order = np.concatenate([order[: position * size], order[first:]])
        self._begin_segment(number - position, order)
        self._places.position = position

    def _look(self) -> list[Any]:
        """What decides about batches, and may have been set."""
        generator = self.image_data_generator
        own = [getattr(self, name, None) for name in _SETTABLE] + pil_settings.look()
        own += [vars(self).get(name) for name in ("_shown_paths", "_x")]
        return own if generator is None else [*own, *vars(generator).values()]

    def _overrides(self, name: str) -> bool:
        """Whether a subclass, or the program, has replaced a method of ours."""
        ours = getattr(LoadedIterator, name)
        return getattr(type(self), name) is not ours or name in vars(self)


def _equal(parts: Parts, others: Parts) -> bool:
    """Whether these are the parts of a bundle that we have; its manifest may be beside them."""
    if parts.keys() | {"manifest"} != others.keys() | {"manifest"}:
        return False
    return all(
        part is others[name] or same_bytes(part, others[name]) for name, part in parts.items()
    )
