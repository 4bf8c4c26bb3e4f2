"""One sample: a file becomes finished pixels in a given row.

::

    path ──read──► bytes ──decode──► picture ──resize──► array ──warp, flip, rescale──► row
         └──────────────────── load ────────────────────┘└────────── finish ─────────┘

Everything is exactly Keras's, but for the warp, which is OpenCV's instead of scipy's.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.render.decode import Decoder, Path, bad_image
from loaderd.render.geometry import Warp
from loaderd.render.resize import Resizer, takes_arrays
from loaderd.render.standardize import flip, write
from loaderd.wire.spec import Pipeline
from loaderd.wire.transform import Transform


class Renderer:
    """Renders samples as a pipeline says. Owns buffers: one renderer for each thread.

    Args:
        pipeline: what to do.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        arrays = takes_arrays(pipeline.interpolation, pipeline.aspect)
        self._decoder = Decoder(pipeline.color_mode, arrays)
        self._resize = Resizer(pipeline.target_size, pipeline.interpolation, pipeline.aspect)
        self._rescale = pipeline.rescale or None
        cval = pipeline.cval * (self._rescale or 1.0)
        self._warp = Warp(pipeline.target_size, pipeline.fill_mode, cval, pipeline.compat)
        self._source = np.empty(pipeline.image_shape, np.float32)
        self._warped = np.empty(pipeline.image_shape, np.float32)
        self.nanoseconds = [0, 0, 0, 0]  # read, decode, resize, augment

    def render(self, path: Path, transform: Transform, row: NDArray[Any]) -> None:
        """Reads a file and writes its finished pixels.

        Args:
            path: of the image file.
            transform: the random parameters of the sample.
            row: an array of ``pipeline.image_shape`` and dtype, C-contiguous.

        Raises:
            BadImage: the file cannot be read or decoded.
        """
        self.finish(self.load(path), transform, row)

    def load(self, path: Path) -> NDArray[Any]:
        """The picture of a file in the target size.

        Returns:
            ``pipeline.image_shape``, uint8 (16 and 32 bit grey pictures: uint16, int32).
            Valid until the next ``load``.

        Raises:
            BadImage: the file cannot be read or decoded.
        """
        start = perf_counter_ns()
        data = self._decoder.read(path)
        read = perf_counter_ns()
        try:
            picture = self._decoder.decode(data)
            decoded = perf_counter_ns()
            image = self._resize(picture)
        except Exception as error:  # PIL's decoders raise nearly everything on bad files
            raise bad_image(path, error) from error
        self._count(read - start, decoded - read, perf_counter_ns() - decoded)
        return image

    def finish(self, image: NDArray[Any], transform: Transform, row: NDArray[Any]) -> None:
        """Warps, flips and rescales a loaded picture.

        Args:
            image: what ``load`` returned, or a copy of it; left as it is.
            transform: the random parameters of the sample.
            row: an array of ``pipeline.image_shape`` and dtype, C-contiguous.
        """
        start = perf_counter_ns()
        if transform.warps:
            self._finish_warped(image, transform, row)
        else:
            write(flip(image, transform), self._rescale, row)
        self.nanoseconds[3] += perf_counter_ns() - start

    def _finish_warped(self, image: NDArray[Any], transform: Transform, row: NDArray[Any]) -> None:
        # The warp is linear, so the rescale may come first, in the pass that converts.
        write(image, self._rescale, self._source)
        if row.dtype == np.float32:
            self._warp(self._source, transform, row)
        else:
            self._warp(self._source, transform, self._warped)
            write(self._warped, None, row)

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
