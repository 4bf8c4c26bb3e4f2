"""One daemon for a module's programs, a session for each, and pictures that tell their number."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from loaderd_client import Session
from tests.support.daemons import Daemon, running

CLASSES, PER_CLASS = 4, 10
TOTAL = CLASSES * PER_CLASS
STEP = 255 // TOTAL


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    folder = tempfile.mkdtemp(prefix="ld-")
    words = ["loaderd", "serve", "--socket", f"{folder}/loaderd/default.sock", "--workers=2"]
    try:
        with running(lambda tell: [*words, f"--ready-fd={tell}"], folder) as daemon:
            yield daemon
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def session(daemon: Daemon, runtime: str) -> Iterator[Session]:
    with Session(daemon.path) as session:
        yield session


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of ten PNG files; sample i, as flows count them, is about STEP * i."""
    root = tmp_path_factory.mktemp("plain")
    grain = np.random.default_rng(1).permutation(np.repeat([-2, -1, 0, 0, 0, 0, 1, 2], 24))
    for number in range(TOTAL):
        place = root / "abcd"[number // PER_CLASS]
        place.mkdir(exist_ok=True)
        pixels = grain.reshape(8, 8, 3) + STEP * number + 2
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{number % PER_CLASS}.png")
    return root


@pytest.fixture(scope="session")
def grain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty noisy pictures of one class: no two of them, turned as they may be, are alike."""
    root = tmp_path_factory.mktemp("grain")
    (root / "a").mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(root / "a" / f"{number:02}.png")
    return root


def numbers(images: NDArray[Any]) -> list[int]:
    """The samples of a batch of the plain folder."""
    return [round((float(image.mean()) - 2) / STEP) for image in images]
