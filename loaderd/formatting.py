"""Values as text for the terminal, and as JSON."""

from __future__ import annotations

import json
import math

import msgspec
from rich.cells import cell_len

from loaderd.ipc.text import printable

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def as_json(value: object) -> str:
    """One JSON object in ASCII, which holds no control characters of names."""
    return json.dumps(_finite(msgspec.to_builtins(value)), allow_nan=False)


def _finite(value: object) -> object:
    """Replace infinity and nan, which JSON lacks, by null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def size(count: float) -> str:
    """Bytes with a unit: 1536 is ``1.5 KiB``."""
    unit = 0
    while count >= 1023.95 and unit < len(_UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.1f} {_UNITS[unit]}" if unit else f"{count:.0f} B"


def rate(number: float) -> str:
    """A rate, with tenths below 1000: 15.2, 1204."""
    return f"{number:.1f}" if number < 999.95 else f"{number:.0f}"


def duration(seconds: float) -> str:
    """A time in its two largest units: 3725 is ``1 h 2 min``."""
    if not 0 <= seconds < 1e12:
        return "?"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((i for i, (count, _) in enumerate(parts) if count), len(parts) - 1)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2])


def count(number: int, thing: str) -> str:
    """``1 stream``, ``2 streams``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def tail(path: str, width: int, cut: str = "…") -> str:
    """The last ``width`` columns of a path, with ``cut`` in place of its beginning."""
    path = printable(path)
    if cell_len(path) <= width:
        return path
    while path and cell_len(cut + path) > width:
        path = path[1:]
    return cut + path
