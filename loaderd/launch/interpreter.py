"""The Python that runs a daemon, and how it is told what to run.

In a program that embeds Python, or was frozen, ``sys.executable`` is that program, empty, or
missing. It is never started: a second copy of it could do anything.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence

from loaderd.errors import NoDaemon
from loaderd.launch import search_path

_VARIABLE = "LOADERD_BOOT"
_BOOT = f'import os; exec(os.environ.pop("{_VARIABLE}"))'
_PYTHON = re.compile(r"(python|pypy)[0-9.]*[a-z]*")
_VERSION = "import sys; print(*sys.version_info[:2])"
_SECONDS = 10.0


def find() -> str:
    """The path of a Python of this version.

    Raises:
        NoDaemon: none is found.
    """
    if not getattr(sys, "frozen", False) and is_python(sys.executable):
        return sys.executable
    for path in _candidates():
        if is_python(path) and _is_this_version(path):
            return path
    raise NoDaemon(
        f"no Python {_version()} is found that could run a daemon: this program's sys.executable "
        f"is {sys.executable!r}, and there is none in {sys.exec_prefix}; start one with "
        "`loaderd start`, or set sys.executable to a Python"
    )


def is_python(path: str | None) -> bool:
    """Whether a path looks like that of a Python, and can be run."""
    if not path or not os.path.isabs(path):
        return False
    named = _PYTHON.fullmatch(os.path.basename(path))
    return bool(named) and os.path.isfile(path) and os.access(path, os.X_OK)


def command() -> list[str]:
    """How a Python is started that runs what the variables of ``environment`` say.

    Raises:
        NoDaemon: none is found.
    """
    return [find(), *_flags(), "-c", _BOOT]


def environment(path: Sequence[str], program: str, before: str = "") -> dict[str, str]:
    """The variables for a Python that runs a program and finds modules in certain folders.

    Args:
        path: the folders, before those that the Python knows itself.
        program: its text.
        before: what is run before the folders are set, and may use no module but Python's own.
    """
    folders = f"path = {list(path)!r}; sys.path[:] = path + [x for x in sys.path if x not in path]"
    known = {**os.environ, _VARIABLE: f"import os, sys\n{before}\n{folders}\n{program}\n"}
    if "PYTHONPATH" in known:
        known["PYTHONPATH"] = search_path.variable()
    return known


def _flags() -> list[str]:
    """How this Python was told to look for modules, for another one that shall find the same."""
    told = {
        "-I": sys.flags.isolated,
        "-E": sys.flags.ignore_environment,
        "-s": sys.flags.no_user_site,
        "-S": sys.flags.no_site,
        "-B": sys.flags.dont_write_bytecode,
    }
    # -P: no module of the working directory takes another's place.
    return ["-P", *(flag for flag, is_told in told.items() if is_told)]


def _candidates() -> Iterator[str]:
    folders = [os.path.join(prefix, "bin") for prefix in (sys.exec_prefix, sys.base_exec_prefix)]
    folders.append(sysconfig.get_config_var("BINDIR") or "")
    for folder in dict.fromkeys(filter(None, folders)):
        for name in (f"python{_version()}", "python3", "python"):
            yield os.path.join(folder, name)


def _version() -> str:
    return "{}.{}".format(*sys.version_info[:2])


def _is_this_version(path: str) -> bool:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run(
            [path, "-I", "-S", "-c", _VERSION],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=True,
        ).stdout
        return told.decode().split() == [str(number) for number in sys.version_info[:2]]
    return False
