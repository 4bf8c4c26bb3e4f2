"""The Python that runs a daemon, and the command and variables to start it with.

In a program that embeds Python, or was frozen, ``sys.executable`` is that program, empty, or
missing. It is never started again: a second copy of the program could have any effect.
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
_VERSION = 'import sys; print("{}.{}".format(*sys.version_info[:2]))'
_SECONDS = 10.0


def find() -> str:
    """Find a Python of this version; return its path.

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
    """The command of a Python that runs the program in the variables of ``environment``.

    Raises:
        NoDaemon: none is found.
    """
    return [find(), *_flags(), "-c", _BOOT]


def environment(path: Sequence[str], program: str, before: str = "") -> dict[str, str]:
    """The environment of a Python that runs a program and finds modules in certain folders.

    Args:
        path: the folders, before those that the Python knows itself.
        program: its text.
        before: what is run before the folders are set; it may import Python's own modules only.
    """
    folders = f"path = {list(path)!r}; sys.path[:] = path + [x for x in sys.path if x not in path]"
    known = {**os.environ, _VARIABLE: f"import os, sys\n{before}\n{folders}\n{program}\n"}
    if "PYTHONPATH" in known:
        known["PYTHONPATH"] = os.pathsep.join(search_path.variable())
    return known


def _flags() -> list[str]:
    """The options of this Python that decide where modules are found."""
    options = {
        "-I": sys.flags.isolated,
        "-E": sys.flags.ignore_environment,
        "-s": sys.flags.no_user_site,
        "-S": sys.flags.no_site,
        "-B": sys.flags.dont_write_bytecode,
    }
    # -P: no modules of the working directory.
    return ["-P", *(flag for flag, is_set in options.items() if is_set)]


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
        answer = subprocess.check_output(
            [path, "-I", "-S", "-c", _VERSION],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
        )
        return answer.decode().strip() == _version()
    return False
