"""Without kernels, or with old ones, the daemon says what to do; the client needs none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
NATIVE = "loaderd/render/native"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("loaderd", "client"):
        shutil.copytree(ROOT / name, tmp_path / name)
    return tmp_path


def run(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(checkout), str(checkout / "client")])
    return subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": path},
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=60,
    )


def remove_kernels(checkout: Path) -> None:
    for path in (checkout / NATIVE).glob("_kernels*.so"):
        path.unlink()


def test_a_daemon_without_kernels_says_how_to_get_them(checkout: Path) -> None:
    remove_kernels(checkout)
    done = run(checkout, "-m", "loaderd", "serve", f"--socket={checkout}/a.sock")
    assert done.returncode == 1
    assert "needs loaderd's kernels in C, which are not built" in done.stderr
    assert "Traceback" not in done.stderr
    doctor = run(checkout, "-m", "loaderd", "doctor")
    assert doctor.returncode == 1
    assert "kernels     missing: " in doctor.stdout


def test_kernels_that_are_older_than_their_sources_are_refused(checkout: Path) -> None:
    with (checkout / NATIVE / "finish.c").open("a") as source:
        source.write("/* pulled */")
    done = run(checkout, "-c", "import loaderd.render.native.kernels")
    assert "kernels in C are older than their sources" in done.stderr


def test_a_client_needs_no_kernels(checkout: Path) -> None:
    remove_kernels(checkout)
    done = run(checkout, "-c", "import loaderd_client as c; c.ImageDataGenerator(rescale=2)")
    assert done.returncode == 0, done.stderr
