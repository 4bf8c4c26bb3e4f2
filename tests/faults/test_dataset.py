"""The dataset changes while it is read: errors name the files, and all others arrive."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile, copytree, rmtree

import numpy as np
import pytest
from PIL import Image

from loaderd.errors import BadImage
from loaderd_client import Session
from loaderd_client.core.stream import Stream
from tests.faults.test_bad_images import asks
from tests.support.daemons import Serve
from tests.support.streams import digest


def larger(path: Path) -> None:
    """A good picture in its place, of many more bytes."""
    noise = np.random.default_rng(1).integers(0, 256, (500, 700, 3), np.uint8)
    Image.fromarray(noise).save(path, "jpeg", quality=95)


def replace(path: Path, make: Callable[[Path], object]) -> None:
    """Something else in its place."""
    path.unlink()
    make(path)


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": os.unlink,
    "truncated": lambda path: os.truncate(path, 300),
    "emptied": lambda path: os.truncate(path, 0),
    "replaced by a folder": lambda path: replace(path, os.mkdir),
    "replaced by a FIFO": lambda path: replace(path, os.mkfifo),
}


@pytest.fixture
def folder(photos: Path, tmp_path: Path) -> Path:
    return copytree(photos, tmp_path / "some")


def read_epoch(stream: Stream, epoch: int) -> tuple[list[int], list[str]]:
    """The samples of an epoch and the errors in their place."""
    ids: list[int] = []
    errors: list[str] = []
    for position in range(stream.batches):
        try:
            ids += stream.take((epoch, position)).ids.tolist()
        except BadImage as error:
            errors.append(str(error))
    return ids, errors


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_for_the_worse_is_named_and_the_rest_arrives(
    serve: Serve, folder: Path, change: str
) -> None:
    victim = folder / "dog" / "007.jpg"
    with serve(2) as daemon, Session(daemon.path) as session:
        stream = session.open(asks(folder, "raise"), slots=4)
        assert len(read_epoch(stream, 0)[0]) == 96
        workers = daemon.workers()
        CHANGES[change](victim)
        ids, errors = read_epoch(stream, 5)
        assert len(ids) == 96 - 8
        (text,) = errors
        assert str(victim) in text
        assert daemon.workers() == workers


def test_a_file_that_is_replaced_by_a_larger_one_is_read_as_it_is_now(
    serve: Serve, folder: Path, tmp_path: Path
) -> None:
    victim = folder / "dog" / "007.jpg"
    fresh = tmp_path / "fresh.jpg"
    larger(fresh)
    with serve(2) as daemon, Session(daemon.path) as session:
        stream = session.open(asks(folder, "raise"), slots=4)
        read_epoch(stream, 0)
        os.replace(fresh, victim)
        assert sorted(read_epoch(stream, 5)[0]) == list(range(96))
        afresh = session.open(asks(folder, "raise"), slots=4)
        places = [(5, position) for position in range(stream.batches)]
        assert [digest(stream.take(one)) for one in places] == [
            digest(afresh.take(one)) for one in places
        ]


def test_a_file_that_is_written_while_it_is_read_never_kills_a_worker(
    serve: Serve, folder: Path, tmp_path: Path
) -> None:
    victim = folder / "dog" / "007.jpg"
    whole = tmp_path / "whole.jpg"
    copyfile(victim, whole)
    with serve(2) as daemon, Session(daemon.path) as session:
        stream = session.open(asks(folder, "raise"), slots=4)
        workers = daemon.workers()
        for epoch in range(8):
            os.truncate(victim, 100 * epoch)
            ids, _ = read_epoch(stream, epoch)
            assert len(ids) >= 96 - 8
            copyfile(whole, victim)
        assert daemon.workers() == workers


def test_a_directory_that_is_removed_gives_errors_and_no_hang(serve: Serve, folder: Path) -> None:
    with serve(2) as daemon, Session(daemon.path) as session:
        stream = session.open(asks(folder, "raise"), slots=4)
        read_epoch(stream, 0)
        rmtree(folder)
        ids, errors = read_epoch(stream, 5)
        assert not ids
        assert len(errors) == 12
        assert all("No such file" in text for text in errors)
