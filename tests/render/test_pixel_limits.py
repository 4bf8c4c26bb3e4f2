"""What would take too much memory, or too long, is refused before it takes any."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loaderd.errors import BadImage, NoRoom
from loaderd.render.load import decode, jpeg
from loaderd.scratch import Scratch
from loaderd.spec.base import Aspect, Decode, Interpolation
from scripts.benchmarks.file_renderer import FileRenderer
from tests.corpus import make
from tests.support.specs import rendering

Noisy = Callable[..., Image.Image]

NAMES = ["a.jpg", "a.png", "a.bmp", "a.ppm", "a.tif", "a.gif"]
DECODES: list[Decode] = ["exact", "scaled"]


def load(path: Path, max_pixels: int | None = None, **choices: Any) -> Any:
    return FileRenderer(
        rendering(**{"target_size": (8, 8)} | choices), max_pixels=max_pixels
    ).load_file(str(path))


@pytest.mark.parametrize("decode_as", DECODES)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_picture_may_have_as_many_pixels_as_the_limit_and_no_more(
    tmp_path: Path, noisy: Noisy, name: str, progressive: bool, decode_as: Decode
) -> None:
    noisy(100, 200).save(tmp_path / name, progressive=progressive)
    load(tmp_path / name, 20_000, decode=decode_as)
    with pytest.raises(BadImage) as caught:
        load(tmp_path / name, 19_999, decode=decode_as)
    assert str(caught.value) == (
        f"{tmp_path / name}: 200x100 pixels are more than 19999; if the picture is real, "
        "raise --max-pixels (LOADERD_MAX_PIXELS)"
    )


def test_a_file_that_no_picture_fills_is_bad_before_any_memory_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "sparse.jpg"
    file.touch()
    os.truncate(file, 2**41)
    with pytest.raises(BadImage, match=r"sparse\.jpg: 2199023255552 bytes .*--max-pixels"):
        load(file)


@pytest.mark.parametrize("pils", [None, 1])
def test_pils_own_limit_does_not_count(
    tmp_path: Path, noisy: Noisy, monkeypatch: pytest.MonkeyPatch, pils: int | None
) -> None:
    for name in NAMES:
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pils)
        noisy(100, 200).save(tmp_path / name)
        load(tmp_path / name)
        with pytest.raises(BadImage, match="200x100 pixels are more than"):
            load(tmp_path / name, 19_999)


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "gif", "bmp", "tiff", "ppm"])
def test_no_memory_is_taken_for_what_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "bomb.jpg").write_bytes(make.bomb(name))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    with pytest.raises(BadImage, match="--max-pixels"):
        load(tmp_path / "bomb.jpg")
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_frame_of_a_gif_that_is_larger_than_the_picture_counts(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(make.wide_frame())
    with pytest.raises(BadImage, match=r"\d+ pixels are more than"):
        load(tmp_path / "a.gif")


def test_a_cmyk_jpeg_is_refused_as_well(tmp_path: Path, noisy: Noisy) -> None:
    noisy(100, 200).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match="200x100 pixels"):
        load(tmp_path / "a.jpg", 19_999)


# Long and narrow pictures, which have few pixels and take many on the way


@pytest.mark.parametrize("name", ["a.png", "a.ppm"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_padding_a_narrow_picture_takes_no_more_than_the_limit(
    tmp_path: Path, name: str, interpolation: Interpolation
) -> None:
    Image.new("RGB", (20_000, 1)).save(tmp_path / name)
    with pytest.raises(BadImage, match="20000x19999 pixels with the padding are more"):
        load(tmp_path / name, aspect="pad", interpolation=interpolation)


def test_an_array_is_padded_within_the_limit_too(tmp_path: Path) -> None:
    Image.new("RGB", (20_000, 16)).save(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match="with the padding are more"):
        load(tmp_path / "a.jpg", aspect="pad")


def test_resizing_a_high_picture_takes_no_more_than_the_limit(tmp_path: Path) -> None:
    Image.new("L", (1, 1_000_000)).save(tmp_path / "a.png")
    load(tmp_path / "a.png", target_size=(100, 100), interpolation="bilinear")
    with pytest.raises(BadImage, match="what resizing 1x1000000 pixels takes"):
        load(tmp_path / "a.png", target_size=(100, 200), interpolation="bilinear")


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
def test_a_low_limit_is_for_the_picture_alone(tmp_path: Path, noisy: Noisy, aspect: Aspect) -> None:
    noisy(10, 200).save(tmp_path / "a.png")
    load(tmp_path / "a.png", 2000, target_size=(300, 300), aspect=aspect, interpolation="lanczos")


# Scans


def test_a_jpeg_of_many_scans_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(make.scans(2000, (4000, 4000)))
    start = time.perf_counter()
    with pytest.raises(BadImage, match="more than 357 scans of 4000x4000 pixels"):
        load(tmp_path / "a.jpg")
    assert time.perf_counter() - start < 1


def test_a_sequential_jpeg_of_many_scans_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(make.separate_scans(500, (4000, 4000)))
    with pytest.raises(BadImage, match="more than 357 scans"):
        load(tmp_path / "a.jpg")


def test_scans_that_take_no_time_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(make.scans(1000, (64, 48)))
    load(tmp_path / "a.jpg")


@pytest.mark.parametrize("before", [b"\xff", b"\xff\xff\xff", b"\xff\xe0\0\0", b"\0\0"])
def test_scans_are_counted_where_the_head_is_odd(tmp_path: Path, before: bytes) -> None:
    data = make.scans(400, (4000, 4000))
    (tmp_path / "a.jpg").write_bytes(data[:2] + before + data[2:])
    with pytest.raises(BadImage, match=r"scans of 4000x4000|not an image"):
        load(tmp_path / "a.jpg")


def test_the_pixels_of_a_baseline_jpeg_are_not_searched_for_scans(
    noisy: Noisy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``SCAN`` markers behind the end of a sequential JPEG are no scans of it."""
    file = io.BytesIO()
    noisy(30, 40).save(file, "JPEG")
    tail = b"\xff\xda\0\x0c" * 5000
    monkeypatch.setattr(jpeg, "_MAX_SCANNED", 40)
    assert not jpeg.has_too_many_scans(memoryview(file.getvalue() + tail), 30 * 40)
    noisy(30, 40).save(file := io.BytesIO(), "JPEG", progressive=True)
    assert jpeg.has_too_many_scans(memoryview(file.getvalue() + tail), 30 * 40)


# Memory

LIMITED = """
import resource, sys
from loaderd.errors import NoRoom
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import rendering
renderer = FileRenderer(rendering(target_size=(8, 8), interpolation="bilinear"))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]) * 2**20,) * 2)
try:
    renderer.load_file(sys.argv[1])
except NoRoom as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("name", "mebibytes"),
    [("a.jpg", 40), ("p.jpg", 90), ("a.png", 40), ("a.tif", 40), ("a.gif", 10), ("a.bmp", 90)],
)
def test_too_little_memory_is_no_bad_image(tmp_path: Path, name: str, mebibytes: int) -> None:
    """20 million pixels: 76 MiB decoded, and a progressive JPEG's coefficients besides."""
    path = tmp_path / name
    Image.new("RGB", (5000, 4000), (9, 8, 7)).save(path, progressive=name == "p.jpg")
    words = [sys.executable, "-c", LIMITED, str(path), str(mebibytes)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout == (
        f"{path}: the worker has too little memory for it; raise the daemon's --worker-memory "
        "(LOADERD_WORKER_MEMORY)\n"
    ), done.stderr


def test_memory_that_only_pil_lacks_is_told_from_a_broken_file() -> None:
    assert isinstance(decode.file_error("a", OSError("out of memory when reading")), NoRoom)
    assert isinstance(decode.file_error("a", OSError("broken data stream")), BadImage)


def test_a_picture_after_too_little_memory_is_rendered(
    tmp_path: Path, noisy: Noisy, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy(10, 20).save(tmp_path / "a.jpg")
    renderer = FileRenderer(rendering(target_size=(8, 8)))
    with monkeypatch.context() as patch:
        patch.setattr(Scratch, "take", lambda self, size: np.empty(1 << 55))
        with pytest.raises(NoRoom):
            renderer.load_file(str(tmp_path / "a.jpg"))
    renderer.load_file(str(tmp_path / "a.jpg"))
