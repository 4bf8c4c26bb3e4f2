"""The unit is one that systemd takes, and the page says of it what is so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from loaderd import config

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "docs/how-to/loaderd.service"
PAGE = ROOT / "docs/how-to/run-under-systemd.md"


def settings() -> dict[str, str]:
    lines = [line for line in UNIT.read_text().splitlines() if re.match("[A-Z]", line)]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd")
def test_systemd_finds_no_fault_in_it(tmp_path: Path) -> None:
    program = tmp_path / ".local/bin/loaderd"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(UNIT)],
        env={**os.environ, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_gives_a_drain_the_time_that_it_takes() -> None:
    grace = config.load({}, {}).grace
    assert int(settings()["TimeoutStopSec"]) > grace + 5


def test_the_page_explains_the_settings_as_they_are() -> None:
    section = PAGE.read_text().partition("## What the unit says")[2]
    told = re.findall(r"`([A-Z]\w+)=([^`\n]+)`", section)
    known = settings()
    table = {name: value for name, value in told if name in known}
    assert table.items() <= known.items()
    plain = {"Description", "ExecStart", "ExecReload", "WantedBy"}
    assert known.keys() - plain == table.keys()
