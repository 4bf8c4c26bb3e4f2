"""Which cache holds a stream's images: how they are decoded, and where their files lie."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from loaderd.cache import images
from loaderd.spec.spec import Pil, Pipeline

PLAIN = Pipeline(target_size=(8, 9))
LATER = {
    "brightness_range",
    "channel_shift_range",
    "channels",  # of arrays, which are not kept
    "cval",
    "data_format",
    "dtype",
    "fill_mode",
    "floatx",
    "function",
    "height_shift_range",
    "horizontal_flip",
    "interpolation_order",
    "preprocessing",
    "preprocessing_format",
    "rescale",
    "rotation_range",
    "samplewise_center",
    "samplewise_std_normalization",
    "save",
    "shear_range",
    "vertical_flip",
    "width_shift_range",
    "zoom_range",
}
"""What is done to an image after it was kept."""


def keys(folder: str, **fields: object) -> tuple[str, ...]:
    return images.keys(msgspec.structs.replace(PLAIN, **fields), folder, "Decoder 1.0")


def test_of_every_field_it_is_known_whether_it_decides_what_is_kept() -> None:
    """A new field that changes what ``load`` gives must be one of ``DECIDING``."""
    assert {*images.DECIDING, "pil"} & LATER == set()
    assert {*images.DECIDING, "pil"} | LATER == {*Pipeline.__struct_fields__}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("target_size", (9, 8)),
        ("color_mode", "grayscale"),
        ("interpolation", "bilinear"),
        ("aspect", "crop"),
        ("truncated", True),
        ("compat", "fixed"),
        ("decode", "scaled"),
        ("exif", True),
        ("reading", "decode_image"),
        ("pil", Pil(libtiff=True)),
    ],
)
def test_what_decides_an_image_decides_the_cache(field: str, value: object) -> None:
    assert not {*keys("/data", **{field: value})} & {*keys("/data")}
    assert images.keys(PLAIN, "/data", "Decoder 1.1") != keys("/data")


def test_what_is_done_later_does_not(tmp_path: Path) -> None:
    assert keys("/data", rescale=0.5, horizontal_flip=True, dtype="uint8") == keys("/data")


def test_the_nearest_folder_above_comes_first() -> None:
    assert keys("/data/train/cat")[1:] == keys("/data/train")
    assert keys("/data/train")[1] == keys("/data")[0]
    assert len(keys("/data/train")) == 3
    assert len(keys("/")) == 1


def test_a_deep_folder_asks_for_a_limited_number() -> None:
    deep = "/a" * 1000
    assert keys(deep)[0] not in keys(deep[:-2])
    assert len(keys(deep)) == 64


def test_the_folder_is_the_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "1.jpg").touch()
    (tmp_path / "link").symlink_to("set")
    real = str(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    for name in ("set", "set/", "./set", "link", f"{real}/../link/", f"{real}/1.jpg", "link/1.jpg"):
        assert images.folder_of(name) == real
    assert images.folder_of("") == "/"
    odd = os.fsdecode(b"\xff\n")
    assert keys(f"/{odd}") != keys("/\n")
