"""Where a daemon looks for modules: in the same folders as the program that starts it.

A fresh interpreter lacks what the starter found through a relative ``PYTHONPATH``, through
folders that it added to ``sys.path`` itself, or beside its script. So the daemon gets the
starter's whole ``sys.path``, in its order and with absolute paths, except the script's own folder:
a ``types.py`` there must not replace a module. That folder comes last, and only if it holds
something that the daemon needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec

NEEDED = (
    "loaderd",
    "msgspec",
    "numpy",
    "psutil",
    "rich",
    "PIL",
    "cv2",
    "simplejpeg",
    "scipy",
    "cloudpickle",
)
"""Packages that a daemon imports."""


def entries() -> list[str]:
    """The daemon's ``sys.path``: absolute paths, each once."""
    explicit, script = set(variable()), _script_folders()
    texts = [entry for entry in sys.path if isinstance(entry, str)]
    folders = [
        folder
        for entry in texts
        if (folder := absolute(entry)) is not None
        and (folder in explicit or not script & {entry, folder})
    ]
    return list(dict.fromkeys([*folders, *_homes()]))


def folders() -> list[str]:
    """This process's ``sys.path`` for a child of it: absolute paths."""
    given = (absolute(entry) for entry in sys.path if isinstance(entry, str))
    return [folder for folder in given if folder is not None]


def absolute(entry: str) -> str | None:
    """The folder of an entry of ``sys.path``; None if the working directory is gone.

    A relative entry counts from the working directory of the time when it was first used.
    """
    finder = sys.path_importer_cache.get(entry)
    try:
        return os.path.abspath(getattr(finder, "path", None) or entry)
    except OSError:
        return None


def variable() -> list[str]:
    """The folders of ``PYTHONPATH``; relative ones count from where this process was started."""
    if sys.flags.ignore_environment:
        return []
    started_in = os.environ.get("PWD", "")
    found: list[str] = []
    for entry in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        meant = [os.path.normpath(os.path.join(started_in, entry)), absolute(entry)]
        known = [folder for folder in meant if folder and folder in sys.path]
        found += [entry] if os.path.isabs(entry) else known[:1]
    return found


def _script_folders() -> set[str]:
    """What Python has put in front of ``sys.path``: the script's folder, or the current one."""
    if sys.flags.safe_path:
        return set()
    folders = {""}
    script = sys.modules.get("__main__")
    file = getattr(script, "__file__", None)
    if file:
        folders.add(os.path.dirname(os.path.realpath(file)))
        folders.add(os.path.dirname(absolute(file) or ""))
    if not file or getattr(script, "__spec__", None) is not None:  # python -m, -c, or no script
        folders |= {absolute("") or "", os.environ.get("PWD", "")}
    return folders


def _homes() -> Iterator[str]:
    """The folders in which this process finds the packages that a daemon needs."""
    for name in NEEDED:
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):  # a module made by hand has no spec
            continue
        inner = list(spec.submodule_search_locations or ()) if spec else []
        where = inner[0] if inner else spec.origin if spec and spec.has_location else None
        home = absolute(os.path.dirname(where)) if where else None
        if home is not None:
            yield home
