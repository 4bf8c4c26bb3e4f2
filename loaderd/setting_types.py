"""The types of settings: each function checks what was said and returns the value that is meant.

All raise :class:`InvalidArgument` with the place where it was said and what is allowed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple, TypeVar

from loaderd import machine
from loaderd.errors import InvalidArgument

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?(%|B?|[KMGT](?:i?B)?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZES = 'bytes, 512M, 1.5G, 2GiB (units of 1024), a share of the RAM ("50%"), or "auto"'
_SIZES_ON_DISK = 'bytes, 512M, 1.5G, 2GiB (units of 1024), or "auto"'
_MIN_WORKER_MEMORY = 2**26
LOOPBACK = "127.0.0.1"
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Said(NamedTuple):
    """A value and where it was said: a flag, a variable, a file or the default."""

    value: object
    origin: str


_T = TypeVar("_T")
Type = Callable[[Said], _T]


def or_auto(type_: Type[_T], auto: Callable[[], _T]) -> Type[_T]:
    """A type that also allows ``"auto"``, which means what ``auto`` returns."""
    return lambda said: auto() if said.value == "auto" else type_(said)


def text(said: Said) -> str:
    """A text that is not empty."""
    if not isinstance(said.value, str) or not said.value or "\0" in said.value:
        raise _refuse(said, "texts that are not empty")
    return said.value


def folder(said: Said) -> str:
    """An absolute path; ``~`` is the user's home."""
    return os.path.abspath(os.path.expanduser(text(said)))


def switch(said: Said) -> bool:
    """True or false, on the command line a flag ``--no-…``."""
    word = str(said.value).lower()
    if word not in _WORDS:
        raise _refuse(said, "true and false")
    return _WORDS[word]


def opt_in(said: Said) -> bool:
    """True or false, on the command line a flag that means true."""
    return switch(said)


def whole(least: int, most: int, allowed: str) -> Type[int]:
    """A whole number in a range."""

    def number(said: Said) -> int:
        digits = _digits(said.value)
        if not re.fullmatch("[0-9]{1,9}", digits) or not least <= int(digits) <= most:
            raise _refuse(said, allowed)
        return int(digits)

    return number


def descriptor(said: Said) -> int:
    """An open file descriptor.

    It is closed to the children at once: a worker that held it would hide the daemon's end.
    """
    try:
        fd = int(str(said.value))
        os.set_inheritable(fd, False)
    except (ValueError, OverflowError, OSError) as error:
        raise _refuse(said, "open file descriptors") from error
    return fd


def size(said: Said) -> int:
    """Bytes, as a number, with a unit, or as a share of the RAM."""
    return _size(said, _SIZES)


def seconds(said: Said) -> float:
    """A time, as a number or as its text."""
    try:
        found = 0.0 if isinstance(said.value, bool) else float(str(said.value))
    except ValueError:
        found = 0.0
    if not 0.1 <= found <= 86400:  # also refuses nan
        raise _refuse(said, "seconds, from 0.1 to 86400")
    return found


def share(said: Said) -> float:
    """A percentage; the value is from 0 to 1."""
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%", str(said.value))
    part = float(found[1]) / 100 if found else 2.0
    if part > 1:
        raise _refuse(said, 'shares of the images, "0%" to "100%"')
    return part


def pixels(said: Said) -> int:
    """A number of pixels; M is a million, as in megapixels."""
    found = re.fullmatch("([0-9]{1,12})(M?)", _digits(said.value))
    number = int(found[1]) * (10**6 if found[2] else 1) if found else 0
    if not 1 <= number <= 2**40:
        raise _refuse(said, 'whole numbers of pixels, or millions of them ("100M")')
    return number


class WorkerRange(NamedTuple):
    """How many workers of other machines there are: so many at the daemon's start, and at most."""

    least: int
    most: int

    def __str__(self) -> str:
        return f"{self.least}:{self.most}"


def worker_range(said: Said) -> WorkerRange:
    """``N`` for up to N, or ``MIN:MAX``."""
    found = re.fullmatch("(?:([0-9]{1,3}):)?([0-9]{1,3})", _digits(said.value))
    least, most = (int(found[1] or 0), int(found[2])) if found else (1, 0)
    if not 0 <= least <= most <= MAX_WORKERS or not most:
        raise _refuse(said, f'numbers up to {MAX_WORKERS}, as "64", or ranges, as "4:64"')
    return WorkerRange(least, most)


def cluster(said: Said) -> str:
    """The address of a Ray cluster."""
    address = text(said)
    if address != "auto" and not re.fullmatch(r"[^/\s]+:[0-9]{1,5}", address):
        raise _refuse(said, '"auto", or HOST:PORT of the head of a Ray cluster')
    return address


def _size_on_disk(said: Said) -> int:
    """Bytes; a share of the RAM would mean nothing there."""
    if isinstance(said.value, str) and said.value.endswith("%"):
        raise _refuse(said, _SIZES_ON_DISK)
    return _size(said, _SIZES_ON_DISK)


def _worker_memory(said: Said) -> int:
    found = size(said)
    if found < _MIN_WORKER_MEMORY:
        raise _refuse(said, "sizes from 64M on: a photo takes so much while it is decoded")
    return found


def listen_address(said: Said) -> tuple[str, int]:
    """``[HOST:]PORT``: a host, by default the loopback, and a port; 0 takes a free one."""
    host, colon, port = str(said.value).rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or (colon and not host):
        raise _refuse(said, "PORT, or HOST:PORT; 0 takes a free port")
    return host.strip("[]") or LOOPBACK, int(port)


def _refuse(said: Said, allowed: str) -> InvalidArgument:
    return InvalidArgument(f"{said.origin}: {said.value!r} is not allowed; allowed are {allowed}")


def _digits(value: object) -> str:
    """A text as it is; a number's digits. TOML has true and 1.0 as well: they have none."""
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int and 0 <= value < 2**63 else ""


def _size(said: Said, allowed: str) -> int:
    found = _SIZE.fullmatch(_digits(said.value))
    number = _bytes(*found.groups()) if found else 0
    if not 1 <= number < 2**63:
        raise _refuse(said, allowed)
    return number


def _bytes(number: str, unit: str) -> int:
    if unit == "%":
        part = Fraction(number) / 100
        return int(part * machine.ram()) if part <= 1 else 0
    return int(Fraction(number) * _UNITS[unit.upper().rstrip("IB")])


class AutoCount(int):
    """A number of workers that follows the load.

    Attributes:
        most: how many there may be: one for each CPU.
    """

    most: int

    def __new__(cls, count: int, most: int) -> AutoCount:
        """The number, of at most ``most``."""
        made = super().__new__(cls, count)
        made.most = most
        return made

    def __reduce__(self) -> Any:
        """Pickled with its attribute."""
        return AutoCount, (int(self), self.most)


def _one_for_each_cpu() -> AutoCount:
    return AutoCount(machine.cpus(), machine.cpus())


MAX_WORKERS = 512
"""As many as fit into one packet's snapshot."""

workers = or_auto(
    whole(1, MAX_WORKERS, f'whole numbers from 1 to {MAX_WORKERS}, or "auto"'), _one_for_each_cpu
)
"""A number of worker processes, or one for each CPU and fewer while these are enough."""
niceness = or_auto(whole(0, 19, 'whole numbers from 0 to 19, or "auto"'), lambda: 0)
"""A niceness that every user may choose."""
process_id = whole(1, 2**22, "process ids")
cache_size: Type[int | None] = or_auto(_size_on_disk, lambda: None)
"""Bytes of a cache; None for what the disk and the RAM allow when it is opened."""
worker_memory = or_auto(_worker_memory, lambda: max(machine.ram() // 2, 2**31))
"""Bytes that suffice for a worker."""
