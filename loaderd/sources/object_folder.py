"""Lists the objects below a URL as a directory of images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from loaderd import storage
from loaderd.errors import DatasetNotFound
from loaderd.ipc.text import printable
from loaderd.sources import object_store
from loaderd.sources.directory import Listing, list_samples
from loaderd.sources.object_store import MissingObject, Object
from loaderd.sources.retries import Retries
from loaderd.spec.source import Directory

_PAGE = 1000
"""Objects that a store tells of at once."""


class _ObjectTree:
    """Folders and files as the names of objects have them: parts of a key, between slashes.

    Args:
        objects: their keys, relative to the top.
    """

    def __init__(self, objects: Iterable[Object]) -> None:
        self._names: dict[str, list[str]] = defaultdict(list)
        for one in objects:
            folder, _, name = one.key.rpartition("/")
            self._names[folder].append(name)

    def folders(self) -> list[str]:
        """The folders at the top."""
        return list({folder.partition("/")[0] for folder in self._names if folder})

    def walk(self, folder: str) -> Iterable[tuple[str, list[str]]]:
        """The folders below one at the top, each with the names of its files."""
        for path, names in self._names.items():
            if not folder or path == folder:
                yield ("" if folder else path), names
            elif path.startswith(folder + "/"):
                yield path[len(folder) + 1 :], names


def list_objects(dataset: Directory, retries: Retries) -> Listing:
    """Lists the images below a URL, as those of a directory.

    Args:
        dataset: what to select; its directory is the URL.
        retries: how long the store is asked again.

    Raises:
        DatasetNotFound: there is no such bucket, or no object below the URL.
        InvalidArgument: ``classes`` or ``labels`` do not fit.
        StorageTimeout: the store cannot be reached.
        StorageRefused: the store refuses.
    """
    found = _found(dataset.directory, retries)
    listing = list_samples(dataset, _ObjectTree(found))
    versions = {os.fsencode(one.key): (one.version.size, one.version.state) for one in found}
    table = np.array([versions[name] for name in listing.filenames], np.int64).reshape(-1, 2)
    return Listing(
        listing.root, listing.class_names, listing.filenames, listing.labels, objects=table
    )


def _found(url: str, retries: Retries) -> list[Object]:
    def ask() -> list[Object]:
        found: list[Object] = []
        for one in object_store.listing(url):
            if len(found) % _PAGE == 0:
                storage.ask(url)  # restarts the time of waiting
            found.append(one)
        return found

    storage.ask(url)
    try:
        found = retries.run(url, ask)
    except MissingObject as error:
        raise DatasetNotFound(f"cannot list {printable(url)}: {error}") from error
    finally:
        storage.answered()
    if not found:
        raise DatasetNotFound(f"cannot list {printable(url)}: no object lies below it")
    return found
