"""The same fits on the other backends, where they are installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

FITS = Path(__file__).parent / "test_fits.py"
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("backend", ["jax", "torch", "tensorflow"])
def test_fits_on_every_backend_that_is_installed(backend: str) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    if keras.config.backend() == backend:
        pytest.skip(f"these tests run on {backend} already")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", str(FITS)],
        env=os.environ | {"KERAS_BACKEND": backend},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
