"""The judge of histories sees what it is there to see, and nothing else."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loaderd_client.core.batch import Batch
from loaderd_client.core.session import Session
from scripts.faults import batch_log, history
from scripts.faults.history import judge
from tests.support.daemons import Serve
from tests.support.streams import a_spec, run_of

ROOT = Path(__file__).parents[2]
BATCHES = 4


def line(epoch: int, position: int, **more: Any) -> bytes:
    fields = {
        "pid": 1,
        "stream": "a",
        "spec": "s",
        "epoch": epoch,
        "position": position,
        "attempt": 0,
        "batches": BATCHES,
        "sha256": f"bytes of {epoch}, {position}",
    }
    return json.dumps(fields | more).encode() + b"\n"


def epochs(*numbers: int, **more: Any) -> list[bytes]:
    return [line(*place, **more) for place in itertools.product(numbers, range(BATCHES))]


def test_what_is_whole_has_no_findings() -> None:
    log = [*epochs(0, 1), line(2, 3), line(2, 0, attempt=2)]
    verdict = judge(log)
    assert verdict.findings == ()
    assert (verdict.streams, verdict.batches, verdict.epochs) == (1, 10, 2)
    assert (verdict.again, verdict.retried, verdict.torn) == (0, 1, 0)
    assert "nothing lost, nothing twice, no byte changed; 10 batches" in str(verdict)


def test_nothing_at_all_is_whole() -> None:
    assert judge([]).findings == ()


def test_positions_come_in_any_order() -> None:
    assert judge([*epochs(0)[::-1], *epochs(1)]).findings == ()


@pytest.mark.parametrize("position", range(BATCHES))
def test_a_gap_before_a_later_epoch_is_found(position: int) -> None:
    log = epochs(0, 1, 2)
    del log[BATCHES + position]
    (finding,) = judge(log).findings
    assert finding == f"stream a lacks positions [{position}] of epoch 1"


def test_an_epoch_that_was_left_out_is_found() -> None:
    assert judge(epochs(0, 2)).findings == ("stream a went from epoch 0 to 2",)
    assert judge(epochs(1, 2)).findings == ("stream a begins with epoch 1",)


def test_an_epoch_that_comes_after_a_later_one_is_found() -> None:
    log = epochs(0, 1)
    log.append(log.pop(2))
    assert judge(log).findings == ("stream a went back from epoch 1 to (0, 2)",)


def test_what_keras_looks_at_comes_once_more() -> None:
    verdict = judge([line(0, 0), line(0, 1), *epochs(0, 1)])
    assert verdict.findings == ()
    assert verdict.again == 2


@pytest.mark.parametrize(("epoch", "position", "times"), [(0, 0, 3), (0, 2, 2), (1, 0, 2)])
def test_whatever_else_comes_again_is_found(epoch: int, position: int, times: int) -> None:
    log = epochs(0)[: BATCHES * (epoch + 1)] + epochs(1) * epoch
    log += [line(epoch, position)] * (times - 1)
    (finding,) = judge(log).findings
    assert finding == f"stream a delivered ({epoch}, {position}) {times} times"
    assert judge(log, again=True).findings == ()


def test_what_comes_again_with_other_bytes_is_found() -> None:
    log = [line(0, 0, sha256="x"), *epochs(0)]
    for again in (False, True):
        (finding,) = judge(log, again=again).findings
        assert finding == "stream a delivered (0, 0) with other bytes than it before"


def test_streams_of_one_spec_have_the_same_bytes() -> None:
    same, other = epochs(0, stream="b"), epochs(0, stream="c")
    other[1] = line(0, 1, stream="c", sha256="x")
    assert judge(epochs(0), same).findings == ()
    assert judge(epochs(0), same).compared == BATCHES
    (finding,) = judge(epochs(0), same, other).findings
    assert finding == "stream c delivered (0, 1) with other bytes than stream a before"


def test_streams_of_other_specs_have_what_bytes_they_like() -> None:
    other = epochs(0, stream="b", spec="t", sha256="x")
    assert judge([*epochs(0), *other]).findings == ()


def test_a_sequence_that_goes_on_with_another_seed_begins_anew() -> None:
    log = [*epochs(0), line(1, 0), *epochs(0, 1, spec="t", sha256="x")]
    assert judge(log).findings == ()
    assert judge(log).streams == 2


def test_children_of_one_trainer_go_on_side_by_side() -> None:
    log = [line(0, 0, pid=2), line(1, 0, pid=2), *(line(0, p, pid=3) for p in (1, 2, 3))]
    assert judge(log).findings == ()
    assert judge([*log, line(0, 1, pid=2)]).findings


def test_a_reference_begins_anywhere() -> None:
    assert judge(epochs(0), references=[epochs(7, stream="b")]).findings == ()
    (finding,) = judge(references=[[*epochs(7), *epochs(7)[2:3]]]).findings
    assert finding == "stream a delivered (7, 2) 2 times"


@pytest.mark.parametrize("position", [-1, BATCHES])
def test_a_place_that_is_none_is_found(position: int) -> None:
    (finding,) = judge([*epochs(0), line(0, position)]).findings
    assert finding == f"stream a delivered (0, {position}), which is no place"


def test_an_epoch_has_one_length() -> None:
    (finding,) = judge([*epochs(0), line(1, 0), line(1, 1, batches=5)]).findings
    assert finding == "stream a has 4 batches and, at (1, 1), 5"


@pytest.mark.parametrize("length", [0, 1, 40, -2])
def test_the_last_line_may_be_torn(length: int) -> None:
    log = [*epochs(0), line(1, 0)[:length]]
    assert judge(log).findings == ()
    assert judge(log, epochs(0, stream="b")).torn == 1


def test_a_torn_line_that_another_follows_is_found() -> None:
    (finding,) = judge([*epochs(0), line(1, 0)[:40] + line(1, 1)]).findings
    assert finding.startswith('log 1, line 5 cannot be read: b\'{"pid"')
    (finding,) = judge([], [b"\xff\n"]).findings
    assert finding.startswith("log 2, line 1 cannot be read")


def test_a_line_that_lacks_something_is_found() -> None:
    assert judge([b'{"pid": 1, "stream": "a"}\n']).findings


# ---- the command ----------------------------------------------------------------------


def command(*words: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "scripts.faults.history", *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_the_command_tells_by_its_exit_code(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(b"".join(epochs(0, 1)))
    bad.write_bytes(b"".join([*epochs(0, 2, stream="b"), *epochs(2, stream="b") * 40]))
    assert command(good).returncode == 0
    done = command(good, "--reference", bad, "--again")
    assert done.returncode == 1
    assert "finding: stream b went from epoch 0 to 2\n" in done.stdout
    assert "verdict: 1 finding; 176 batches" in done.stdout
    done = command(tmp_path / "none")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_findings_beyond_count_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    history.show([str(number) for number in range(history.MAX_SHOWN + 3)])
    assert capsys.readouterr().out.endswith("finding: and 3 more\n")


# ---- what trainers write ----------------------------------------------------------------


def noted(log: batch_log.History, taken: Iterator[Batch], spec: Any) -> None:
    for batch in taken:
        log.note(batch, spec, {}, 12)


def test_what_trainers_write_is_judged(serve: Serve, photos: Path, tmp_path: Path) -> None:
    spec = a_spec(photos)
    with serve() as daemon, Session(daemon.path) as session:
        for name in ("one", "two"):
            log = batch_log.History(str(tmp_path / name))
            noted(log, run_of(session.open(spec, slots=4)), spec)
    verdict = history.judge_files([str(tmp_path / "one"), str(tmp_path / "two")])
    assert verdict.findings == ()
    assert (verdict.streams, verdict.batches, verdict.compared) == (2, 48, 24)
