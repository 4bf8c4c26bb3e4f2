"""Whatever order batches are asked in, and whoever dies: the bytes are the same."""

from __future__ import annotations

import collections
import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import pytest

from loaderd.wire.spec import Batch, Dataset, Order, Pipeline, Spec
from loaderd_client import Session
from loaderd_client.stream import Batch as Taken
from loaderd_client.stream import Stream
from tests.conftest import Daemon, eventually

Serve = Callable[..., contextlib.AbstractContextManager[Daemon]]


def a_spec(photos: Path, shuffle: bool = True, batch_size: int = 8) -> Spec:
    return Spec(
        dataset=Dataset(directory=str(photos), extensions=(".jpg",)),
        pipeline=Pipeline(
            target_size=(40, 50),
            rotation_range=20.0,
            width_shift_range=0.2,
            height_shift_range=0.2,
            shear_range=0.2,
            zoom_range=(0.8, 1.2),
            horizontal_flip=True,
            rescale=1 / 255,
        ),
        batch=Batch(batch_size=batch_size),
        order=Order(shuffle=shuffle, seed=11),
    )


def run_of(stream: Stream, epochs: int = 2) -> Iterator[Taken]:
    for epoch in range(epochs):
        for position in range(stream.batches):
            yield stream.take((epoch, position))


def digest(batch: Taken) -> str:
    assert batch.labels is not None
    sha = hashlib.sha256(repr(batch.place).encode())
    for array in (batch.images, batch.labels, batch.ids):
        sha.update(array.tobytes())
    return sha.hexdigest()


def check_epochs(batches: list[np.ndarray], samples: int, per_epoch: int) -> None:
    """Every sample exactly once per epoch, and the epochs in different orders."""
    epochs = [
        np.concatenate(batches[i : i + per_epoch]) for i in range(0, 2 * per_epoch, per_epoch)
    ]
    for ids in epochs:
        assert sorted(ids.tolist()) == list(range(samples))
    assert (epochs[0] != epochs[1]).any()


@contextlib.contextmanager
def killing_one(daemon: Daemon, every: float) -> Iterator[list[int]]:
    """Kills one worker with SIGKILL, again and again."""
    killed: list[int] = []
    enough = threading.Event()

    def kill() -> None:
        while not enough.wait(every):
            workers = daemon.workers()
            if workers:
                os.kill(workers[len(killed) % len(workers)], signal.SIGKILL)
                killed.append(workers[0])

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield killed
    finally:
        enough.set()
        thread.join()


def digests(serve: Serve, spec: Spec, workers: int, kill_every: float | None = None) -> list[str]:
    with serve(workers=workers) as daemon, Session(daemon.path) as session:
        storm = killing_one(daemon, kill_every) if kill_every else contextlib.nullcontext([0])
        with storm as killed:
            stream = session.open(spec, slots=6)
            out, ids = [], []
            while True:
                for batch in run_of(stream):
                    out.append(digest(batch))
                    ids.append(batch.ids)
                if len(killed) >= 1:
                    break
                stream.close()
                stream = session.open(spec, slots=6)
                out, ids = [], []
        check_epochs(ids, 96, stream.batches)
        assert not kill_every or daemon.snapshot().restarts >= len(killed) - 1
        return out


def test_the_bytes_are_the_same_for_1_worker_3_workers_and_3_that_are_killed(
    serve: Serve, photos: Path
) -> None:
    spec = a_spec(photos)
    alone = digests(serve, spec, workers=1)
    assert len(set(alone)) == len(alone) == 24
    assert digests(serve, spec, workers=3) == alone
    assert digests(serve, spec, workers=3, kill_every=0.3) == alone


def test_every_worker_killed_at_once_costs_nothing_but_time(serve: Serve, photos: Path) -> None:
    spec = a_spec(photos)
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        undisturbed = [digest(batch) for batch in run_of(session.open(spec, slots=4))]
        stream = session.open(spec, slots=4)
        disturbed = []
        for batch in run_of(stream):
            disturbed.append(digest(batch))
            if batch.place[1] % 4 == 0:
                for pid in daemon.workers():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    assert disturbed == undisturbed


def test_all_batches_of_an_epoch_can_be_held_and_none_changes(serve: Serve, photos: Path) -> None:
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos, batch_size=2), slots=4)
        held = [stream.take((0, position)) for position in range(stream.batches)]
        before = [digest(batch) for batch in held]
        assert len(held) == 48 > 10 * stream.slots
        for position in range(stream.batches):
            stream.take((1, position))
        assert [digest(batch) for batch in held] == before
        ids = np.concatenate([batch.ids for batch in held])
        assert sorted(ids.tolist()) == list(range(96))


def test_batches_changed_in_place_come_unchanged_the_next_time(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        first = stream.take((0, 0))
        whole = digest(first)
        first.images[...] = -1
        del first
        assert digest(stream.take((0, 0))) == whole


@pytest.mark.parametrize("shuffle", [True, False])
def test_any_order_of_requests_gives_the_same_batches(
    serve: Serve, photos: Path, shuffle: bool
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        spec = a_spec(photos, shuffle)
        stream = session.open(spec, slots=4)
        in_order = {batch.place: digest(batch) for batch in run_of(stream)}
        rng = np.random.default_rng(5)
        places = list(in_order) * 2
        rng.shuffle(places)
        stream = session.open(spec, slots=4)
        for epoch, position in places:
            place = (int(epoch), int(position))
            assert digest(stream.take(place, restart=bool(rng.random() < 0.2))) == in_order[place]


def test_threads_that_share_a_stream_get_what_they_ask_for(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        spec = a_spec(photos, batch_size=4)
        in_order = [digest(batch) for batch in run_of(session.open(spec, slots=4))]
        stream = session.open(spec, slots=4)
        places = collections.deque((epoch, i) for epoch in range(2) for i in range(stream.batches))
        got: dict[tuple[int, int], str] = {}

        def work() -> None:
            with contextlib.suppress(IndexError):
                while True:
                    place = places.popleft()
                    got[place] = digest(stream.take(place))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [got[place] for place in sorted(got)] == in_order


def test_threads_that_ask_for_the_same_batch_all_get_it(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        with ThreadPool(5) as pool:
            for place in [(0, 0), (0, 1), (0, 7), (0, 7), (1, 3)]:
                assert len(set(pool.map(digest, pool.map(stream.take, [place] * 5)))) == 1


@pytest.mark.parametrize("seed", range(3))
def test_threads_in_wild_disorder_never_wait_for_ever(
    serve: Serve, photos: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        with ThreadPool(4) as pool:
            for _ in range(100):
                places = [(int(rng.integers(3)), int(rng.integers(12))) for _ in range(4)]
                places[1] = places[0] if rng.random() < 0.5 else places[2]
                found = pool.map(stream.take, places)
                assert [batch.place for batch in found] == places


def test_unshuffled_batches_follow_the_manifest(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos, shuffle=False), slots=4)
        names = stream.manifest.filenames()
        assert names == sorted(names)
        for batch in run_of(stream, epochs=1):
            first = batch.place[1] * 8
            assert batch.ids.tolist() == list(range(first, first + 8))
            assert batch.labels is not None
            classes = [("cat", "dog", "emu").index(names[i].split("/")[0]) for i in batch.ids]
            assert batch.labels.argmax(1).tolist() == classes


def test_a_seed_that_the_daemon_picked_repeats_the_run(serve: Serve, photos: Path) -> None:
    import msgspec

    with serve() as daemon, Session(daemon.path) as session:
        spec = msgspec.structs.replace(a_spec(photos), order=Order(shuffle=True))
        stream = session.open(spec, slots=4)
        again = msgspec.structs.replace(spec, order=Order(shuffle=True, seed=stream.seed))
        first = [digest(batch) for batch in run_of(stream)]
        assert [digest(batch) for batch in run_of(session.open(again, slots=4))] == first
        assert session.open(spec, slots=4).seed != stream.seed


def test_a_long_wait_is_seen_while_it_lasts(serve: Serve, photos: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        stream.take((0, 0))
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            reader = threading.Thread(target=lambda: list(run_of(stream, epochs=1)))
            reader.start()
            eventually(lambda: daemon.snapshot().streams[0].waited_s > 1.0)
            assert reader.is_alive()
        finally:
            os.kill(worker, signal.SIGCONT)
            reader.join(30)
