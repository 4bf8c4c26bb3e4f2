"""A worker's work on one file, without a worker: read, decode, resize, finish."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.augment.draws import Key
from loaderd.render.load.decode import file_error
from loaderd.render.load.pixel_limits import pixel_limit
from loaderd.render.renderer import Loaded, Prepared, Renderer, StageTimes
from loaderd.sources.files import FileLimit, FileReader, Path
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform

Drawn = Transform | Key | NDArray[np.float64]
"""The parameters of one sample; for ``augment``, its key."""


class FileRenderer(Renderer):
    """A renderer that reads the files itself.

    Args:
        spec: what to do.
        max_pixels: the daemon's limit, if it has one.
    """

    def __init__(self, spec: Spec, max_pixels: int | None = None) -> None:
        limit = pixel_limit(spec.load.pil, max_pixels)
        super().__init__(spec, StageTimes(), limit=limit)
        self._reader = FileReader(FileLimit(limit.file_bytes, limit.file_reason))

    def load_file(self, path: Path) -> Loaded:
        """The picture of a file, as ``load`` returns it."""
        data = self._reader.read(path)
        try:
            return self.load(data)
        except Exception as error:
            raise file_error(path, error) from error

    def render(self, path: Path, drawn: Drawn, row: NDArray[Any]) -> None:
        """Writes a file's finished pixels."""
        prepared = self._prepared(drawn)
        if self._keeps_size:
            self.begin(prepared, 0)
        self.finish(self.load_file(path), prepared, 0, row)

    def finish_one(self, image: Loaded, drawn: Drawn, row: NDArray[Any]) -> None:
        """Writes a picture's finished pixels.

        Args:
            image: from ``load_file``.
            drawn: its parameters.
            row: the destination.
        """
        self.finish(image, self._prepared(drawn), 0, row)

    def _prepared(self, drawn: Drawn) -> Prepared:
        return self.prepare([drawn] if self._augments else np.array([drawn], np.float64))
