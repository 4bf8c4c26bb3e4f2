"""A wheel holds the kernels, and works in an environment that has nothing but its dependencies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TRY = """
import numpy as np
from loaderd.render.native.kernels import KERNELS, Finish
row = np.empty((4, 5, 3), np.float32)
Finish((4, 5, 3)).one(np.full((4, 5, 3), 7, np.uint8), None, None, 0, row)
print(KERNELS, row.sum())
"""


def run(*command: object) -> str:
    result = subprocess.run(
        [str(word) for word in command], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.long
def test_a_wheel_works_in_a_fresh_environment(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "-w", tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-cp311-abi3-linux_" in wheel.name
    run(sys.executable, "-m", "venv", tmp_path / "fresh")
    python = tmp_path / "fresh" / "bin" / "python"
    run(python, "-m", "pip", "install", wheel)
    assert run(python, "-I", "-c", TRY).split()[-1] == "420.0"
    doctor = subprocess.run(
        [tmp_path / "fresh/bin/loaderd", "doctor"], capture_output=True, text=True
    )
    assert "kernels     in C" in doctor.stdout  # the decoders are another extra
