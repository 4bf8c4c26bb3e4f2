"""A daemon is run by a Python of this version, and never by a program that embeds one."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from loaderd.errors import NoDaemon
from loaderd.launch import interpreter


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A program that notes its starts."""
    path = tmp_path / "host"
    path.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 3\n")
    path.chmod(0o755)
    return path


def test_this_python_is_the_usual_one() -> None:
    assert interpreter.find() == sys.executable


@pytest.mark.parametrize("executable", ["host", "", None, "/not/there/python3", "python3"])
def test_where_the_program_is_none_its_prefix_has_one(
    executable: str | None, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(host) if executable == "host" else executable)
    found = interpreter.find()
    assert os.path.dirname(found) == f"{sys.exec_prefix}/bin"
    version = subprocess.run([found, "--version"], capture_output=True, text=True).stdout
    assert version.split()[1].startswith("{}.{}.".format(*sys.version_info))
    assert not (host.parent / "started").exists()


def test_a_frozen_program_is_never_started_whatever_its_name(
    host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = host.rename(host.parent / "python3")
    monkeypatch.setattr(sys, "executable", str(frozen))
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert interpreter.find() != str(frozen)
    assert not (host.parent / "started").exists()


def test_one_of_another_version_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    other = tmp_path / "bin" / "python3"
    other.write_text("#!/bin/sh\necho 2 7\n")
    other.chmod(0o755)
    for prefix in ("exec_prefix", "base_exec_prefix"):
        monkeypatch.setattr(sys, prefix, str(tmp_path))
    monkeypatch.setattr(sys, "executable", "")
    monkeypatch.setattr(sysconfig, "get_config_var", lambda name: None)
    with pytest.raises(NoDaemon, match=r"sys\.executable is ''.*`loaderd start`"):
        interpreter.find()


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("python", True),
        ("python3", True),
        ("python3.11", True),
        ("python3.13t", True),
        ("python3-config", False),
        ("uwsgi", False),
        ("mypython", False),
        ("R", False),
    ],
)
def test_a_python_is_known_by_its_name(name: str, is_one: bool, tmp_path: Path) -> None:
    path = tmp_path / name
    path.touch(0o755)
    assert interpreter.is_python(str(path)) == is_one


def test_what_cannot_be_run_is_none(tmp_path: Path) -> None:
    (tmp_path / "python").touch(0o644)
    assert not interpreter.is_python(str(tmp_path / "python"))
    assert not interpreter.is_python(str(tmp_path))
