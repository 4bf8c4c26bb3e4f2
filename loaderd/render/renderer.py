"""Renders one sample: an image file or array to finished pixels in a row.

::

    bytes ──decode──► picture ──resize──► array ──transforms──► row
      └────────────────── load ──────────────┘└───── finish ─────┘

All values are Keras's to the last bit, except for warps with ``precision="fast"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.draws import Key
from loaderd.augment.pixels import check_kind, size_of
from loaderd.augment.targets import Targets
from loaderd.render.augmented import AugmentFinish, begins_with_crop
from loaderd.render.fast import ChunkParameters, FastFinish, is_fast
from loaderd.render.general import GeneralFinish, random_operations
from loaderd.render.load.decode import Decoder, Picture
from loaderd.render.load.pixel_limits import DEFAULT, PixelLimit
from loaderd.render.load.resize import PicturePart, Reduced, Resizer, Size
from loaderd.render.transforms.operation import Array, Parts
from loaderd.render.transforms.user_function import UserFunctions
from loaderd.spec.base import compute_dtype
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform, Transforms

_NO_BUNDLE: Parts = {}


@dataclass(slots=True)
class StageTimes:
    """Nanoseconds spent in each stage.

    Attributes:
        read: from storage, or from a cache.
        decode: to a picture.
        resize: to the target size.
        augment: all operations after that.
    """

    read: int = 0
    decode: int = 0
    resize: int = 0
    augment: int = 0

    def take(self) -> StageTimes:
        """The times since the last call."""
        taken = replace(self)
        self.read = self.decode = self.resize = self.augment = 0
        return taken


class LoadedImages(NamedTuple):
    """Loaded pictures that lie in one array.

    Attributes:
        images: (pictures, height, width, channels), uint8 or float32, C-contiguous.
        places: int64: which of them are meant, in their order.
    """

    images: Array
    places: NDArray[np.int64]


Loaded = Any
"""A loaded image: an array, or, where images keep their size, a ``load.decode.Picture``."""

Drawn = Transforms | Sequence[Key]
"""The random parameters of the rows of a chunk; for ``spec.augment``, what they depend on."""

Prepared = ChunkParameters | Sequence[Transform] | Sequence[Key]
"""The same, ready for ``finish``."""


class Renderer:
    """Renders samples by a spec. Owns buffers: one renderer for each thread.

    Args:
        spec: what to do.
        times: of the stages; added to.
        bundle: the spec's arrays, and possibly the images.
        limit: of a picture; larger ones are bad images.
        functions: the user's, if another renderer has loaded them.

    Attributes:
        copies: whether finishing a uint8 image only copies it.
        functions: the user's; None for none.
        loaded_size: (height, width) of the picture that was loaded last, before any resize.

    Raises:
        RenderError: the user's function cannot be loaded.
    """

    def __init__(
        self,
        spec: Spec,
        times: StageTimes,
        bundle: Parts = _NO_BUNDLE,
        limit: PixelLimit = DEFAULT,
        functions: UserFunctions | None = None,
    ) -> None:
        self._resize = Resizer(spec.load, limit)
        self._keeps_size = spec.load.aspect == "keep"
        part = self._part if self._keeps_size else self._resize.part
        arrays = self._keeps_size and begins_with_crop(spec)
        self._decoder = Decoder(spec.load, limit, part, self._resize.picks, arrays)
        # Keras loads files as floatx, and converts arrays to the dtype of the batch.
        output = spec.output
        compute = compute_dtype(output.dtype) if "images" in bundle else output.floatx
        self._finish: FastFinish | GeneralFinish | AugmentFinish
        self.functions = functions
        if functions is None and spec.function is not None:
            self.functions = UserFunctions(spec.function, bundle)
        self._random = random_operations(spec, compute)
        self._next: Key = (0, 0, 0)
        self._augments = spec.augments
        if self._augments:
            self._finish = AugmentFinish(spec, self.functions)
        elif is_fast(spec, compute, bundle):
            self._finish = FastFinish(spec, bundle)
        else:
            self._finish = GeneralFinish(spec, compute, bundle, self._random, self.functions)
        self.copies = self._finish.copies
        self.loaded_size = (0, 0)
        self.times = times

    def draw(self, uniforms: Array) -> Transforms:
        """The parameters of samples, drawn from their uniform numbers (samples, UNIFORMS)."""
        drawn = np.tile(np.array(Transform(), np.float64), (len(uniforms), 1))
        for operation in self._random:
            for name, values in operation.draw(uniforms.T).items():
                drawn[:, Transform._fields.index(name)] = values
        return drawn

    def begin(self, prepared: Prepared, at: int) -> None:
        """Announces the row whose picture is loaded next.

        Only for ``spec.augment``: what is decoded of a picture may depend on what is drawn.
        """
        key = prepared[at]
        assert isinstance(key, tuple) and len(key) == 3, "nothing else keeps pictures' sizes"
        self._next = key

    def _part(self, size: Size) -> PicturePart:
        assert isinstance(self._finish, AugmentFinish), "no other keeps the size of pictures"
        return self._finish.part(size, self._next)

    def load(self, data: memoryview) -> Loaded:
        """The picture of a file, from its bytes, in the target size.

        Returns:
            ``spec.load.array_shape``, uint8 (16 and 32 bit grey pictures: uint16, int32); with
            ``aspect="keep"`` the decoded picture. Valid until the next ``load``.

        Raises:
            Exception: whatever PIL raises; ``decode.file_error`` makes an error of it that names
                the file.
        """
        start = perf_counter_ns()
        picture = self._decoder.decode(data)
        decoded = perf_counter_ns()
        self.loaded_size = _size_of(picture)
        image = picture if self._keeps_size else self._resize(picture)
        if self._augments:
            check_kind(image.image if isinstance(image, Reduced) else image)
        self.times.decode += decoded - start
        self.times.resize += perf_counter_ns() - decoded
        return image

    def prepare(self, drawn: Any) -> Prepared:
        """The parameters of the rows of a chunk, a ``Drawn``, ready for ``finish``."""
        return self._finish.prepare(drawn)

    def finish(self, image: Loaded, prepared: Prepared, at: int, row: Array) -> None:
        """Augments and normalizes a loaded picture.

        Args:
            image: from ``load``, or any array of ``spec.load.array_shape``; not changed.
            prepared: the random parameters of the chunk.
            at: the image's row of the chunk.
            row: an array of ``spec.image_shape`` and the output's dtype (uint16 for bfloat16),
                C-contiguous.

        Raises:
            RenderError: an operation refuses the image, or the user's function raised.
        """
        start = perf_counter_ns()
        self._finish(image, prepared, at, row)
        self.times.augment += perf_counter_ns() - start

    def finish_annotated(
        self, image: Loaded, targets: Targets, prepared: Prepared, at: int, row: Array
    ) -> Targets:
        """``finish`` for ``spec.augment``; also moves what belongs to the image.

        Args:
            image: see ``finish``.
            targets: in pixels of the image.
            prepared: see ``finish``.
            at: see ``finish``.
            row: see ``finish``.

        Returns:
            The targets, in pixels of the finished image.
        """
        assert isinstance(self._finish, AugmentFinish), "annotations are for augment alone"
        start = perf_counter_ns()
        self._finish(image, prepared, at, row, targets)
        moved = self._finish.targets
        self.times.augment += perf_counter_ns() - start
        return moved

    def finish_many(self, loaded: LoadedImages, prepared: Prepared, rows: Array) -> bool:
        """Finishes all pictures of a chunk at once, if that can be done; returns whether it was.

        Args:
            loaded: the pictures.
            prepared: their random parameters.
            rows: as for one.
        """
        if not isinstance(self._finish, FastFinish) or not isinstance(prepared, ChunkParameters):
            return False
        start = perf_counter_ns()
        self._finish.many(loaded.images, loaded.places, prepared, rows)
        self.times.augment += perf_counter_ns() - start
        return True

    def seed(self, number: int, row: int, again: int = 0) -> None:
        """Seeds the user's code; called before each ``finish`` that may run it.

        Functions of ``spec.augment`` are seeded for each call.
        """
        if self.functions is not None and not self._augments:
            self.functions.seed(number, row, again)

    def import_scope(self) -> AbstractContextManager[None]:
        """A context for ``finish``, within which the user's code can import its modules."""
        return nullcontext() if self.functions is None else self.functions.import_scope()


def _size_of(picture: Picture | Reduced) -> tuple[int, int]:
    """(height, width) of the whole picture."""
    return picture.size[::-1] if isinstance(picture, Reduced) else size_of(picture)
