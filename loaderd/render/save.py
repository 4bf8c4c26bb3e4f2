"""Saves finished samples as image files (Keras's ``save_to_dir``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from loaderd import storage
from loaderd.errors import RenderError
from loaderd.render.transforms.augment import Array, to_picture
from loaderd.render.values import readable
from loaderd.spec.output import Output


def save_rows(
    images: Array, output: Output, ids: NDArray[Any], first: int, numbers: Sequence[int]
) -> None:
    """Writes the samples of some rows.

    Args:
        images: those of a slot; see ``save_picture``.
        output: holds the folder and the format.
        ids: numbers of the samples, -1 for a row that is left out.
        first: the row of the first.
        numbers: Keras's random numbers of all rows, for the names.

    Raises:
        RenderError: one cannot be written; the text names the file.
    """
    for row, sample in enumerate(ids.tolist(), first):
        if sample >= 0:
            save_picture(images[row], output, sample, numbers[row])


def save_picture(image: Array, output: Output, sample: int, number: int) -> None:
    """Writes one finished sample, with its values stretched to 0 to 255.

    Args:
        image: in the output's data format and dtype; uint16 for bfloat16.
        output: holds the folder and the format.
        sample: the sample's number, for the name.
        number: Keras's random number, for the name.

    Raises:
        RenderError: it cannot be written; the text names the file.
    """
    save = output.save
    assert save is not None
    path = os.path.join(save.directory, f"{save.prefix}_{sample}_{number}.{save.format}")
    image = readable(image, output.dtype)
    if output.data_format == "channels_first":
        image = image.transpose(1, 2, 0)
    try:
        with storage.asking(path):
            to_picture(image, True, output.floatx).save(path)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise RenderError.of(error, f"it cannot be saved as {path}: {reason}") from error
