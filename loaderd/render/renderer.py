"""One sample: an image file, or an array, becomes finished pixels in a given row.

::

    path ──read──► bytes ──decode──► picture ──resize──► array ──transforms──► row
         └──────────────────── load ────────────────────┘└───── finish ─────┘

Everything is exactly Keras's, but for the warp, which is OpenCV's instead of scipy's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter_ns, sleep
from typing import Any

from numpy.typing import NDArray

from loaderd import storage
from loaderd.errors import BadImage
from loaderd.render.fast import FastFinish, is_fast
from loaderd.render.general import GeneralFinish, random_operation
from loaderd.render.load.decode import Decoder, Path, file_error
from loaderd.render.load.pixel_limits import pixel_limit
from loaderd.render.load.resize import Resizer
from loaderd.render.transforms.operation import Parts
from loaderd.render.transforms.user_function import UserFunction
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Parameters

_AGAIN_SECONDS = 0.5
"""After so long storage that cannot be asked is asked again."""

_NO_BUNDLE: Parts = {}


class Renderer:
    """Renders samples as a spec says. Owns buffers: one renderer for each thread.

    Args:
        spec: what to do.
        bundle: arrays that the spec means, and maybe the images themselves.
        max_pixels: of a picture, at most; larger ones are bad images. None leaves it to the
            trainer's PIL.

    Attributes:
        copies: whether to finish an image of bytes is to copy it.

    Raises:
        RenderError: the user's function cannot be loaded.
    """

    def __init__(
        self, spec: Spec, bundle: Parts = _NO_BUNDLE, max_pixels: int | None = None
    ) -> None:
        limit = pixel_limit(spec.load.pil, max_pixels)
        self._resize = Resizer(spec.load, limit)
        self._decoder = Decoder(spec.load, limit, self._resize.reduction)
        # Keras loads files as floatx, and converts arrays to the dtype of the batch.
        compute = spec.output.dtype if "images" in bundle else spec.output.floatx
        self._finish: FastFinish | GeneralFinish
        self._function: UserFunction | None = None
        if is_fast(spec, compute):
            self._finish = FastFinish(spec)
        else:
            self._finish = GeneralFinish(spec, compute, bundle)
            self._function = self._finish.function
        made = (random_operation(operation, spec, compute) for operation in spec.transforms)
        self._random = [operation for operation in made if operation is not None]
        self.copies = self._finish.copies
        self.nanoseconds = [0, 0, 0, 0]  # read, decode, resize, augment

    def draw(self, uniforms: Sequence[float]) -> Parameters:
        """The parameters of one sample, drawn from its uniform numbers."""
        return tuple([operation.draw(uniforms) for operation in self._random])

    @property
    def source(self) -> os.stat_result | None:
        """What the file system said of the file that was loaded last; None if it changed."""
        return self._decoder.source

    def render(self, path: Path, parameters: Parameters, row: NDArray[Any]) -> None:
        """Reads a file and writes its finished pixels.

        Args:
            path: of the image file.
            parameters: the random parameters of the sample.
            row: an array of ``spec.image_shape`` and the output's dtype, C-contiguous.

        Raises:
            BadImage: the file cannot be read or decoded.
            NoRoom: there is no memory for it.
            RenderError: the picture cannot be finished.
        """
        self.finish(self.load(path), parameters, row)

    def load(self, path: Path) -> NDArray[Any]:
        """The picture of a file in the target size.

        Returns:
            ``spec.load.array_shape``, uint8 (16 and 32 bit grey pictures: uint16, int32).
            Valid until the next ``load``.

        Raises:
            BadImage: the file cannot be read or decoded.
            NoRoom: there is no memory for it.
            MissingCodec: this PIL cannot decode it, and another may.
        """
        start = perf_counter_ns()
        data = self._read(path)
        read = perf_counter_ns()
        try:
            picture = self._decoder.decode(data)
            decoded = perf_counter_ns()
            image = self._resize(picture)
        except Exception as error:  # PIL's decoders raise nearly everything on bad files
            raise file_error(path, error) from error
        self._count(read - start, decoded - read, perf_counter_ns() - decoded)
        return image

    def _read(self, path: Path) -> memoryview:
        """A file's bytes, as soon as its storage can be asked: who waits too long is ended."""
        storage.ask(path)
        try:
            while True:
                try:
                    return self._decoder.read(path)
                except BadImage as error:
                    if not storage.is_gone(error.__cause__):
                        raise
                sleep(_AGAIN_SECONDS)
        finally:
            storage.answered()

    def finish(self, image: NDArray[Any], parameters: Parameters, row: NDArray[Any]) -> None:
        """Augments and normalizes a loaded picture.

        Args:
            image: what ``load`` returned, or a copy of it, or an array of
                ``spec.load.array_shape``; left as it is.
            parameters: the random parameters of the sample.
            row: an array of ``spec.image_shape`` and the output's dtype, C-contiguous.

        Raises:
            RenderError: an operation refuses the image, or the user's function raised.
        """
        start = perf_counter_ns()
        self._finish(image, parameters, row)
        self.nanoseconds[3] += perf_counter_ns() - start

    def seed(self, number: int, row: int, again: int = 0) -> None:
        """Before each ``finish`` that may run the user's code: what it may draw from."""
        if self._function is not None:
            self._function.seed(number, row, again)

    def import_scope(self) -> AbstractContextManager[None]:
        """Within it ``finish`` may run the user's code, which finds the trainer's modules."""
        return nullcontext() if self._function is None else self._function.import_scope()

    def take_times(self) -> tuple[int, int, int, int]:
        """Nanoseconds spent in (read, decode, resize, augment) since the last call."""
        read, decode, resize, augment = self.nanoseconds
        self.nanoseconds = [0, 0, 0, 0]
        return read, decode, resize, augment

    def _count(self, read: int, decode: int, resize: int) -> None:
        times = self.nanoseconds
        times[0] += read
        times[1] += decode
        times[2] += resize
