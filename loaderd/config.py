"""The daemon's settings: one table of them, and where their values come from.

::

    flags  >  LOADERD_* variables  >  TOML file  >  defaults
    └─ each is a layer: name → (value, where it was said) ─┘

The first layer that holds a setting decides it. After :func:`load` nothing is checked again.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple, get_type_hints

from loaderd import machine
from loaderd import setting_types as types
from loaderd.errors import InvalidArgument, LoaderdError
from loaderd.ipc import address, segment
from loaderd.setting_types import Said

Layer = Mapping[str, Said]


class Setting(NamedTuple):
    """How one setting is said and described.

    Attributes:
        name: the field of Settings, and the key in the file.
        type: makes its value of what was said; raises InvalidArgument.
        default: the text that is said by default; None for the value None.
        metavar: what stands for the value in the help.
        help: what it decides. A setting without help is for programs that start a daemon: its
            flag is hidden, and it has neither variable nor key.
    """

    name: str
    type: types.Type[object]
    default: str | None = None
    metavar: str | None = None
    help: str = ""

    @property
    def flag(self) -> str:
        """The option on the command line."""
        no = "no-" if self.type is types.switch else ""
        return f"--{no}{self.name.replace('_', '-')}"

    @property
    def is_flag(self) -> bool:
        """Whether the option has no value."""
        return self.type in (types.switch, types.opt_in)

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"LOADERD_{self.name.upper()}"


def _auto_memory() -> int:
    """A quarter of the RAM; what is free in /dev/shm limits each ring when it is opened."""
    try:
        return max(1, min(machine.ram() // 4, segment.total()))
    except OSError as error:
        raise LoaderdError(f"there is no shared memory at {segment.SHM}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What one daemon runs with, and the table of all settings.

    A field is a setting: behind the type of its value stand the attributes of :class:`Setting`.
    Flag, variable, key in the file, help and the row in docs/reference/loaderd.md follow from
    them. To add a setting, add a field, and have ``python -m scripts.reference`` write the page.
    Sizes are in bytes, times in seconds, shares from 0 to 1.
    """

    name: Annotated[str, types.text, "default", "NAME", "the daemon's name"]
    socket: Annotated[
        str, types.text, None, "PATH", "the path of the daemon's socket, in place of a name"
    ]
    config: Annotated[str | None, types.text, None, "FILE", "a TOML file with settings"]
    workers: Annotated[
        int,
        types.workers,
        "auto",
        "N",
        "worker processes, 1 to 512; auto is one for each CPU that may be used, by affinity and "
        "cgroup quota, and fewer while rings stay full without them",
    ]
    ray: Annotated[
        str | None,
        types.cluster,
        None,
        "ADDRESS",
        "the Ray cluster whose machines lend workers: HOST:PORT of its head, or auto for the one "
        "that this machine belongs to",
    ]
    ray_workers: Annotated[
        types.WorkerRange,
        types.worker_range,
        "64",
        "N",
        "the most workers that the cluster lends, 1 to 512, as it has free CPUs; with MIN:MAX the "
        "daemon begins to serve when MIN have joined",
    ]
    memory: Annotated[
        int,
        types.or_auto(types.size, _auto_memory),
        "auto",
        "SIZE",
        "the most that all rings together may take; auto is a quarter of the RAM, or of the "
        "cgroup's limit, and at most the size of /dev/shm",
    ]
    cache_dir: Annotated[
        str,
        types.folder,
        "$XDG_CACHE_HOME/loaderd",
        "DIR",
        "the folder of the caches on disk, created for its user alone when it is first needed",
    ]
    cache_size: Annotated[
        int | None,
        types.cache_size,
        "auto",
        "SIZE",
        "the most that all caches on disk may take together, and the most that all caches in "
        "memory may; auto is half of what is free on the disk or taken by caches there, and a "
        "quarter of the RAM, or of the cgroup's limit",
    ]
    nice: Annotated[
        int,
        types.niceness,
        "auto",
        "N",
        "niceness of the workers above that of the daemon, 0 to 19; auto is 0",
    ]
    user_code: Annotated[
        bool,
        types.switch,
        "true",
        None,
        "refuse functions of the user's, but for preprocess_input of keras.applications",
    ]
    sample_timeout: Annotated[
        float,
        types.seconds,
        "30",
        "SEC",
        "seconds that one sample may take, 0.1 to 86400, not counting waits for storage; "
        "then its worker is killed and replaced, and the sample is tried again",
    ]
    io_timeout: Annotated[
        float,
        types.seconds,
        "600",
        "SEC",
        "seconds that storage may take to answer, 0.1 to 86400; then the stream that waits for "
        "it ends with StorageTimeout",
    ]
    share_lag: Annotated[
        float,
        types.seconds,
        "10",
        "SEC",
        "seconds that the trainers of a shared stream wait for one of them, 0.1 to 86400; then "
        "that one goes on with a stream of its own",
    ]
    grace: Annotated[
        float,
        types.seconds,
        "5",
        "SEC",
        "seconds that a drain may take, 0.1 to 86400; batches unfinished by then are dropped",
    ]
    max_bad: Annotated[
        float,
        types.share,
        "1%",
        "SHARE",
        "the share of a dataset's images, 0% to 100%, rounded up, that a stream may substitute "
        "or skip, as its on_error says; with one more it ends with TooManyBadImages",
    ]
    max_pixels: Annotated[
        int | None,
        types.pixels,
        None,
        "N",
        "pixels above which an image counts as bad and is not decoded, as a number or in "
        "millions (100M); where it is not set, PIL's limit counts: 178956970, or what the "
        "program has set as PIL.Image.MAX_IMAGE_PIXELS",
    ]
    worker_memory: Annotated[
        int,
        types.worker_memory,
        "auto",
        "SIZE",
        "the most that one worker may take for images and user code, 64M or more; auto is half "
        "of the RAM, or of the cgroup's limit, and at least 2 GiB",
    ]
    http: Annotated[
        tuple[str, int] | None,
        types.listen_address,
        None,
        "[HOST:]PORT",
        "serves a page that shows the daemon in the browser, and metrics for Prometheus, at this "
        "port of the loopback or of a host; the log has its address, with a token",
    ]
    metrics_open: Annotated[
        bool, types.opt_in, "false", None, "the page's /metrics can be read without the token"
    ]
    # For programs that start a daemon: the process that it ends with, the socket by which that
    # process connects, and the pipe to write to when it serves.
    owner: Annotated[int | None, types.process_id]
    control_fd: Annotated[int | None, types.descriptor]
    ready_fd: Annotated[int | None, types.descriptor]

    @property
    def silence(self) -> float:
        """Seconds after which a worker in a chunk reports, and the supervisor looks at it."""
        return min(1.0, self.sample_timeout / 4)

    @property
    def memory_cache(self) -> int:
        """Bytes that caches in memory may take together: what the rings leave, at most."""
        left = segment.free() * 9 // 10 - self.memory
        return max(0, min(self.cache_size or machine.ram() // 4, left))


_HINTS = get_type_hints(Settings, include_extras=True)
SETTINGS = {name: Setting(name, *hint.__metadata__) for name, hint in _HINTS.items()}
VARIABLES = {name: setting.variable for name, setting in SETTINGS.items() if setting.help}
FILE_KEYS = tuple(name for name in VARIABLES if name != "config")
"""What a TOML file may hold."""


@dataclass(frozen=True)
class Address:
    """Which daemon is meant.

    Attributes:
        name: its name, for messages.
        socket: the absolute path that it listens at.
        chosen: whether a flag, a variable or the file says so; otherwise it is the default.
    """

    name: str
    socket: str
    chosen: bool


def load(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Settings:
    """All settings, checked.

    Args:
        flags: command-line options by name; None where one is absent. ``config``
            names the TOML file, and so does ``LOADERD_CONFIG``.
        environ: the process's variables.

    Raises:
        InvalidArgument: a value is not allowed; the text says whose and what is.
    """
    layers = _layers(flags, environ)
    where = _address(layers)
    values = {name: _value(layers, name) for name in SETTINGS}
    return Settings(**{**values, "name": where.name, "socket": where.socket})


def locate(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Address:
    """Only which daemon is meant, for commands that ask one that runs.

    Raises:
        InvalidArgument: a name or a path is not allowed.
    """
    return _address(_layers(flags, environ))


def locate_cache(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> str:
    """Only the folder of the caches on disk.

    Raises:
        InvalidArgument: the path is not allowed.
    """
    return str(_value(_layers(flags, environ), "cache_dir"))


def _layers(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Sequence[Layer]:
    flagged = {
        name: Said(value, setting.flag)
        for name, setting in SETTINGS.items()
        if (value := flags.get(name)) is not None
    }
    # An empty variable counts as unset, as shells have no other way to say so in passing.
    named = {key: Said(environ[name], name) for key, name in VARIABLES.items() if environ.get(name)}
    config = flagged.get("config") or named.get("config")
    return [flagged, named, _file(config) if config else {}, _defaults(environ)]


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


def _defaults(environ: Mapping[str, str]) -> Layer:
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG specification has relative paths ignored
        base = os.path.join("~", ".cache")
    texts = {name: setting.default for name, setting in SETTINGS.items()}
    texts["cache_dir"] = os.path.join(base, "loaderd")
    return {name: Said(text, f"the default {name}") for name, text in texts.items() if text}


def _value(layers: Sequence[Layer], name: str) -> Any:
    said = next((layer[name] for layer in layers if name in layer), None)
    return None if said is None else SETTINGS[name].type(said)


def _address(layers: Sequence[Layer]) -> Address:
    """A name in a stronger layer wins over a socket in a weaker one."""
    layer = next(layer for layer in layers if "socket" in layer or "name" in layer)
    name = types.text(layer["name"]) if "name" in layer else None
    socket = types.text(layer["socket"]) if "socket" in layer else None
    try:
        path = address.socket_path(name, socket)
    except InvalidArgument as error:
        origin = layer["socket" if socket else "name"].origin
        raise InvalidArgument(f"{origin}: {error}") from error
    found = name or os.path.basename(path).removesuffix(".sock")
    return Address(found, path, chosen=layer is not layers[-1])
