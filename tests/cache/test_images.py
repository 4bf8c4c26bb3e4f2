"""Which cache holds a stream's images: how they are decoded, and where their files lie."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from loaderd.cache import images
from loaderd.spec.load import Load, Pil

PLAIN = Load(target_size=(8, 9))


def keys(folder: str, **fields: object) -> tuple[str, ...]:
    return images.keys(msgspec.structs.replace(PLAIN, **fields), folder, "Decoder 1.0")


def test_all_fields_of_load_decide_but_those_of_arrays() -> None:
    """A new field decides what is kept unless it is left out by name."""
    head = images.head(PLAIN, "/data", "Decoder 1.0")
    assert {*head.about} - {"directory", "decoders"} == {*Load.__struct_fields__} - {
        "channels",  # of arrays, which are not kept
        "pil",  # named where it is not the default
        "sized",  # the same
    }


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
        ("sized", True),
        ("reading", "decode_image"),
        ("pil", Pil(libtiff=True)),
    ],
)
def test_what_decides_an_image_decides_the_cache(field: str, value: object) -> None:
    assert not {*keys("/data", **{field: value})} & {*keys("/data")}
    assert images.keys(PLAIN, "/data", "Decoder 1.1") != keys("/data")


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
