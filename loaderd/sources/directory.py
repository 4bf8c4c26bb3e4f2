"""Lists the classes and files of a directory, in Keras's order.

Keras has two rules. ``ImageDataGenerator`` takes all subfolders as classes and splits
each class; ``image_dataset_from_directory`` skips dot-folders, may ignore the
subfolders altogether, and shuffles and splits the whole list. Both list a class in the
same way: ``os.walk``, folders sorted by path, names sorted within a folder. The fields
of :class:`~loaderd.spec.source.Directory` choose between the rules; the tests compare both
with Keras itself.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from loaderd import storage
from loaderd.errors import DatasetNotFound, InvalidArgument
from loaderd.ipc.manifest import Members
from loaderd.spec.source import Directory

Labels = npt.NDArray[np.int32]
Answer = TypeVar("Answer")

_ADVICE = {
    errno.ENOENT: "it does not exist: check the path",
    errno.ENOTDIR: "it is not a directory: name the folder that holds the images",
    errno.EACCES: "permission denied: the daemon's user needs read and search permission",
}

_BATCH = 128
"""Entries of a folder per record of a storage access; each may need one of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The samples of a dataset; sample i is ``filenames[i]`` with ``labels[i]``.

    Attributes:
        root: the directory, as in the spec.
        class_names: names of the classes in label order; empty if there are no labels.
        filenames: paths relative to ``root``, as the file system's bytes.
        labels: int32 of shape (n,); zeros if there are no labels.
        members: where they lie, if that is in archives.
        objects: int64 (n, 2), size and state of each, if they are objects of a store.
        masks: those of the samples, in their order, if they are members of archives.
    """

    root: str
    class_names: tuple[str, ...]
    filenames: list[bytes]
    labels: Labels
    members: Members | None = None
    objects: npt.NDArray[np.int64] | None = None
    masks: Listing | None = None


class Tree(Protocol):
    """The folders and files of a dataset, wherever they lie."""

    def folders(self) -> list[str]:
        """The folders at the top, in any order."""

    def walk(self, folder: str) -> Iterable[tuple[str, list[str]]]:
        """All folders below one at the top, itself included, in any order; none if it is missing.

        Args:
            folder: its name; empty for the whole tree.

        Returns:
            (path relative to that folder, names of the files in it).
        """


class _LocalTree:
    """A directory."""

    def __init__(self, dataset: Directory) -> None:
        self._top = dataset.directory
        self._follow_links = dataset.follow_links

    def folders(self) -> list[str]:
        return _scan(self._top)[0]  # raises if it is not readable

    def walk(self, folder: str) -> Iterable[tuple[str, list[str]]]:
        top = os.path.join(self._top, folder)
        if not _timed(os.path.isdir, top):
            return ()  # a given class without a folder
        return _walk(top, self._follow_links)


def list_samples(dataset: Directory, tree: Tree | None = None) -> Listing:
    """Lists the samples of a dataset in Keras's order; an empty listing is no error here.

    Two differences from Keras are deliberate. An unreadable folder is an error, where Keras
    skips it. With ``follow_links``, a folder that is reached more than once within a class
    counts once, so that a loop of links ends; Keras lists it repeatedly.

    Args:
        dataset: what to select.
        tree: its files; None for those of its directory.

    Raises:
        DatasetNotFound: the directory is missing, or a folder is not readable.
        InvalidArgument: ``classes`` or ``labels`` do not fit the directory.
    """
    tree = tree or _LocalTree(dataset)
    folders = chosen_folders(dataset, sorted(tree.folders()))
    files = [_class_files(dataset, tree, folder) for folder in folders]
    filenames = _encode(list(chain.from_iterable(files)))
    labels = _folder_labels(folders, [len(names) for names in files])
    class_names = () if dataset.flat else tuple(folders)
    if dataset.labels is not None:
        labels = _given_labels(dataset, len(filenames))
        class_names = tuple(str(label) for label in sorted(set(dataset.labels)))
    kept = kept_samples(dataset, len(filenames))
    if kept is not None:
        filenames, labels = [filenames[i] for i in kept.tolist()], labels[kept]
    return Listing(dataset.directory, class_names, filenames, labels)


def chosen_folders(dataset: Directory, folders: list[str]) -> list[str]:
    """The class folders in label order, of all that there are.

    The nameless one is the directory itself.

    Raises:
        InvalidArgument: ``classes`` names others.
    """
    if dataset.flat:
        return [""]
    classes = dataset.classes or ()
    if not dataset.hidden:
        folders = [name for name in folders if not name.startswith(".")]
        if not set(classes).issubset(folders):
            raise InvalidArgument(
                "The `class_names` passed did not match the names of the subdirectories of the "
                f"target directory. Expected: {folders} (or a subset of it), "
                f"but received: class_names={list(classes)}"
            )
    return list(classes or folders)


def _class_files(dataset: Directory, tree: Tree, folder: str) -> list[str]:
    """Paths that are kept, relative to the directory: folders sorted by path, then names sorted."""
    files: list[str] = []
    for path, names in sorted(tree.walk(folder)):
        prefix = os.path.join(folder, path, "") if folder or path else ""
        images = [name for name in names if name.lower().endswith(dataset.extensions)]
        files += [prefix + name for name in sorted(images)]
    start, stop = dataset.split_per_class or (0.0, 1.0)
    return files[int(start * len(files)) : int(stop * len(files))]


def _walk(top: str, follow_links: bool) -> Iterator[tuple[str, list[str]]]:
    """Yields (path relative to top, file names) of every folder, in any order.

    With links, real folders come before them, and links in sorted order, and each real folder
    counts once: so the path under which it is listed does not depend on the file system's order.
    """
    real, links = [""], list[str]()
    seen = set[tuple[int, int]]()
    while real or links:
        path = real.pop() if real else links.pop()
        if follow_links and not _is_new(os.path.join(top, path), seen):
            continue
        folders, files = _scan(os.path.join(top, path))
        for name in (os.path.join(path, name) for name in folders):
            if not _timed(os.path.islink, os.path.join(top, name)):
                real.append(name)
            elif follow_links:
                links.append(name)
        links.sort(reverse=True)
        yield path, files


def _is_new(path: str, seen: set[tuple[int, int]]) -> bool:
    try:
        status = _timed(os.stat, path)
    except OSError as error:
        raise _not_listed(path, error) from error
    identity = (status.st_dev, status.st_ino)
    new = identity not in seen
    seen.add(identity)
    return new


def _timed(what: Callable[[str], Answer], path: str) -> Answer:
    with storage.asking(path):
        return what(path)


def _scan(path: str) -> tuple[list[str], list[str]]:
    """Names of the folders (links to folders too) and of all else, unsorted."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with storage.asking(path), os.scandir(path) as entries:
            while some := list(islice(entries, _BATCH)):
                storage.ask(path)  # restarts the time of waiting
                for entry in some:
                    (folders if _is_folder(entry) else files).append(entry.name)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise _not_listed(path, error) from error
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself counts as a file, as in os.walk
        return False


def _not_listed(path: str, error: OSError | ValueError) -> DatasetNotFound:
    number = error.errno if isinstance(error, OSError) else None
    reason = _ADVICE.get(number or 0, str(error))
    return DatasetNotFound(f"cannot list the directory {path.rstrip('/') or '/'!r}: {reason}")


def _folder_labels(folders: list[str], counts: list[int]) -> Labels:
    number = {name: i for i, name in enumerate(folders)}  # the last index of a name given twice
    return np.repeat(np.array([number[name] for name in folders], np.int32), counts)


def _given_labels(dataset: Directory, count: int) -> Labels:
    labels = dataset.labels or ()
    if len(labels) != count:
        raise InvalidArgument(
            "Expected the lengths of `labels` to match the number of files in the target "
            f"directory. len(labels) is {len(labels)} while we found {count} files "
            f"in directory {dataset.directory}."
        )
    try:
        return np.array(labels, np.int32)
    except OverflowError as error:
        raise InvalidArgument("`labels` must be whole numbers of 32 bits") from error


def kept_samples(dataset: Directory, count: int) -> npt.NDArray[np.int64] | None:
    """The samples left after shuffling and splitting, in order; None if all, unshuffled.

    Keras shuffles paths and labels separately from the same seed; as the draws depend on the
    length only, one shuffled range of numbers serves both. The slices are exactly Keras's: if
    the fraction of a small dataset rounds to no sample, ``validation`` is everything and
    ``training`` is empty.
    """
    if dataset.shuffle_seed is None and not dataset.split_overall:
        return None
    kept = np.arange(count)
    if dataset.shuffle_seed is not None:
        np.random.RandomState(dataset.shuffle_seed).shuffle(kept)
    fraction, subset = dataset.split_overall or (0.0, "training")
    if not fraction:
        return kept
    held_out = int(fraction * count)
    return kept[:-held_out] if subset == "training" else kept[-held_out:]


def _encode(names: list[str]) -> list[bytes]:
    """Encodes all names at once, five times as fast as one by one."""
    return os.fsencode("\0".join(names)).split(b"\0") if names else []
