"""``loaderd errors``: what it lists, of a daemon that only answers and of a real one."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from socket import AF_UNIX, SHUT_RDWR, SOCK_SEQPACKET, socket

import msgspec
import pytest

from loaderd.cli import scan, scan_epoch
from loaderd.cli.main import main
from loaderd.ipc import dial
from loaderd.ipc.channel import Channel, Closed
from loaderd.ipc.messages import (
    PROTOCOL,
    BadList,
    BadSample,
    Hello,
    ListBad,
    Message,
    Observe,
    Observed,
    Welcome,
)
from tests.cli.test_stat import snapshot
from tests.support.daemons import Serve

PAGE = 2

SAMPLES = (
    BadSample(b"/data/cat/1.jpg", "not an image", "/data", 1, False),
    BadSample(b"/data/cat/\x1b\xff.jpg", "it is truncated", "/data", 3, False),
    BadSample(b"/data/dog/7.jpg", "quarantined: workers died (SIGSEGV)", "/data", 2, True),
)


class Daemon(threading.Thread):
    """Knows of bad images, and names two at a time."""

    def __init__(self, path: str, samples: tuple[BadSample, ...], total: int) -> None:
        super().__init__(daemon=True)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self._samples, self._total = samples, total
        self.listener = socket(AF_UNIX, SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen()

    def run(self) -> None:
        with self.listener, contextlib.suppress(OSError):
            while True:
                line = Channel(self.listener.accept()[0])
                with contextlib.suppress(Closed), contextlib.closing(line):
                    while True:
                        line.send(self._answer(line.receive()))

    def _answer(self, message: Message) -> Message:
        match message:
            case Hello():
                return Welcome(PROTOCOL, "9.9.9", os.getpid())
            case Observe():
                seen = snapshot("default")
                daemon = msgspec.structs.replace(seen.daemon, bad=self._total)
                return Observed(msgspec.structs.replace(seen, daemon=daemon))
            case ListBad(first):
                return BadList(self._total, self._samples[first : first + PAGE])
        raise AssertionError(message)


@contextlib.contextmanager
def knowing(runtime: str, *samples: BadSample, total: int | None = None) -> Iterator[str]:
    path = os.path.join(runtime, "loaderd", "default.sock")
    daemon = Daemon(path, samples, len(samples) if total is None else total)
    daemon.start()
    try:
        yield path
    finally:
        daemon.listener.shutdown(SHUT_RDWR)
        daemon.join()


def test_every_page_is_asked_for(runtime: str) -> None:
    with knowing(runtime, *SAMPLES * 3) as path:
        assert dial.list_bad(path) == list(SAMPLES * 3)


def test_each_is_a_line_with_the_reason_and_how_often_it_was_met(
    runtime: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with knowing(runtime, *SAMPLES):
        assert main(["errors"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "/data/cat/1.jpg: not an image (1 time)",
        r"/data/cat/\x1b\udcff.jpg: it is truncated (3 times)",
        "/data/dog/7.jpg: quarantined: workers died (SIGSEGV) (2 times, quarantined)",
    ]


def test_without_any_it_says_so(runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    with knowing(runtime):
        assert main(["errors"]) == 0
    assert capsys.readouterr().out == "no bad images\n"


def test_those_without_names_are_counted(runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    with knowing(runtime, *SAMPLES, total=10):
        assert main(["errors"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("and 7 more")


def test_json_is_one_object(runtime: str, capsys: pytest.CaptureFixture[str]) -> None:
    with knowing(runtime, *SAMPLES, total=10):
        assert main(["errors", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["total"] == 10
    assert os.fsencode(got["bad"][1]["path"]) == SAMPLES[1].path
    assert got["bad"][2] == {
        "path": "/data/dog/7.jpg",
        "reason": "quarantined: workers died (SIGSEGV)",
        "directory": "/data",
        "times": 2,
        "quarantined": True,
    }


def test_no_daemon_is_1_and_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["errors"]) == 1
    assert capsys.readouterr().err.startswith("loaderd: no daemon at ")


def test_a_real_daemon_tells_what_its_streams_have_met(
    serve: Serve, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(photos / "emu", tmp_path / "emu")
    (folder / "003.jpg").write_text("this is no image")
    with serve(1, "--max-bad=50%") as daemon:
        with scan_epoch.opened(dial.dial(daemon.path), scan._spec(str(folder))) as batches:
            assert sum(outcome.skipped for outcome in batches) == 1
        assert main(["errors"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{folder}/003.jpg: not an image")
