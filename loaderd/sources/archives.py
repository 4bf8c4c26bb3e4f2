"""Lists the samples of archives, by their indexes.

Samples are in the order of the archives, and in an archive in that of its members. Those of class
folders are in the order of a directory into which all archives were unpacked, so that they make
the same batches as the directory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loaderd import storage
from loaderd.errors import BadArchive, InvalidArgument
from loaderd.ipc.manifest import Archive, Location, Members
from loaderd.ipc.text import printable, readable
from loaderd.sources import codecs, index_file
from loaderd.sources.archive_index import index_of
from loaderd.sources.directory import Listing, chosen_folders, kept_samples
from loaderd.sources.groups import Recipe
from loaderd.sources.index_file import FOLDER, ArchiveIndex
from loaderd.sources.remote_file import open_ranged
from loaderd.sources.retries import Retries
from loaderd.spec import url as urls
from loaderd.spec.source import Archives

_THREADS = 8
"""Archives that are indexed at once: most of the time is spent waiting for a disk."""

_REPORT_SECONDS = 0.5

FIRST_ANSWER_SECONDS = 30.0
"""Of an object store, which is more likely to be named wrongly than to be away for longer."""

_MAX_CLASSES = 2**17

Report = Callable[[float, int, int], None]
"""Called with the fraction of all bytes that were looked through, with the archives that are
indexed, and with how many there are."""


class _Sample(NamedTuple):
    """One of the listing, before it is packed."""

    archive: int
    row: int
    label: int


class Indexer:
    """Makes the indexes of archives, several at once, or takes them from the cache folder.

    Args:
        paths: of the archives.
        recipe: what to look for.
        cache_dir: the folder of the caches.
        retries: how long an object store is asked again; None for 30 s.
    """

    def __init__(
        self,
        paths: Sequence[str],
        recipe: Recipe,
        cache_dir: str,
        retries: Retries | None = None,
    ) -> None:
        self._paths = paths
        self._shown = [urls.shown(path) for path in paths]
        self._recipe = recipe
        self._retries = retries or Retries(FIRST_ANSWER_SECONDS)
        self._folder = os.path.join(cache_dir, FOLDER)
        self._looked = [0] * len(paths)
        self._sizes = [0] * len(paths)

    def run(self, report: Report) -> list[ArchiveIndex]:
        """The indexes, in the order of the archives.

        Args:
            report: told about twice a second how far it is, while it goes on.

        Raises:
            BadArchive: an archive cannot be read, or its members make no samples.
            CacheError: the indexes cannot be kept in the cache folder.
            StorageTimeout: an object store cannot be reached.
            StorageRefused: an object store refuses.
        """
        with ThreadPoolExecutor(min(_THREADS, len(self._paths))) as pool:
            made = [pool.submit(self._index, number) for number in range(len(self._paths))]
            try:
                self._watch(made, report)
                index_file.remove_unused(self._folder)
                return [one.result() for one in made]
            finally:
                self._retries.stopped.set()
                pool.shutdown(cancel_futures=True)

    def _watch(self, made: Sequence[Future[ArchiveIndex]], report: Report) -> None:
        """Waits for all, or for the first error; records which archive does not go on."""
        seen = (-1, 0.0)
        try:
            for number, path in enumerate(self._paths):
                storage.ask(self._shown[number])
                self._sizes[number] = _size_of(path)
            while True:
                done, left = wait(made, _REPORT_SECONDS, FIRST_EXCEPTION)
                for one in made:
                    if one in done:
                        one.result()  # raises the error of the first archive that has one
                if not left:
                    return
                looked = sum(self._looked)
                # Who computes does not wait for storage, though it looks at nothing new.
                before, seen = seen, (looked, round(time.process_time(), 1))
                if seen != before:
                    first = next((n for n, one in enumerate(made) if not one.done()), None)
                    if first is None:
                        continue  # the last one ended meanwhile
                    storage.ask(self._shown[first])
                    report(looked / max(1, sum(self._sizes)), len(done), len(made))
        finally:
            storage.answered()

    def _index(self, number: int) -> ArchiveIndex:
        def progress(looked: int) -> None:
            self._looked[number] = looked
            if self._retries.stopped.is_set():
                raise BadArchive(f"{readable(self._shown[number])}: another one failed")

        path = self._paths[number]
        file = open_ranged(path, self._retries)
        self._sizes[number] = file.nbytes
        return index_of(path, self._recipe, self._folder, progress, file)


def _size_of(path: str) -> int:
    """Of a file, before it is opened; that of an object is not known by then."""
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0  # reading it raises the error


def list_members(source: Archives, indexes: Sequence[ArchiveIndex]) -> Listing:
    """Lists the samples of archives; an empty listing is no error here.

    Args:
        source: what to select.
        indexes: of its archives.

    Raises:
        BadArchive: the archives do not fit one another, or there are samples without a class.
        InvalidArgument: ``classes`` do not fit the archives.
        MissingDependency: what decompresses them is not installed.
    """
    filled = [number for number, one in enumerate(indexes) if one.layout is not None]
    _check_alike(source, indexes, filled)
    if filled and indexes[filled[0]].layout != "folders":
        names, samples = _grouped(source, indexes)
    else:
        names, samples = _in_folders(source, indexes)
    kept = kept_samples(source, len(samples))
    if kept is not None:
        samples = [samples[i] for i in kept.tolist()]
    return _listing(source, indexes, names, samples)


def _check_alike(source: Archives, indexes: Sequence[ArchiveIndex], filled: list[int]) -> None:
    for number in filled:
        first, one = indexes[filled[0]], indexes[number]
        if _form(one) != _form(first):
            raise BadArchive(
                f"{_shown(source.paths[number])}: it holds {_kind(one)}, and "
                f"{_shown(source.paths[filled[0]])} {_kind(first)}: archives of one dataset are "
                "alike; `format` and `label` say which they are"
            )


def _form(index: ArchiveIndex) -> object:
    return index.layout, index.label, index.class_names


def _shown(path: str) -> str:
    return readable(urls.shown(path))


def _kind(index: ArchiveIndex) -> str:
    if index.layout == "folders":
        return "images in class folders"
    if not index.label:
        return "samples without labels"
    names = f" of classes {printable(', '.join(index.class_names))}" if index.class_names else ""
    where = f".{index.label}" if index.layout == "webdataset" else f"the column {index.label}"
    return f"samples with labels in {where}{names}"


def _grouped(
    source: Archives, indexes: Sequence[ArchiveIndex]
) -> tuple[tuple[str, ...], list[_Sample]]:
    """Classes and samples of archives that hold a label for each sample."""
    if source.flat or source.label is None:
        counts = [len(index.locations) for index in indexes]
        return (), [_Sample(at, row, 0) for at, n in enumerate(counts) for row in range(n)]
    labels: list[tuple[int, int, int | str]] = [
        (at, row, label)
        for at, one in enumerate(indexes)
        for row, label in enumerate(one.labels or ())
    ]
    numbers = [label for _, _, label in labels if isinstance(label, int)]
    if len(numbers) == len(labels):
        known = next((one.class_names for one in indexes if one.layout is not None), None)
        names = _numbered(source, max(numbers, default=-1) + 1, known)
        return names, [_Sample(at, row, int(label)) for at, row, label in labels]
    if numbers:
        raise BadArchive(
            f"{readable(source.directory)}: the labels of some archives are whole numbers, and "
            "those of others names"
        )
    there = {str(label) for _, _, label in labels}
    names = tuple(chosen_folders(source, sorted(there)))
    _check_number(source, len(names))
    number = {name: place for place, name in enumerate(names)}
    return names, [_Sample(at, row, number[str(one)]) for at, row, one in labels if one in number]


def _numbered(source: Archives, count: int, known: Sequence[str] | None) -> tuple[str, ...]:
    """The names of classes 0 to ``count - 1``: those asked for, or those that archives have."""
    _check_number(source, count)
    if source.classes is None:
        given = tuple(known or ())
        return given + tuple(map(str, range(len(given), count)))
    if len(source.classes) < count:
        raise InvalidArgument(
            f"`class_names` has {len(source.classes)} names, and the labels of "
            f"{printable(source.directory)} are up to {count - 1}"
        )
    return source.classes


def _check_number(source: Archives, count: int) -> None:
    if count > _MAX_CLASSES:
        raise BadArchive(
            f"{readable(source.directory)}: there would be {count:,} classes, and at most "
            f"{_MAX_CLASSES:,} are allowed: does what `label` names hold classes?"
        )


def _in_folders(
    source: Archives, indexes: Sequence[ArchiveIndex]
) -> tuple[tuple[str, ...], list[_Sample]]:
    """Classes and samples of class folders, in the order of a directory."""
    top = source.folder.strip("/") + "/" if source.folder.strip("/") else ""
    folders = {
        one[len(top) :].partition("/")[0]
        for index in indexes
        for one in index.folders
        if one.startswith(top)
    }
    names = chosen_folders(source, sorted(folders - {""}))
    number = {name: place for place, name in enumerate(names)}
    found = []
    for at, index in enumerate(indexes):
        for row, name in enumerate(index.names):
            if not name.startswith(top):
                continue
            folder, _, last = name[len(top) :].rpartition("/")
            group, _, rest = ("", "", folder) if source.flat else folder.partition("/")
            if group in number and (source.flat or folder):
                found.append((number[group], rest, last, at, row))
    found.sort()
    return (() if source.flat else tuple(names)), [
        _Sample(at, row, n) for n, _, _, at, row in found
    ]


def _listing(
    source: Archives,
    indexes: Sequence[ArchiveIndex],
    class_names: tuple[str, ...],
    samples: Sequence[_Sample],
) -> Listing:
    archives = tuple(
        Archive(path, one.size, one.mtime, one.tag)
        for path, one in zip(source.paths, indexes, strict=True)
    )
    masks = None
    if source.masks:
        of_masks = [_Found(one.mask_names, one.mask_locations) for one in indexes]
        masks = _members(archives, of_masks, (), samples)
    found = [_Found(one.names, one.locations) for one in indexes]
    return replace(_members(archives, found, class_names, samples), masks=masks)


class _Found(NamedTuple):
    """Members of an archive: their names, and where they lie; see :class:`ArchiveIndex`."""

    names: list[str]
    locations: NDArray[np.int64]


def _members(
    archives: tuple[Archive, ...],
    found: Sequence[_Found],
    class_names: tuple[str, ...],
    samples: Sequence[_Sample],
) -> Listing:
    """The listing of members, given those of each archive."""
    root, short = relative([one.path for one in archives])
    locations = _locations([one.locations for one in found], samples)
    codecs.check(np.unique(locations[:, Location._fields.index("codec")]).tolist())
    joined = "\0".join(
        f"{short[one.archive]}/{found[one.archive].names[one.row]}" for one in samples
    )
    return Listing(
        root,
        class_names,
        os.fsencode(joined).split(b"\0") if samples else [],
        np.array([one.label for one in samples], np.int32),
        Members(archives, locations),
    )


def relative(paths: Sequence[str]) -> tuple[str, list[str]]:
    """The folder above all archives, and their paths below it, as names of samples have them."""
    if urls.is_url(paths[0]):
        root = urls.common_folder(paths)
        return root, [urls.below(path, root) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return root, [os.path.relpath(path, root) for path in paths]


def _locations(found: Sequence[NDArray[np.int64]], samples: Sequence[_Sample]) -> NDArray[np.int64]:
    firsts = np.cumsum([0, *map(len, found)])
    numbers = np.array([one[:2] for one in samples], np.int64).reshape(-1, 2)
    rows = np.concatenate(found)[firsts[numbers[:, 0]] + numbers[:, 1]]
    return np.column_stack([numbers[:, 0], rows])
