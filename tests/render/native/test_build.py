"""Without kernels, or with old ones, the daemon says what to do; the client needs none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.render.native.fuzz_jpeg import jpeg

ROOT = Path(__file__).parents[3]
NATIVE = "loaderd/render/native"
LOAD = """
import hashlib, pathlib
from loaderd.render.native.jpeg import VERSION
from loaderd.render.load.decode import Decoder
from loaderd.render.load.resize import Resizer
from loaderd.spec.load import Load
load = Load(target_size=(150, 150), interpolation="nearest")
resize = Resizer(load)
data = memoryview(pathlib.Path("photo.jpg").read_bytes())
image = resize(Decoder(load, picks=resize.picks).decode(data))
print(VERSION, hashlib.sha256(image.tobytes()).hexdigest(), sep="\\n")
"""


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


def test_without_libjpeg_pixels_are_the_same_and_the_doctor_says_what_to_install(
    checkout: Path,
) -> None:
    (checkout / "photo.jpg").write_bytes(jpeg((500, 375), "RGB", 1))
    with_it = run(checkout, "-c", LOAD)
    for path in (checkout / NATIVE).glob("_jpeg*.so"):
        path.unlink()
    without = run(checkout, "-c", LOAD)
    assert with_it.stdout.splitlines()[0], with_it.stderr
    assert without.stdout.splitlines() == ["", with_it.stdout.splitlines()[1]]
    doctor = run(checkout, "-m", "loaderd", "doctor")
    assert "install its headers (libjpeg-dev)" in doctor.stdout


def test_kernels_that_are_older_than_their_sources_are_refused(checkout: Path) -> None:
    with (checkout / NATIVE / "finish.c").open("a") as source:
        source.write("/* pulled */")
    done = run(checkout, "-c", "import loaderd.render.native.kernels")
    assert "kernels in C are older than their sources" in done.stderr


def test_a_client_needs_no_kernels(checkout: Path) -> None:
    remove_kernels(checkout)
    done = run(checkout, "-c", "import loaderd_client as c; c.ImageDataGenerator(rescale=2)")
    assert done.returncode == 0, done.stderr
