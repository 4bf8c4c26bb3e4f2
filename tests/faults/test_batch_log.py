"""The log that a checker reads: every batch that was delivered, and what its bytes were."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from loaderd.spec.output import Order
from loaderd_client import LoaderSequence, Session
from loaderd_client.keras import reader
from scripts.faults import batch_log
from tests.support.daemons import Serve, stream_of
from tests.support.specs import stages
from tests.support.streams import a_spec


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOADERD_HISTORY", str(tmp_path / "history"))
    monkeypatch.setattr(reader, "new_observer", None)  # as it shall be afterwards
    batch_log.install()
    return tmp_path / "history"


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def sums(log: Path) -> list[tuple[str, str]]:
    return [(line["spec"], line["sha256"]) for line in lines(log)]


def test_without_the_variable_there_is_none(
    serve: Serve, photos: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOADERD_HISTORY")
    batch_log.install()
    with serve() as daemon, Session(daemon.path) as session:
        next(LoaderSequence(a_spec(photos), session))
    assert not log.exists()


def test_every_batch_is_a_line_that_says_which_it_was(
    serve: Serve, photos: Path, log: Path
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        sequence = LoaderSequence(a_spec(photos), session)
        assert len([next(sequence) for _ in range(24)]) == 24
    found = lines(log)
    assert [(line["epoch"], line["position"]) for line in found] == [
        (epoch, position) for epoch in range(2) for position in range(12)
    ]
    assert {line["pid"] for line in found} == {os.getpid()}
    assert {line["batches"] for line in found} == {12}
    assert {line["attempt"] for line in found} == {0}
    assert len({line["stream"] for line in found}) == len({line["spec"] for line in found}) == 1
    assert len({line["sha256"] for line in found}) == 24


def test_equal_specs_have_equal_names_and_sums_and_others_have_not(
    serve: Serve, photos: Path, log: Path
) -> None:
    spec = a_spec(photos)
    other = msgspec.structs.replace(spec, **stages(target_size=(40, 50)))
    with serve() as daemon, Session(daemon.path) as session:
        for asked in (spec, spec, other):
            sequence = LoaderSequence(asked, session)
            next(sequence)
            stream_of(sequence)._link.channel.shut_down()  # what is opened again has the same name
            sequence.fetch(0)
    first, same, again, also, different, last = sums(log)
    assert first == same == again == also != different == last
    assert first[0] != different[0]
    assert len({line["stream"] for line in lines(log)}) == 3


def test_a_seed_that_the_daemon_picked_is_part_of_the_name(
    serve: Serve, photos: Path, log: Path
) -> None:
    spec = msgspec.structs.replace(a_spec(photos), order=Order(shuffle=True))
    with serve() as daemon, Session(daemon.path) as session:
        for _ in range(2):
            next(LoaderSequence(spec, session))
    assert len({name for name, _ in sums(log)}) == 2


def test_what_the_trainer_changes_afterwards_does_not_count(
    serve: Serve, photos: Path, log: Path
) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        for _ in range(2):
            images, _ = LoaderSequence(a_spec(photos), session)[0]
            np.multiply(images, 2, out=images)
    assert len(set(sums(log))) == 1
