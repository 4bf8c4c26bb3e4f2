"""The extensions read and write no byte beyond their arrays, and do nothing undefined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = 1500
CHECKS = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"


def library(name: str) -> str:
    """The path of a library of the compiler; the name alone if it has none."""
    shown = subprocess.run(["cc", f"-print-file-name={name}"], capture_output=True, text=True)
    return shown.stdout.strip()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not os.path.isabs(library("libasan.so")):
        pytest.skip("this compiler has no AddressSanitizer")
    folder = tmp_path_factory.mktemp("sanitized")
    places = [f"--build-lib={folder}", f"--build-temp={folder}/objects"]
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *places],
        env={**os.environ, "CFLAGS": CHECKS, "LDFLAGS": "-fsanitize=address,undefined"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return folder


@pytest.mark.parametrize(("name", "program"), [("_kernels", "fuzz"), ("_jpeg", "fuzz_jpeg")])
def test_extensions_are_clean_under_address_and_undefined_behaviour_sanitizers(
    folder: Path, name: str, program: str
) -> None:
    (extension,) = folder.glob(f"**/{name}*.so")
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            f"tests.render.native.{program}",
            str(EXAMPLES),
            str(extension),
        ],
        env={
            **os.environ,
            "LD_PRELOAD": library("libasan.so"),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python keeps what it has at its end
            "PYTHONMALLOC": "malloc",  # so that small arrays have guards too
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr[-4000:]
    assert f"{EXAMPLES} examples" in result.stdout
