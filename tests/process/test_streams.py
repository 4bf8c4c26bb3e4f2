"""Whatever order batches are asked in, and whoever dies: the bytes are the same."""

from __future__ import annotations

import collections
import contextlib
import gc
import os
import signal
import threading
from multiprocessing.pool import ThreadPool
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from loaderd.errors import DaemonGone
from loaderd.spec.output import Order
from loaderd.spec.spec import Spec
from loaderd_client import Session
from loaderd_client.core.subscription import MAX_LEASE_AGE
from tests.support.daemons import Serve, eventually, gone
from tests.support.streams import a_spec, check_epochs, digest, killing_one, run_of, slow


def digests(serve: Serve, spec: Spec, workers: int, kill: bool = False) -> list[str]:
    with serve(workers=workers) as daemon, Session(daemon.path) as session:
        stream = session.open(spec, slots=6)
        read = run_of(stream)
        out, ids = [], []
        for batch in killing_one(daemon, read) if kill else read:
            out.append(digest(batch))
            ids.append(batch.ids)
        check_epochs(ids, 96, stream.batches)
        assert kill or daemon.snapshot().restarts == 0
        return out


def test_the_bytes_are_the_same_for_1_worker_3_workers_and_3_that_are_killed(
    serve: Serve, photos: Path
) -> None:
    spec = slow(a_spec(photos))
    alone = digests(serve, spec, workers=1)
    assert len(set(alone)) == len(alone) == 24
    assert digests(serve, spec, workers=3) == alone
    assert digests(serve, spec, workers=3, kill=True) == alone


def test_every_worker_killed_at_once_costs_nothing_but_time(serve: Serve, photos: Path) -> None:
    spec = a_spec(photos)
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        undisturbed = [digest(batch) for batch in run_of(session.open(spec, slots=4))]
        stream = session.open(spec, slots=4)
        disturbed, attempts = [], 0
        for batch in run_of(stream):
            disturbed.append(digest(batch))
            if batch.place[1] % 4 == 0:
                for pid in daemon.workers():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            attempts += batch.attempt
    assert disturbed == undisturbed
    assert attempts > 0


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
            assert digest(stream.take(place)) == in_order[place]


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


def test_the_wait_for_the_first_batch_is_counted_apart(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        (before,) = daemon.snapshot().streams
        assert before.first_batch_s == before.age_s
        stream.take((0, 0))
        eventually(lambda: daemon.snapshot().streams[0].batches == 1)
        (first,) = daemon.snapshot().streams
        assert first.first_waited_s == first.waited_s
        assert before.age_s < first.first_batch_s < first.age_s
        list(run_of(stream))
        eventually(lambda: daemon.snapshot().streams[0].batches > 1)
        (later,) = daemon.snapshot().streams
        assert later.first_batch_s == pytest.approx(first.first_batch_s)
        assert later.first_waited_s == first.first_waited_s < later.waited_s


def test_batches_are_leased_and_not_copied(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        held = [stream.take((0, 0)), stream.take((0, 1))]
        eventually(lambda: daemon.snapshot().streams[0].leased == 2)
        before = daemon.snapshot().streams[0].ready
        held.append(stream.take((0, 2)))  # a third lease would leave too few slots: a copy
        assert daemon.snapshot().streams[0].leased == 2
        assert before <= 2
        held.clear()
        stream.take((0, 3))
        eventually(lambda: daemon.snapshot().streams[0].leased <= 1)


def test_a_trainer_that_holds_two_batches_gets_no_copies(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        last = None
        for batch in run_of(stream, epochs=1):
            assert batch.images.base is not None, "a copy"
            last = batch
        assert last is not None


def test_batches_that_garbage_holds_are_freed_when_only_copies_are_left_to_give(
    serve: Serve, photos: Path
) -> None:
    gc.disable()
    try:
        with serve() as daemon, Session(daemon.path) as session:
            stream = session.open(a_spec(photos), slots=4)
            cycle: list[object] = [stream.take((0, 0)), stream.take((0, 1))]
            cycle.append(cycle)
            del cycle
            batches = [
                (epoch, position) for epoch in range(1, 13) for position in range(stream.batches)
            ]
            views = [stream.take(place).images.base is not None for place in batches]
            assert not any(views[: MAX_LEASE_AGE - 4]), "what is young may be in use"
            assert all(views[MAX_LEASE_AGE:])
    finally:
        gc.enable()


def test_batches_that_a_program_holds_are_not_looked_for_again_and_again(
    serve: Serve, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections: list[int] = []
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        held = [stream.take((0, 0)), stream.take((0, 1))]
        monkeypatch.setattr(gc, "collect", lambda: collections.append(1))
        for epoch in range(1, 1 + 2 * MAX_LEASE_AGE):
            stream.take((epoch, 0))
        assert len(collections) == 2, "after 32 and 64 batches"
        assert len(held) == 2


def test_a_dropped_stream_gives_its_memory_back_at_once(serve: Serve, photos: Path) -> None:
    gc.disable()
    try:
        with serve() as daemon, Session(daemon.path) as session:
            for _ in range(5):
                stream = session.open(a_spec(photos), slots=4)
                batch = stream.take((0, 0))
                del stream
                eventually(lambda: not daemon.snapshot().streams)
                assert batch.images.max() <= 1.0
    finally:
        gc.enable()


def test_a_batch_is_never_larger_than_the_dataset(serve: Serve, photos: Path) -> None:
    with serve(2, "--memory=20M") as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos, batch_size=100_000), slots=4)
        assert stream.batches == 1
        assert sorted(stream.take((0, 0)).ids.tolist()) == list(range(96))


def test_workers_die_with_a_killed_supervisor_even_if_they_are_stopped(
    serve: Serve, photos: Path
) -> None:
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        session.open(a_spec(photos), slots=4).take((0, 0))
        workers = [psutil.Process(pid) for pid in daemon.workers()]
        workers[0].suspend()
        daemon.process.kill()
        eventually(lambda: all(gone(worker) for worker in workers), 5)


@pytest.mark.parametrize("signals", [1, 2])
def test_sigterm_under_load_ends_with_0(serve: Serve, photos: Path, signals: int) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        stream = session.open(slow(a_spec(photos)), slots=4)
        stream.take((0, 0))
        for _ in range(signals):
            daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
        with pytest.raises(DaemonGone):
            for _ in run_of(stream):
                pass


def test_a_second_signal_ends_at_once_what_cannot_drain(serve: Serve, photos: Path) -> None:
    with serve(workers=1) as daemon, Session(daemon.path) as session:
        (worker,) = daemon.workers()
        os.kill(worker, signal.SIGSTOP)
        stream = session.open(a_spec(photos), slots=4)
        assert stream.slots == 4
        daemon.process.send_signal(signal.SIGTERM)
        eventually(lambda: daemon.snapshot().daemon.draining)
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.process.wait(10) == 0
