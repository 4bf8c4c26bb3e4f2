"""One daemon for all of these tests, a session for each, and the pictures they load."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from loaderd_client import Session
from tests.keras.surface.module import ON_KERAS
from tests.keras.surface.samples import CHANNELS, Pixels, Shelf, every_kind, grains, write
from tests.support.daemons import DEADLINE, eventually, family, gone

CLASSES = 2
PLACES = ("", "inner", "other", "inner/deeper")


@contextlib.contextmanager
def _serving(path: str) -> Iterator[None]:
    ready, tell = os.pipe()
    words = ["serve", "--socket", path, "--workers=2", f"--ready-fd={tell}"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LOADERD_")}
    process = subprocess.Popen([sys.executable, "-m", "loaderd", *words], pass_fds=[tell], env=env)
    os.close(tell)
    try:
        assert select.select([ready], [], [], DEADLINE)[0]
        assert os.read(ready, 1), "the daemon ended before it was ready"
        members = family(process.pid)
        yield
    finally:
        os.close(ready)
        process.terminate()
        process.wait(DEADLINE)
    eventually(lambda: all(gone(member) for member in members))


@pytest.fixture(scope="package")
def address() -> Iterator[str | None]:
    """The socket of the one daemon; Keras needs none."""
    if ON_KERAS:
        yield None
        return
    folder = tempfile.mkdtemp(prefix="ld-")
    try:
        path = os.path.join(folder, "surface.sock")
        with _serving(path):
            yield path
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def session(address: str | None, runtime: str) -> Iterator[None]:
    """What a test opens is closed when the test ends."""
    if address is None:
        yield
        return
    with Session(address):
        yield


@pytest.fixture(scope="package")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """40 pictures of every kind: two classes in turn, with folders within their folders."""
    root = tmp_path_factory.mktemp("tree")
    names = []
    for number, pixels in enumerate(every_kind()):
        place = os.path.join(f"class-{number % CLASSES}", PLACES[number % len(PLACES)])
        (root / place).mkdir(parents=True, exist_ok=True)
        ending = "tiff" if pixels.dtype == "int32" else "png"  # PNG holds 16 bits at most
        names.append(os.path.normpath(os.path.join(place, f"image-{number}.{ending}")))
        write(root / names[-1], pixels)
    return Shelf(root, names)


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """24 pictures side by side: in colour, with alpha, and grey."""
    root = tmp_path_factory.mktemp("shelf")
    pictures = [one for color_mode in CHANNELS for one in grains(color_mode)]
    names = [f"image-{number:02}.png" for number in range(len(pictures))]
    for name, pixels in zip(names, pictures, strict=True):
        write(root / name, pixels)
    return Shelf(root, names)


@pytest.fixture(params=CHANNELS)
def pixels(request: pytest.FixtureRequest) -> Pixels:
    """8 pictures as an array of floats: in colour, then with alpha, then grey."""
    color_mode: str = request.param
    return grains(color_mode).astype("float32")
