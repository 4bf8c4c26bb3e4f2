"""Whatever becomes of workers, every sample arrives once and with the same bytes."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
import pytest

from loaderd.errors import BadImage, NoWorkers, WorkerCrashed
from loaderd.ipc import dial
from loaderd.ipc.bundle import Bundle
from loaderd.spec.output import Order, Shard
from loaderd.supervisor.scheduled_stream import CRASHES, KILLS
from loaderd_client import Session
from loaderd_client import augment as A
from tests.faults.conftest import Sabotage
from tests.support.augmented import augmenting
from tests.support.daemons import Daemon, Serve, eventually, running
from tests.support.streams import a_spec, digest, read_all, run_of, slow, with_errors

DEADLY = ("SIGKILL", "SIGSEGV", "SIGABRT")


@pytest.fixture(scope="module")
def undisturbed(photos: Path) -> list[str]:
    """What the two epochs hold where nothing happens."""
    with tempfile.TemporaryDirectory(prefix="ld-") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        words = ["loaderd", "serve", "--workers=1"]
        with running(lambda tell: [*words, f"--ready-fd={tell}"], folder) as daemon:
            return read_all(daemon.path, a_spec(photos))


STAGES = ("reading", "decoding", "writing", "after")
SHORT = list(zip(STAGES, (*DEADLY, "SIGKILL"), strict=True))
"""Every stage and every signal once; the other pairs are for --long."""


@pytest.mark.parametrize(
    ("stage", "harm"),
    [
        pytest.param(*pair, marks=() if pair in SHORT else pytest.mark.long)
        for pair in itertools.product(STAGES, DEADLY)
    ],
)
def test_a_worker_that_dies_in_its_work_costs_no_byte(
    sabotage: Sabotage,
    struck: Callable[[], int],
    photos: Path,
    undisturbed: list[str],
    stage: str,
    harm: str,
) -> None:
    with sabotage(stage, harm, times=3) as daemon:
        eventually(lambda: len(daemon.workers()) == 2)  # one alone would meet one sample thrice
        assert read_all(daemon.path, a_spec(photos)) == undisturbed
        assert struck() == 3
        eventually(lambda: daemon.snapshot().restarts == 3)
        assert daemon.snapshot().daemon.bad == 0
    if harm == "SIGSEGV":
        assert "Fatal Python error: Segmentation fault" in daemon.log  # with its stack


@pytest.mark.parametrize("harm", DEADLY)
def test_a_worker_that_dies_while_it_is_idle_costs_no_byte(
    serve: Serve, photos: Path, undisturbed: list[str], harm: str
) -> None:
    with serve() as daemon:
        eventually(lambda: len(daemon.workers()) == 2)
        for pid in daemon.workers():
            os.kill(pid, signal.Signals[harm])
        eventually(lambda: daemon.snapshot().restarts == 2)
        assert read_all(daemon.path, a_spec(photos)) == undisturbed


def test_a_worker_that_hangs_in_a_decode_is_replaced_and_its_stack_is_logged(
    sabotage: Sabotage, photos: Path, undisturbed: list[str]
) -> None:
    with sabotage("decoding", "hang", "sample_timeout=1", workers=2) as daemon:
        assert read_all(daemon.path, a_spec(photos)) == undisturbed
        assert daemon.snapshot().restarts == 1
    assert "no sign of life for 1 s" in daemon.log
    assert "in sabotaged_decode" in daemon.log


def test_a_stopped_worker_is_replaced_and_nothing_is_blamed_for_it(
    sabotage: Sabotage, photos: Path, undisturbed: list[str]
) -> None:
    with sabotage("decoding", "SIGSTOP", "sample_timeout=1", times=2) as daemon:
        assert read_all(daemon.path, a_spec(photos)) == undisturbed
        assert daemon.snapshot().restarts == 2
        assert daemon.snapshot().daemon.bad == 0
    assert "it was stopped" in daemon.log


def test_a_worker_that_is_stopped_in_a_row_never_writes_when_it_goes_on(
    sabotage: Sabotage, struck: Callable[[], int], photos: Path, undisturbed: list[str]
) -> None:
    """It holds a row of a slot that by then belongs to somebody else."""
    with (
        sabotage("writing", "SIGSTOP", "sample_timeout=0.5") as daemon,
        Session(daemon.path) as session,
    ):
        eventually(lambda: len(daemon.workers()) == 2)
        pids = daemon.workers()
        stream = session.open(a_spec(photos), slots=4)
        got = [digest(batch) for batch in run_of(stream, epochs=1)]
        assert struck() == 1
        held = [stream.take((1, 0)), stream.take((1, 1))]
        eventually(lambda: daemon.snapshot().streams[0].ready == 2)  # no slot is left to fill
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        eventually(lambda: not any(is_stopped(pid) for pid in pids))
        got += [digest(batch) for batch in held]
        held.clear()
        got += [digest(stream.take((1, position))) for position in range(2, stream.batches)]
        assert got == undisturbed


def is_stopped(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def test_other_streams_keep_their_pace_while_a_sample_hangs(
    sabotage: Sabotage, photos: Path
) -> None:
    with (
        sabotage("decoding", "hang", "sample_timeout=20", name="000.jpg", times=1) as daemon,
        Session(daemon.path) as session,
    ):
        stuck = session.open(a_spec(photos), slots=4)
        reader = threading.Thread(target=lambda: list(run_of(stuck, epochs=1)))
        reader.start()
        eventually(lambda: daemon.snapshot().streams[0].batches > 0)
        free = session.open(a_spec(photos), slots=4)
        assert len(list(run_of(free))) == 24
        assert daemon.snapshot().restarts == 0
        for pid in daemon.workers():
            os.kill(pid, signal.SIGKILL)
        reader.join(30)
        assert not reader.is_alive()


def test_samples_that_take_long_but_end_are_not_killed(
    sabotage: Sabotage, photos: Path, undisturbed: list[str]
) -> None:
    """Each batch takes longer than one sample may."""
    naps = sabotage("decoding", "nap", "sample_timeout=1", times=1000, workers=1)
    with naps as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        assert digest(stream.take((0, 0))) == undisturbed[0]
        assert daemon.snapshot().restarts == 0


@pytest.mark.parametrize("harm", ["SIGSEGV", "SIGBUS", "SIGABRT", "hang"])
def test_a_sample_that_kills_its_workers_is_quarantined_and_is_a_bad_image(
    sabotage: Sabotage, struck: Callable[[], int], photos: Path, harm: str
) -> None:
    flags = ["sample_timeout=0.3"] if harm == "hang" else []
    with sabotage("decoding", harm, *flags, name="dog/007.jpg", times=1000) as daemon:
        with Session(daemon.path) as session:
            stream = session.open(a_spec(photos), slots=4)
            good, errors = [], []
            for position in range(stream.batches):
                try:
                    good += stream.take((0, position)).ids.tolist()
                except BadImage as error:
                    errors.append(str(error))
            assert len(good) == 96 - 8
            (text,) = errors
            assert "dog/007.jpg: quarantined" in text
            assert struck() == CRASHES + 1
            again = session.open(with_errors(a_spec(photos), "substitute"), slots=4)
            assert len(list(run_of(again))) == 24
        assert struck() == CRASHES + 1
        (bad,) = dial.list_bad(daemon.path)
        assert bad.quarantined
        assert bad.path.endswith(b"dog/007.jpg")
    assert daemon.log.count("quarantined ") == 1


def test_workers_that_are_stopped_while_idle_do_not_hold_up_a_stream(
    serve: Serve, photos: Path, undisturbed: list[str]
) -> None:
    """They have read nothing of what they are given."""
    with serve(2, "--sample-timeout=2") as daemon:
        eventually(lambda: len(daemon.workers()) == 2)
        for pid in daemon.workers():
            os.kill(pid, signal.SIGSTOP)
        assert read_all(daemon.path, a_spec(photos)) == undisturbed


def test_user_code_that_takes_long_to_load_is_waited_for(
    serve: Serve, photos: Path, tmp_path: Path
) -> None:
    module = tmp_path / "late_module.py"
    module.write_text("import time\ntime.sleep(3)\ndef same(image):\n    return image\n")
    script = (
        "import sys, late_module\n"
        "from loaderd_client import ImageDataGenerator\n"
        "made = ImageDataGenerator(preprocessing_function=late_module.same)\n"
        "flow = made.flow_from_directory(sys.argv[1], target_size=(9, 9))\n"
        "print(sum(len(flow[i][0]) for i in range(len(flow))))\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with serve(2, "--sample-timeout=2") as daemon:
        done = subprocess.run(
            [sys.executable, "-c", script, str(photos)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stdout.splitlines()[-1:] == ["96"], done.stderr
        assert daemon.snapshot().restarts == 0


def replaced(daemon: Daemon, pid: int) -> None:
    """Waits until another worker is there."""
    eventually(lambda: daemon.workers() not in ([], [pid]))


def test_a_partner_that_kills_its_workers_is_quarantined_and_not_the_row_it_belongs_to(
    sabotage: Sabotage, photos: Path
) -> None:
    """The killer is the last row of its batch: the first, whose partner it is, is tried first."""
    mixing = augmenting(photos, [A.MixUp()])
    unshuffled = msgspec.structs.replace(mixing, order=Order(shuffle=False, seed=11))
    with sabotage("decoding", "SIGSEGV", name="dog/006.jpg", times=1000) as daemon:
        with Session(daemon.path) as session:
            stream = session.open(with_errors(unshuffled, "skip"), slots=4)
            ids = [sample for batch in run_of(stream) for sample in batch.ids.tolist()]
        assert sorted(ids) == [sample for sample in range(96) if sample != 47 for _ in range(2)]
        (bad,) = dial.list_bad(daemon.path)
        assert bad.path.endswith(b"dog/006.jpg")
    quarantined = [line for line in daemon.log.splitlines() if "quarantined " in line]
    assert quarantined
    assert all("dog/006.jpg" in line for line in quarantined)


@pytest.mark.parametrize("index", [0, 1])
def test_so_is_one_that_is_another_trainers_row(
    sabotage: Sabotage, photos: Path, index: int
) -> None:
    """The killer is the second trainer's last row, and the partner of the first one's first."""
    mixing = augmenting(photos, [A.MixUp()], batch_size=4)
    order = Order(shuffle=False, seed=11, shard=Shard(index, 2))
    sharded = with_errors(msgspec.structs.replace(mixing, order=order), "skip")
    with sabotage("decoding", "SIGSEGV", name="dog/006.jpg", times=1000) as daemon:
        with Session(daemon.path) as session:
            stream = session.open(sharded, slots=4)
            ids = [sample for batch in run_of(stream, 1) for sample in batch.ids.tolist()]
        own = [sample for sample in range(96) if sample // 4 % 2 == index]
        assert ids == [sample for sample in own if sample != 47]
        (bad,) = dial.list_bad(daemon.path)
        assert bad.path.endswith(b"dog/006.jpg")


@pytest.mark.parametrize(
    "how",
    [{"class_weights": (("dog", 5.0),)}, {"weighted": True}, {"weighted": True, "repeats": 3}],
    ids=["class_weights", "weighted", "repeats"],
)
@pytest.mark.parametrize("operations", [[A.RandomFlip()], [A.MixUp()]], ids=["alone", "mixed"])
def test_a_sample_that_comes_several_times_and_kills_its_workers_is_the_one_that_is_quarantined(
    sabotage: Sabotage, photos: Path, how: dict[str, Any], operations: list[Any]
) -> None:
    drawn = msgspec.structs.replace(augmenting(photos, operations), order=Order(seed=11, **how))
    weights = np.where(np.arange(96) == 48, 8.0, 1.0)
    bundles = [Bundle({"weights": weights})] if drawn.order.weighted else []
    with sabotage("decoding", "SIGSEGV", name="dog/007.jpg", times=1000) as daemon:
        with Session(daemon.path) as session:
            stream = session.open(with_errors(drawn, "skip"), slots=4, bundles=bundles)
            ids = [sample for batch in run_of(stream) for sample in batch.ids.tolist()]
        (bad,) = dial.list_bad(daemon.path)
        assert bad.path.endswith(b"dog/007.jpg")
    assert 48 not in ids
    assert len(ids) <= 2 * 96 - 3


def test_a_kill_storm_while_the_forkserver_stands_still_quarantines_nothing(
    serve: Serve, photos: Path
) -> None:
    with serve(1) as daemon, Session(daemon.path) as session:
        stream = session.open(slow(a_spec(photos)), slots=4)
        for _ in range(CRASHES + 3):
            (pid,) = daemon.workers()
            forkserver = psutil.Process(pid).parent()
            assert forkserver is not None
            forkserver.suspend()
            os.kill(pid, signal.SIGKILL)
            replaced(daemon, pid)
        assert stream.take((0, 3)).place == (0, 3)
        assert dial.list_bad(daemon.path) == []


def test_workers_that_die_with_the_forkserver_quarantine_nothing(
    serve: Serve, photos: Path, undisturbed: list[str]
) -> None:
    enough = threading.Event()

    def kill(daemon: Daemon) -> None:
        while not enough.wait(0.3):
            for child in psutil.Process(daemon.process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    with serve(2) as daemon:
        storm = threading.Thread(target=kill, args=(daemon,))
        storm.start()
        try:
            assert read_all(daemon.path, a_spec(photos)) == undisturbed
        finally:
            enough.set()
            storm.join()
        assert daemon.snapshot().daemon.bad == 0


def test_a_kill_storm_quarantines_nothing(
    sabotage: Sabotage, photos: Path, undisturbed: list[str]
) -> None:
    # Not more than may be in a row over one batch: before the first is taken, there are two.
    with sabotage("decoding", "SIGKILL", times=KILLS - 1) as daemon:
        assert read_all(daemon.path, a_spec(photos)) == undisturbed
        assert daemon.snapshot().daemon.bad == 0


def test_a_sample_over_which_workers_are_killed_for_ever_is_an_error_that_names_it(
    sabotage: Sabotage, photos: Path
) -> None:
    storm = sabotage("decoding", "SIGKILL", name="dog/007.jpg", times=1000)
    with storm as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos, shuffle=False), slots=4)
        with pytest.raises(WorkerCrashed, match=r"memory.*dog/007\.jpg"):
            list(run_of(stream))


@contextlib.contextmanager
def without(module: Path) -> Iterator[None]:
    """A module that cannot be imported for a while."""
    text = module.read_text()
    module.write_text("raise ImportError('sabotaged')\n")
    try:
        yield
    finally:
        module.write_text(text)


def test_workers_that_cannot_start_are_an_error_and_the_daemon_lives(
    copied: Callable[[], contextlib.AbstractContextManager[tuple[Daemon, Path]]], photos: Path
) -> None:
    with copied() as (daemon, package), Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        stream.take((0, 0))
        with without(package / "worker" / "loop.py"):
            forkserver = psutil.Process(daemon.workers()[0]).parent()
            assert forkserver is not None
            forkserver.kill()
            with pytest.raises(NoWorkers, match="no worker can start"):
                list(run_of(stream, epochs=1000))
            assert "before it was up" in daemon.snapshot().daemon.trouble
            with pytest.raises(NoWorkers):
                session.open(a_spec(photos), slots=4)
        eventually(lambda: not daemon.snapshot().daemon.trouble)
        assert len(list(run_of(session.open(a_spec(photos), slots=4)))) == 24
