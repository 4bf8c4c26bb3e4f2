"""A trainer, its daemon, and what their PIL reads: all formats, its switches, and what it lacks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from loaderd.errors import BadImage, MissingCodec
from loaderd_client import ImageDataGenerator, Session
from tests.corpus import odd, pictures
from tests.support.daemons import Serve

FLOW: dict[str, Any] = {
    "target_size": (8, 8), "batch_size": 1, "class_mode": None, "shuffle": False,
}  # fmt: skip

WITHOUT_LIBTIFF = """
import PIL._imaging as core
for name in ("libtiff_decoder", "libtiff_encoder"):
    delattr(core, name)
"""


@pytest.fixture
def without_libtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python processes that are started from here on have a PIL that was built without libtiff."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WITHOUT_LIBTIFF)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Six plain pictures, one that is broken, and two that take libtiff."""
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    for i in range(6):
        (folder / f"{i}.jpg").write_bytes(pictures.plain("jpeg", i))
    (folder / "6-broken.jpg").write_bytes(b"broken")
    for i in (7, 8):
        (folder / f"{i}-packed.tif").write_bytes(dict(odd.all_files())["tiff-lzw"]())
    return folder.parent


@pytest.mark.usefixtures("without_libtiff")
@pytest.mark.parametrize("on_error", ["raise", "skip", "substitute"])
def test_what_pil_lacks_is_told_and_never_passed_over(
    scans: Path, serve: Serve, on_error: Any
) -> None:
    with serve(1, "--max-bad=20%") as daemon, Session(daemon.path):
        flow = ImageDataGenerator().flow_from_directory(
            scans, **FLOW | {"batch_size": 9}, on_error=on_error
        )
        for _ in range(2):  # it counts for nothing, however often
            with pytest.raises(MissingCodec if on_error != "raise" else OSError) as caught:
                flow[0]
        if on_error != "raise":
            assert "7-packed.tif: PIL was built without libtiff" in str(caught.value)
            assert "libtiff-dev" in str(caught.value)
        assert daemon.snapshot().daemon.bad == 1
        assert "tiff" not in "".join(
            line for line in daemon.log.splitlines() if "bad image" in line
        )


@pytest.mark.usefixtures("without_libtiff")
def test_a_scan_tells_them_from_bad_images(scans: Path) -> None:
    words = [sys.executable, "-m", "loaderd", "scan", "--workers=1", str(scans)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{scans}/a/6-broken.jpg: not an image")
    assert [line.partition(": PIL was built without libtiff")[0] for line in lines[1:3]] == [
        f"{scans}/a/{i}-packed.tif" for i in (7, 8)
    ]
    assert lines[3:] == ["9 images, 1 bad, 2 that this installation cannot decode"]
    (scans / "a/6-broken.jpg").unlink()
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert (found["bad_images"], found["bad"], found["untried_images"]) == (0, [], 0)
    assert len(found["undecodable"]) == 2


@pytest.fixture
def pil(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str, Any], None]:
    """Sets a switch of PIL, for this test."""
    return monkeypatch.setattr


def grey(path: Path, value: int, **choices: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (20, 10), value).save(path, **choices)


def greys(flow: Any) -> int:
    return int(np.asarray(flow[0])[0, 0, 0, 0])


def test_the_programs_limit_of_pixels_is_followed(
    tmp_path: Path, serve: Serve, pil: Callable[[Any, str, Any], None]
) -> None:
    grey(tmp_path / "a/a.png", 77)
    with serve(workers=1) as daemon, Session(daemon.path):
        flow = ImageDataGenerator().flow_from_directory(tmp_path, **FLOW)
        assert greys(flow) == 77
        pil(Image, "MAX_IMAGE_PIXELS", 99)
        with pytest.raises(BadImage, match=r"20x10 pixels .* 198; .* PIL\.Image\.MAX_IMAGE_PIXELS"):
            greys(flow)
        for limit in (100, 1e12, None):
            pil(Image, "MAX_IMAGE_PIXELS", limit)
            assert greys(flow) == 77


def test_the_daemons_limit_of_pixels_holds_whatever_the_program_says(
    tmp_path: Path, serve: Serve, pil: Callable[[Any, str, Any], None]
) -> None:
    grey(tmp_path / "a/a.png", 77)
    pil(Image, "MAX_IMAGE_PIXELS", None)
    with serve(1, "--max-pixels=199") as daemon, Session(daemon.path):
        flow = ImageDataGenerator().flow_from_directory(tmp_path, **FLOW)
        with pytest.raises(BadImage, match=r"raise --max-pixels \(LOADERD_MAX_PIXELS\)"):
            greys(flow)
    with serve(1, "--max-pixels=200") as daemon, Session(daemon.path):
        assert greys(ImageDataGenerator().flow_from_directory(tmp_path, **FLOW)) == 77


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_other_switches_are_followed_with_and_without_a_cache(
    tmp_path: Path, serve: Serve, pil: Callable[[Any, str, Any], None], cache: Any
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/a.png").write_bytes(odd.long_notes(3 * 2**20))
    with serve(workers=1) as daemon, Session(daemon.path):
        pil(PngImagePlugin, "MAX_TEXT_CHUNK", 2**22)
        flow = ImageDataGenerator().flow_from_directory(tmp_path, cache=cache, **FLOW)
        expected = greys(flow)
        pil(PngImagePlugin, "MAX_TEXT_CHUNK", 2**20)
        with pytest.raises(BadImage, match=r"raise PIL's PngImagePlugin\.MAX_TEXT_CHUNK"):
            greys(flow)
        pil(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # which passes over such texts
        assert greys(flow) == expected


def test_a_format_that_the_program_has_registered_is_read_by_the_workers(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.process import dots

    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN, "DOTS": (dots.Dots, dots.accept)})
    (tmp_path / "a").mkdir()
    (tmp_path / "a/scraped.jpg").write_bytes(b"DOTS" + bytes(range(100, 164)))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with serve(workers=1) as daemon, Session(daemon.path):
        flow = ImageDataGenerator().flow_from_directory(tmp_path, **FLOW, color_mode="grayscale")
        assert np.asarray(flow[0]).ravel().tolist() == list(range(100, 164))
    with serve(1, "--no-user-code") as daemon, Session(daemon.path):
        flow = ImageDataGenerator().flow_from_directory(tmp_path, **FLOW)
        with pytest.raises(BadImage, match="not an image"):
            flow[0]


def test_the_log_says_once_which_pil_decodes(serve: Serve, photos: Path) -> None:
    with serve(workers=2) as daemon, Session(daemon.path):
        ImageDataGenerator().flow_from_directory(photos, **FLOW)[0]
        assert daemon.log.count("images are decoded and resized by pillow-simd ") == 1
