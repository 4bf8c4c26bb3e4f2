"""A source gives any sample by its number, and says when it has changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from loaderd.errors import BadImage
from loaderd.ipc import manifest
from loaderd.ipc.manifest import Manifest
from loaderd.sources.arrays import ArraySource
from loaderd.sources.files import NO_LIMIT, FileLimit, FileSource
from loaderd.sources.source import Source

NAMES = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]
LABELS = np.array([0, 0, 1], np.int32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode() * 1000)
    return tmp_path


def files(folder: Path, limit: FileLimit = NO_LIMIT) -> FileSource:
    names = [name.encode() for name in NAMES]
    table = manifest.pack(str(folder), ("a", "b"), names, LABELS)
    return FileSource(Manifest.view(table), limit)


def test_files_and_arrays_are_read_in_any_order(folder: Path) -> None:
    images = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
    sources: list[Source] = [files(folder), ArraySource(images, LABELS)]
    for source in sources:
        assert len(source) == 3
        assert source.labels.tolist() == [0, 0, 1]
        first = bytes(np.asarray(source.read(2)))
        source.read(0)
        assert bytes(np.asarray(source.read(2))) == first
    assert bytes(np.asarray(sources[0].read(1))) == b"a/2.jpg" * 1000
    np.testing.assert_array_equal(sources[1].read(1), images[1])


def test_a_file_has_an_identity_once_its_last_change_is_past(folder: Path) -> None:
    source = files(folder)
    source.read(0)
    assert source.identity(0) == 0  # it was written just now, and may be again
    seen = set()
    for size in (10, 20):
        (folder / NAMES[0]).write_bytes(b"x" * size)
        status = os.stat(folder / NAMES[0])
        source.read(0)
        source._before = status.st_ctime_ns + 3600 * 10**9  # as if read an hour later
        seen.add(source.identity(0))
    assert len(seen) == 2
    assert 0 not in seen


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    (folder / NAMES[0]).unlink()
    (folder / NAMES[1]).unlink()
    os.mkfifo(folder / NAMES[1])
    source = files(folder, FileLimit(100, "anybody wants"))
    for sample, words in enumerate(("No such file", "not a regular file", "more than anybody")):
        with pytest.raises(BadImage, match=rf"{NAMES[sample]}: .*{words}"):
            source.read(sample)
        assert source.name(sample) == str(folder / NAMES[sample])
