"""Decodes only the pixels of a JPEG that a nearest-neighbour resize, or a crop, keeps.

For a resize, libjpeg-turbo gives the samples as they lie in the file; chroma is interpolated, and
colours are converted, as libjpeg-turbo does it, for the rows and columns that are kept. Where the
extension was not built, as libjpeg-turbo's headers were missing, all pixels are decoded, to the
same result. ``VERSION`` is that of libjpeg-turbo, or empty; ``LACK`` then says why.
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


def crop(data: memoryview, reduction: int, place: tuple[int, int], out: Array) -> bool:
    """Decodes a region of a JPEG; returns whether it did. Reads nothing below the region.

    Args:
        data: the file.
        reduction: 1, 2, 4 or 8: the picture is decoded at that fraction of its size.
        place: (left, top) of the region there.
        out: uint8 (rows, columns, 4), C-contiguous: red, green, blue and padding of 255; or
            (rows, columns, 1) for grey.

    Returns:
        False for files that are damaged above the end of the region, for those of another kind
        than sequential ones of the usual samplings, and for regions of few columns, or beyond the
        picture; ``out`` may be half written.
    """
    return bool(VERSION) and _jpeg.crop(data, reduction, *place, out)
