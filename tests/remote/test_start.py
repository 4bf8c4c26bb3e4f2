"""What a daemon says that gets no workers from a cluster, and that it does not wait for ever."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from loaderd import config
from loaderd.cli import decoders
from loaderd.cli.main import main
from loaderd.errors import InvalidArgument
from tests.support.ports import free_ports


def test_where_nothing_answers_one_line_says_so() -> None:
    (port,) = free_ports(1)
    words = ["loaderd", "serve", "--workers=1", f"--ray=127.0.0.1:{port}"]
    done = subprocess.run(
        [sys.executable, "-m", *words], stderr=subprocess.PIPE, text=True, timeout=60
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"loaderd: --ray 127.0.0.1:{port}: nothing answers there: Connection refused; give the "
        "HOST:PORT that `ray start --head` has printed, or auto"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["serve", "start"])
def test_without_the_extra_one_line_names_it(
    verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        decoders, "find_spec", lambda name: None if name == "ray" else find_spec(name)
    )
    assert main([verb, "--ray", "auto"]) == 1
    assert capfd.readouterr().err == (
        'loaderd: --ray needs Ray, which this Python lacks: pip install "loaderd[ray]"\n'
    )


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:port", "a/b:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match=r"allowed are .*auto.* HOST:PORT of the head"):
        config.load({"ray": address}, {})


@pytest.mark.parametrize(
    ("said", "least", "most"), [("4", 0, 4), ("0:64", 0, 64), ("2:2", 2, 2), ("512", 0, 512)]
)
def test_numbers_of_workers(said: str, least: int, most: int) -> None:
    assert config.load({"ray_workers": said}, {}).ray_workers == (least, most)


@pytest.mark.parametrize("said", ["0", "0:0", "5:4", "-1", "513", "1:2:3", "many", ":4", "4:"])
def test_what_is_no_number_of_workers_is_refused(said: str) -> None:
    with pytest.raises(InvalidArgument, match="allowed are numbers up to 512"):
        config.load({"ray_workers": said}, {})
