"""One sample: an image file, or an array, becomes finished pixels in a given row.

::

    path ──read──► bytes ──decode──► picture ──resize──► array ──warp, flip, ...──► row
         └──────────────────── load ────────────────────┘└──────── finish ────────┘

Everything is exactly Keras's, but for the warp, which is OpenCV's instead of scipy's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter_ns, sleep
from typing import Any

from numpy.typing import NDArray

from loaderd import storage
from loaderd.errors import BadImage
from loaderd.render import full
from loaderd.render.fast import FastFinish
from loaderd.render.full import FullFinish
from loaderd.render.load.decode import Decoder, Path, file_error
from loaderd.render.load.pixel_limits import pixel_limit
from loaderd.render.load.resize import Resizer
from loaderd.spec.spec import Pipeline
from loaderd.spec.transform import Transform

_AGAIN_SECONDS = 0.5
"""After so long storage that cannot be asked is asked again."""

_NO_BUNDLE: Mapping[str, NDArray[Any]] = {}


class Renderer:
    """Renders samples as a pipeline says. Owns buffers: one renderer for each thread.

    Args:
        pipeline: what to do.
        bundle: arrays that the pipeline needs, and maybe the images themselves.
        max_pixels: of a picture, at most; larger ones are bad images. None leaves it to the
            trainer's PIL.

    Attributes:
        copies: whether to finish an image of bytes is to copy it.

    Raises:
        RenderError: the user's function cannot be loaded.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        bundle: Mapping[str, NDArray[Any]] = _NO_BUNDLE,
        max_pixels: int | None = None,
    ) -> None:
        limit = pixel_limit(pipeline.pil, max_pixels)
        self._resize = Resizer(pipeline.target_size, pipeline.interpolation, pipeline.aspect, limit)
        reduction = self._resize.reduction if pipeline.decode == "scaled" else None
        self._decoder = Decoder(pipeline, limit, reduction)
        # Keras loads files as floatx, and converts arrays to the dtype of the batch.
        compute = pipeline.dtype if "images" in bundle else pipeline.floatx
        self._finish: FastFinish | FullFinish = (
            FullFinish(pipeline, compute, bundle)
            if full.is_needed(pipeline, compute, bundle)
            else FastFinish(pipeline)
        )
        self.copies = isinstance(self._finish, FastFinish) and _only_copies(pipeline)
        self.nanoseconds = [0, 0, 0, 0]  # read, decode, resize, augment

    @property
    def source(self) -> os.stat_result | None:
        """What the file system said of the file that was loaded last; None if it changed."""
        return self._decoder.source

    def render(self, path: Path, transform: Transform, row: NDArray[Any]) -> None:
        """Reads a file and writes its finished pixels.

        Args:
            path: of the image file.
            transform: the random parameters of the sample.
            row: an array of ``pipeline.image_shape`` and dtype, C-contiguous.

        Raises:
            BadImage: the file cannot be read or decoded.
            NoRoom: there is no memory for it.
            RenderError: the picture cannot be finished.
        """
        self.finish(self.load(path), transform, row)

    def load(self, path: Path) -> NDArray[Any]:
        """The picture of a file in the target size.

        Returns:
            ``pipeline.array_shape``, uint8 (16 and 32 bit grey pictures: uint16, int32).
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

    def finish(self, image: NDArray[Any], transform: Transform, row: NDArray[Any]) -> None:
        """Augments and normalizes a loaded picture.

        Args:
            image: what ``load`` returned, or a copy of it, or an array of
                ``pipeline.array_shape``; left as it is.
            transform: the random parameters of the sample.
            row: an array of ``pipeline.image_shape`` and dtype, C-contiguous.

        Raises:
            RenderError: an operation refuses the image, or the user's function raised.
        """
        start = perf_counter_ns()
        self._finish(image, transform, row)
        self.nanoseconds[3] += perf_counter_ns() - start

    def seed(self, number: int, row: int, again: int = 0) -> None:
        """Before each ``finish`` that may run the user's code: what it may draw from."""
        if isinstance(self._finish, FullFinish):
            self._finish.seed(number, row, again)

    def at_home(self) -> AbstractContextManager[None]:
        """Within it ``finish`` may run the user's code."""
        return self._finish.at_home() if isinstance(self._finish, FullFinish) else nullcontext()

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


def _only_copies(pipeline: Pipeline) -> bool:
    return (
        pipeline.dtype == "uint8"
        and pipeline.data_format == "channels_last"
        and not pipeline.rescale
        and not pipeline.is_random
    )
