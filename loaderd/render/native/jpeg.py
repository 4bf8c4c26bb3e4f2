"""Decodes only the pixels of a JPEG that a nearest-neighbour resize keeps.

libjpeg-turbo gives the samples as they lie in the file; chroma is interpolated, and colours are
converted, as libjpeg-turbo does it, for the rows and columns that are kept. Where the extension was
not built, as libjpeg-turbo's headers were missing, all pixels are decoded, to the same result.
``VERSION`` is that of libjpeg-turbo, or empty; ``LACK`` then says why.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

try:
    from loaderd.render.native import _jpeg, _kernels
except ImportError as error:
    VERSION, LACK = "", str(error)
else:
    # One that is older than its sources: what was built last lacked the headers.
    is_present = _jpeg.SOURCES == _kernels.SOURCES
    VERSION, LACK = (_jpeg.VERSION, "") if is_present else ("", "it is older than its sources")

Array = NDArray[Any]


def pick(data: memoryview, rows: Array, columns: Array, out: Array) -> bool:
    """Decodes the pixels at ``rows`` x ``columns`` of a JPEG; returns whether it did.

    Args:
        data: the file.
        rows: int32, in any order.
        columns: int32, in any order.
        out: uint8 (rows, columns, 3), C-contiguous: red, green, blue.

    Returns:
        False for damaged files, for those of another kind than sequential ones of the usual
        samplings, and for places beyond the picture; ``out`` may be half written.
    """
    return bool(VERSION) and _jpeg.pick(data, rows, columns, out)
