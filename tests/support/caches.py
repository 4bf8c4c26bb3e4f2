"""FileStates that are none, and caches of theirs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loaderd.cache import layout
from loaderd.cache.index import Granted, Index
from loaderd.cache.layout import Head
from loaderd.cache.store import Store
from loaderd.sources.file_identity import FileStates

AMPLE = 10**12


def files(names: Sequence[int], version: int = 1) -> FileStates:
    """FileStates with numbers for names, in some state."""
    keys = np.array(names, np.int64) * 1_000_003 + 17
    return FileStates(keys, np.full(len(keys), version, np.int64))


def head(row_bytes: int) -> Head:
    """Of a cache with nothing in it."""
    return Head(row_bytes, {"directory": "/photos"})


def adopted(path: Path, empty: Head, wanted: FileStates, room: int = AMPLE) -> tuple[int, Granted]:
    """The descriptor of a cache, which is made if it is missing, and the rows of some files."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        return fd, Index(fd, layout.read_head(fd) or empty, wanted).grant(room)
    except BaseException:
        os.close(fd)
        raise


def is_waited_for(lock: int) -> bool:
    """Whether somebody waits for a lock on this descriptor's file."""
    number = os.fstat(lock).st_ino
    with open("/proc/locks") as lines:
        return any(" -> " in line and f":{number} " in line for line in lines)


class Kept:
    """A cache with a stream open on it, whose files' images are their names."""

    def __init__(
        self, path: Path, wanted: FileStates, room: int = AMPLE, row_bytes: int = 4096
    ) -> None:
        fd, self.granted = adopted(path, head(row_bytes), wanted, room)
        self.shape = (1, 1, row_bytes)
        self.store = Store(fd, self.shape, self.granted.rows)
        self.files = wanted

    @property
    def rows(self) -> list[int]:
        """The numbers of the files' rows."""
        rows: list[int] = self.granted.rows[:, 2].tolist()
        return rows

    def image(self, sample: int) -> np.ndarray:
        """What a sample's file holds."""
        seed = int(self.files.keys[sample]) + 40_503 * int(self.files.states[sample])
        noise = np.arange(seed, seed + self.shape[2]) * 2_654_435_761 >> 9
        return noise.astype(np.uint8).reshape(self.shape)

    def fill(self) -> Kept:
        """Decodes all, and keeps what it can."""
        for sample, state in enumerate(self.files.states.tolist()):
            self.store.keep(sample, self.image(sample), state)
        return self

    def found(self) -> list[bool]:
        """Which samples are there; those are right, or this fails."""
        there: list[bool] = self.store.find(np.arange(len(self.rows))).tolist()
        for sample in np.flatnonzero(there).tolist():
            pixels = self.store.row(sample)
            assert pixels is not None
            np.testing.assert_array_equal(pixels, self.image(sample))
        return there
