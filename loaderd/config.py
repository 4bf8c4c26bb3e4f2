"""The daemon's settings: where they come from, and what they may be.

::

    flags  >  LOADERD_* variables  >  TOML file  >  defaults
    └─ each becomes a layer: key → (value, where it was said) ─┘

The first layer that says a thing decides it, and whoever said it is named when the
value is not allowed. After :func:`load` nothing is checked again.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, TypeVar

import psutil

from loaderd.errors import InvalidArgument, LoaderdError
from loaderd.ipc import address, segment

FILE_KEYS = (
    "name",
    "socket",
    "workers",
    "memory",
    "cache_dir",
    "cache_size",
    "nice",
    "user_code",
    "sample_timeout",
    "io_timeout",
    "grace",
    "max_bad",
    "max_pixels",
    "worker_memory",
)
"""What a TOML file may hold."""
VARIABLES = {key: f"LOADERD_{key.upper()}" for key in (*FILE_KEYS, "config")}
MOST_WORKERS = 512
"""A snapshot of more would not fit into one packet."""

LEAST_WORKER_MEMORY = 2**26

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?) ?(%|B?|[KMGT](?:i?B)?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZES = 'bytes, 512M, 1.5G, 2GiB (units of 1024), a share of the RAM ("50%"), or "auto"'


@dataclass(frozen=True)
class Settings:
    """What one daemon runs with.

    Attributes:
        name: what people call it.
        socket: the absolute path that it listens at.
        workers: worker processes, at least 1.
        memory: bytes that all rings together may take.
        cache_dir: the absolute path of the folder of the caches on disk.
        cache_size: bytes that the caches on disk may take together, and those in memory;
            None is half of what is free on disk, and a quarter of the RAM.
        nice: how much more workers give way to other processes than the daemon, 0 to 19.
        user_code: whether workers run functions that trainers send.
        sample_timeout: seconds that one sample may take before its worker is killed; what it
            waits for storage does not count.
        io_timeout: seconds that storage may take to answer before a stream ends.
        grace: seconds for which a drain goes on at most.
        max_bad: the share of a dataset's images, 0 to 1, that a stream passes over at most.
        max_pixels: pixels of a picture, at most; larger ones are bad images. None leaves that to
            the trainer's PIL.
        worker_memory: bytes that one worker may take for pictures and for the user's code.
        owner: the trainer whose end is the daemon's end; None for a shared daemon.
        control_fd: socket to a private daemon's trainer, by which it connects; None for others.
        ready_fd: where to say that it serves; None if nobody waits for that.
    """

    name: str
    socket: str
    workers: int
    memory: int
    cache_dir: str
    cache_size: int | None = None
    nice: int = 0
    user_code: bool = True
    sample_timeout: float = 30.0
    io_timeout: float = 600.0
    grace: float = 5.0
    max_bad: float = 0.01
    max_pixels: int | None = None
    worker_memory: int = 2**40
    owner: int | None = None
    control_fd: int | None = None
    ready_fd: int | None = None

    @property
    def silence(self) -> float:
        """Seconds after which a worker in a chunk says that it lives, and the supervisor looks."""
        return min(1.0, self.sample_timeout / 4)

    @property
    def memory_cache(self) -> int:
        """Bytes that caches in memory may take together: what the rings leave, at most."""
        left = segment.free() * 9 // 10 - self.memory
        return max(0, min(self.cache_size or ram() // 4, left))


@dataclass(frozen=True)
class Address:
    """Which daemon is meant.

    Attributes:
        name: what people call it.
        socket: the absolute path that it listens at.
        chosen: whether somebody said so; otherwise it is the default.
    """

    name: str
    socket: str
    chosen: bool


class Said(NamedTuple):
    """A value and where it was said: a flag, a variable or a file."""

    value: object
    origin: str


Layer = Mapping[str, Said]
_T = TypeVar("_T")


def load(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """All settings, checked.

    Args:
        flags: command-line options by name; None where one was not given. ``config``
            names the TOML file, and so does ``LOADERD_CONFIG``.
        environ: the process's variables.

    Raises:
        InvalidArgument: a value is not allowed; the text says whose and what is.
    """
    layers = _layers(flags, environ)
    where = _address(layers)
    return Settings(
        name=where.name,
        socket=where.socket,
        workers=_pick(layers, "workers", _workers) or cpus(),
        memory=_pick(layers, "memory", _memory) or _memory_unasked(),
        cache_dir=locate_cache(flags, environ),
        cache_size=_pick(layers, "cache_size", _cache_size),
        nice=_pick(layers, "nice", _nice) or 0,
        user_code=_pick(layers, "user_code", _yes) is not False,
        sample_timeout=_pick(layers, "sample_timeout", _seconds) or 30.0,
        io_timeout=_pick(layers, "io_timeout", _seconds) or 600.0,
        grace=_pick(layers, "grace", _seconds) or 5.0,
        max_bad=_default(_pick(layers, "max_bad", _share), 0.01),
        max_pixels=_pick(layers, "max_pixels", _pixels),
        worker_memory=_pick(layers, "worker_memory", _worker_memory) or max(ram() // 2, 2**31),
        owner=_pick(layers, "owner", _pid),
        control_fd=_pick(layers, "control_fd", _descriptor),
        ready_fd=_pick(layers, "ready_fd", _descriptor),
    )


def locate(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Address:
    """Only which daemon is meant, for commands that ask one that runs.

    Raises:
        InvalidArgument: a name or a path is not allowed.
    """
    return _address(_layers(flags, environ))


def locate_cache(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> str:
    """The folder of the caches on disk: ``$XDG_CACHE_HOME/loaderd`` unless another is chosen.

    Raises:
        InvalidArgument: the path is not allowed.
    """
    chosen = _pick(_layers(flags, environ), "cache_dir", _text)
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification has relative paths ignored
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.abspath(os.path.expanduser(chosen or os.path.join(base, "loaderd")))


def _layers(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Sequence[Layer]:
    flagged = {
        key: Said(value, f"--{key.replace('_', '-')}")
        for key, value in flags.items()
        if value is not None
    }
    # An empty variable counts as unset, as shells have no other way to say so in passing.
    named = {key: Said(environ[name], name) for key, name in VARIABLES.items() if environ.get(name)}
    config = flagged.get("config") or named.get("config")
    return [flagged, named, _file(config) if config else {}]


def _file(config: Said) -> Layer:
    path = str(config.value)
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"no TOML: {error}"
        raise InvalidArgument(f"{config.origin}: {path!r}: {reason}") from error
    for key in table:
        if key not in FILE_KEYS:
            allowed = ", ".join(FILE_KEYS)
            raise InvalidArgument(f"{path}: there is no key {key!r}; allowed are {allowed}")
    return {key: Said(value, f"{path}: {key}") for key, value in table.items()}


def _pick(layers: Sequence[Layer], key: str, parse: Callable[[Said], _T | None]) -> _T | None:
    said = next((layer[key] for layer in layers if key in layer), None)
    return None if said is None else parse(said)


def _refuse(said: Said, allowed: str) -> InvalidArgument:
    return InvalidArgument(f"{said.origin}: {said.value!r} is not allowed; allowed are {allowed}")


def _address(layers: Sequence[Layer]) -> Address:
    """A name in a stronger layer wins over a socket in a weaker one."""
    layer = next((layer for layer in layers if "socket" in layer or "name" in layer), {})
    name = _text(layer["name"]) if "name" in layer else None
    if "socket" in layer:
        said = layer["socket"]
        path = _resolved(said, None, _text(said))
        return Address(name or os.path.basename(path).removesuffix(".sock"), path, True)
    said = layer.get("name", Said(address.DEFAULT_NAME, "the default name"))
    name = name or address.DEFAULT_NAME
    return Address(name, _resolved(said, name, None), bool(layer))


def _text(said: Said) -> str:
    if not isinstance(said.value, str) or not said.value or "\0" in said.value:
        raise _refuse(said, "texts that are not empty")
    return said.value


def _resolved(said: Said, name: str | None, socket: str | None) -> str:
    try:
        return address.socket_path(name, socket)
    except InvalidArgument as error:
        raise InvalidArgument(f"{said.origin}: {error}") from error


def _workers(said: Said) -> int | None:
    if said.value == "auto":
        return None
    return _whole(said, MOST_WORKERS, f'whole numbers from 1 to {MOST_WORKERS}, or "auto"')


def _nice(said: Said) -> int | None:
    """From 0, which anybody may choose, to 19."""
    if said.value == "auto":
        return None
    text = said.value if isinstance(said.value, str) else _digits(said.value)
    if not re.fullmatch("1?[0-9]", text):
        raise _refuse(said, 'whole numbers from 0 to 19, or "auto"')
    return int(text)


def _yes(said: Said) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    word = str(said.value).lower()
    if word not in words:
        raise _refuse(said, "true and false")
    return words[word]


def _pid(said: Said) -> int:
    return _whole(said, 2**22, "process ids")


def _whole(said: Said, most: int, allowed: str) -> int:
    text = said.value if isinstance(said.value, str) else _digits(said.value)
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= most:
        raise _refuse(said, allowed)
    return int(text)


def _digits(value: object) -> str:
    """TOML has true and 1.0 as well, which are no whole numbers."""
    return str(value) if type(value) is int and 0 <= value < 2**63 else ""


def _descriptor(said: Said) -> int:
    """Closed to the children at once: a worker that held it would hide the daemon's end."""
    try:
        fd = int(str(said.value))
        os.set_inheritable(fd, False)
    except (ValueError, OverflowError, OSError) as error:
        raise _refuse(said, "open file descriptors") from error
    return fd


def _memory(said: Said) -> int | None:
    if said.value == "auto":
        return None
    text = said.value if isinstance(said.value, str) else _digits(said.value)
    found = _SIZE.fullmatch(text)
    size = _bytes(*found.groups()) if found else 0
    if not 1 <= size < 2**63:
        raise _refuse(said, _SIZES)
    return size


def _cache_size(said: Said) -> int | None:
    """As ``memory``, but a share of the RAM would say nothing of a disk."""
    allowed = 'bytes, 512M, 1.5G, 2GiB (units of 1024), or "auto"'
    if isinstance(said.value, str) and said.value.endswith("%"):
        raise _refuse(said, allowed)
    try:
        return _memory(said)
    except InvalidArgument as error:
        raise _refuse(said, allowed) from error


def _worker_memory(said: Said) -> int | None:
    size = _memory(said)
    if size is not None and size < LEAST_WORKER_MEMORY:
        raise _refuse(said, "sizes from 64M on: a photo takes so much while it is decoded")
    return size


def _seconds(said: Said) -> float:
    """A time, as a number or as its text."""
    try:
        seconds = 0.0 if isinstance(said.value, bool) else float(str(said.value))
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 86400:  # also refuses nan
        raise _refuse(said, "seconds, from 0.1 to 86400")
    return seconds


def _share(said: Said) -> float:
    found = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?) ?%", str(said.value))
    share = float(found[1]) / 100 if found else 2.0
    if share > 1:
        raise _refuse(said, 'shares of the images, "0%" to "100%"')
    return share


def _pixels(said: Said) -> int:
    """A number of pixels; M is a million, as of megapixels."""
    text = said.value if isinstance(said.value, str) else _digits(said.value)
    found = re.fullmatch("([0-9]{1,12})(M?)", text)
    pixels = int(found[1]) * (10**6 if found[2] else 1) if found else 0
    if not 1 <= pixels <= 2**40:
        raise _refuse(said, 'whole numbers of pixels, or millions of them ("100M")')
    return pixels


def _default(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _bytes(number: str, unit: str) -> int:
    if unit == "%":
        share = Fraction(number) / 100
        return int(share * ram()) if share <= 1 else 0
    return int(Fraction(number) * _UNITS[unit.upper().rstrip("IB")])


def _memory_unasked() -> int:
    """A quarter of the RAM; what is free in /dev/shm limits each ring when it is opened."""
    try:
        return max(1, min(ram() // 4, segment.total()))
    except OSError as error:
        raise LoaderdError(f"there is no shared memory at {segment.SHM}: {error}") from error


def cpus(root: str = "") -> int:
    """The CPUs that this process may really use: affinity and cgroup quota, at least 1."""
    return max(1, min(len(os.sched_getaffinity(0)), *_cpu_quotas(root), 2**31))


def ram(root: str = "") -> int:
    """Bytes of memory that this process may use: the machine's, or its cgroup's if lower."""
    return min(psutil.virtual_memory().total, *_memory_limits(root), 2**63)


def _cpu_quotas(root: str) -> Iterator[int]:
    for group in _groups(root, "cpu"):
        both = _read(f"{group}/cpu.max")
        both = both or _read(f"{group}/cpu.cfs_quota_us") + " " + _read(
            f"{group}/cpu.cfs_period_us"
        )
        quota, _, period = both.partition(" ")
        if quota.isdecimal() and period.isdecimal() and int(period):
            yield int(quota) // int(period)


def _memory_limits(root: str) -> Iterator[int]:
    for group in _groups(root, "memory"):
        limit = _read(f"{group}/memory.max") or _read(f"{group}/memory.limit_in_bytes")
        if limit.isdecimal() and int(limit):
            yield int(limit)


def _groups(root: str, controller: str) -> Iterator[str]:
    """Folders of this process's cgroups of both versions, each with all that enclose it."""
    for line in _read(f"{root}/proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2, alone or beside version 1
            tops = ("", "/unified")
        elif controller in controllers.split(","):
            tops = (f"/{controllers}", f"/{controller}")
        else:
            continue
        for top in tops:
            yield from _upwards(f"{root}/sys/fs/cgroup{top}", path)


def _upwards(top: str, path: str) -> Iterator[str]:
    """In a container the path is the host's and only the top exists: it is our group then."""
    while path.strip("/"):
        yield top + path
        path = os.path.dirname(path)
    yield top


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
