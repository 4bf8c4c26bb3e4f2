"""Properties of a JPEG without decoding it: the number of scans, and whether it may be turned.

A JPEG may hold its pixels in one scan, or in many that refine each other. A decoder passes
over the whole picture for each of them, so a small file of thousands of scans takes hours.
No header holds their number; they must be counted.
"""

from __future__ import annotations

import re
import struct

_MIN_SCANS = 32  # allowed for the largest pictures too; encoders write about ten
_MAX_SCANNED = _MIN_SCANS * 178_956_970  # pixels of all scans: 8 s of decoding
_SCAN_SIZE = 10  # bytes of the smallest scan

_START = b"\xff\xd8"
_APP1, _SOS = 0xE1, 0xDA
_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, length from here on
_MARKERS = frozenset({*range(0xC0, 0xD0), _SOS, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE})
"""Markers with a length; any other in a header makes a file irregular."""
_SCAN = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e]")


def max_scans(pixels: int) -> int:
    """The number of scans of a picture that can be decoded within seconds."""
    return max(_MIN_SCANS, _MAX_SCANNED // max(pixels, 1))


def has_too_many_scans(data: memoryview, pixels: int) -> bool:
    """Whether a file's picture, of so many pixels, has more scans than ``max_scans``."""
    if pixels * len(data) <= _MAX_SCANNED * _SCAN_SIZE:
        return False  # true of nearly all files: too small to hold too many scans
    if data[:2] != _START or _is_single(data, _places(data)):
        return False
    return sum(1 for _ in _SCAN.finditer(data)) > max_scans(pixels)


def may_be_turned(data: memoryview) -> bool:
    """Whether the file may hold an orientation."""
    places = _places(data)
    return not places or _APP1 in places


def _is_single(data: memoryview, places: dict[int, int]) -> bool:
    """Whether the first scan holds all components: libjpeg then reads no other."""
    frame = places.get(0xC0) or places.get(0xC1)  # others are progressive, or rare
    return frame is not None and data[frame + 9] == data[places[_SOS] + 4]


def _places(data: memoryview) -> dict[int, int]:
    """Offsets of the last segment of each marker before the pixels; empty for irregular files."""
    places: dict[int, int] = {}
    place, last = 2, len(data) - _SCAN_SIZE
    while place < last:
        start, marker, length = _SEGMENT.unpack_from(data, place)
        if start != 0xFF or marker not in _MARKERS:
            break
        places[marker] = place
        if marker == _SOS:
            return places
        place += 2 + length
    return {}
