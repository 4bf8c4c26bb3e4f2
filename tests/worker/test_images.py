"""Workers share what they decode while they decode it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from loaderd import storage
from loaderd.cache.store import Store
from loaderd.errors import BadImage
from loaderd.render.renderer import Renderer, StageTimes
from loaderd.worker.images import CachedImages
from tests.support import caches
from tests.support.daemons import DEADLINE
from tests.support.specs import rendering

SIDE = 6
COUNT = 11
STATE = 1
ALL = np.arange(COUNT)


class Pictures:
    """A source of pictures that are filled with their numbers."""

    labels: NDArray[np.int32] = np.zeros(COUNT, np.int32)

    def __init__(self, bad: Sequence[int] = ()) -> None:
        self.meeting: Barrier | None = None
        """Where those who read wait for each other."""
        self.reads: list[int] = []
        self._bad = bad

    def __len__(self) -> int:
        return COUNT

    def read(self, index: int) -> memoryview:
        if index in self._bad:
            raise BadImage(f"{index}: bad")
        self.reads.append(index)
        if self.meeting is not None:
            with contextlib.suppress(BrokenBarrierError):  # the other has all that it needs
                self.meeting.wait(DEADLINE)
        out = io.BytesIO()
        Image.fromarray(np.full((SIDE, SIDE, 3), index, np.uint8)).save(out, "bmp")
        return out.getbuffer()

    @property
    def fetches(self) -> Any:
        return None

    def identity(self, index: int) -> int:
        return STATE

    def name(self, index: int) -> str:
        return str(index)


class Fetches:
    """What is asked for."""

    masks = 0

    def __init__(self) -> None:
        self.expected: list[tuple[int, list[int]]] = []

    def begin(self, ticket: int) -> None: ...

    def expect(self, ticket: int, samples: list[int]) -> None:
        self.expected.append((ticket, samples))


class FarPictures(Pictures):
    """Those of an object store."""

    def __init__(self) -> None:
        super().__init__()
        self.on_their_way = Fetches()

    @property
    def fetches(self) -> Any:
        return self.on_their_way


def worker(path: Path, source: Pictures) -> CachedImages:
    """The images of a stream in a worker of its own, all of one cache."""
    fd, granted = caches.adopted(
        path, caches.head(SIDE * SIDE * 3), caches.files(range(COUNT), STATE)
    )
    spec = rendering(target_size=(SIDE, SIDE))
    store = Store(fd, spec.load.array_shape, granted.rows)
    return CachedImages(source, Renderer(spec, StageTimes()), store, "/photos")


def load(images: CachedImages, samples: Iterable[int], meeting: Barrier | None = None) -> None:
    """Loads samples, then leaves the meeting."""
    for sample in samples:
        assert (images.load(sample) == sample).all()
    if meeting is not None:
        meeting.abort()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "some.images"


@pytest.mark.parametrize("ahead", [0, 1, 6, 10])
@pytest.mark.parametrize("ticket", [6, 7])
def test_two_workers_with_the_same_images_at_hand_meet_halfway(
    path: Path, ahead: int, ticket: int
) -> None:
    """However far the first one is when the second begins: then they read at the same time."""
    source = Pictures()
    first, second = worker(path, source), worker(path, source)
    orders = [images.order(COUNT, ticket + at) for at, images in enumerate((first, second))]
    for images in (first, second):
        images.begin(ALL, 1)
    load(first, orders[0][:ahead])
    source.meeting = meeting = Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        rests = [(first, orders[0][ahead:]), (second, orders[1])]
        for job in [threads.submit(load, *rest, meeting) for rest in rests]:
            job.result()
    assert len(source.reads) <= COUNT + 1
    assert first.cached + second.cached == 2 * COUNT - len(source.reads)


def test_what_came_into_the_cache_is_counted_once(path: Path) -> None:
    source = Pictures()
    first, second = worker(path, source), worker(path, source)
    first.load(3)
    second.begin(ALL, 1)
    assert second.cached == 1
    first.load(5)
    for sample in (3, 5, 7):
        second.load(sample)
    assert second.cached == 2
    second.begin(ALL, 1)
    assert second.cached == 3


def test_an_image_that_no_worker_can_decode_is_tried_by_each(path: Path) -> None:
    for _ in range(2):
        images = worker(path, Pictures(bad=[4]))
        images.begin(ALL, 1)
        with pytest.raises(BadImage, match="4: bad"):
            images.load(4)
        assert images.cached == 0


def test_what_the_cache_lacks_is_fetched_and_it_is_asked_once_for_a_chunk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(worker(path, Pictures()), [3, 5])
    source, asked = FarPictures(), []
    images, find = worker(path, source), Store.find

    def noted(store: Store, ids: NDArray[Any]) -> NDArray[np.bool_]:
        asked.append(storage.asked())
        return find(store, ids)

    monkeypatch.setattr(Store, "find", noted)
    images.begin(ALL[:6], 1)
    images.expect(ALL[4:], 2)
    assert source.on_their_way.expected == [(1, [0, 1, 2, 4]), (2, [4, 6, 7, 8, 9, 10])]
    assert images.cached == 2
    assert [one and one[0] for one in asked] == [str(path)] * 2  # a disk may not answer
    assert storage.asked() is None
    local = worker(path, Pictures())
    local.expect(ALL, 1)
    assert len(asked) == 2


def test_a_cache_that_was_lost_within_a_chunk_is_not_read_again(path: Path) -> None:
    source = Pictures()
    load(worker(path, source), [3, 5])
    images = worker(path, source)
    images.begin(ALL, 1)
    content = path.read_bytes()
    path.write_bytes(b"")
    load(images, [3])
    path.write_bytes(content)
    load(images, [5])
    assert source.reads == [3, 5, 3, 5]
