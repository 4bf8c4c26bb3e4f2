"""Picked pixels of a JPEG are those of the whole picture, and damage is never missed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from numpy.typing import NDArray
from PIL import Image, ImageFile

from loaderd.augment.crops import RandomResizedCrop
from loaderd.augment.warps import Filter
from loaderd.render.load.decode import Decoder
from loaderd.render.load.resize import Reduced, Resizer
from loaderd.render.native import _jpeg
from loaderd.render.native.jpeg import pick
from loaderd.render.renderer import Renderer, StageTimes
from loaderd.spec.base import ColorMode
from loaderd.spec.load import Load
from loaderd.spec.spec import Spec
from tests.render.native import fuzz_jpeg
from tests.render.native.fuzz_jpeg import Example, jpeg
from tests.support.specs import rendering

PHOTO = jpeg((500, 375), "RGB", 1, quality=90)
GREEN = np.full((30, 40, 3), (10, 200, 30), np.uint8)


def places(*values: int) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def picked(data: bytes, rows: Any, columns: Any) -> NDArray[Any] | None:
    out = np.zeros((len(rows), len(columns), 3), np.uint8)
    return out if pick(memoryview(data), rows, columns, out) else None


def without_its_last_block(data: bytes) -> bytes:
    return data[:-80] + data[-2:]


@settings(max_examples=400, deadline=None)
@given(fuzz_jpeg.examples())
def test_picked_pixels_and_regions_are_those_of_the_whole_picture_or_none(example: Example) -> None:
    fuzz_jpeg.check(_jpeg, example)


def cropping(color_mode: ColorMode, crop: RandomResizedCrop) -> Spec:
    base = rendering(
        target_size=crop.sets_size,
        aspect="keep",
        dtype="uint8",
        color_mode=color_mode,
        decode="scaled",
    )
    output = msgspec.structs.replace(base.output, image_size=crop.sets_size)
    return msgspec.structs.replace(base, output=output, augment=(crop,))


def cropped(spec: Spec, data: bytes, sample: int) -> tuple[Any, NDArray[Any]]:
    """The picture that is decoded for a sample, and its finished row."""
    renderer = Renderer(spec, StageTimes())
    prepared = renderer.prepare([(0, sample, 0)])
    row = np.zeros(spec.image_shape, np.uint8)
    renderer.begin(prepared, 0)
    picture = renderer.load(memoryview(data))
    renderer.finish(picture, prepared, 0, row)
    return picture, row


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])
@pytest.mark.parametrize(("mode", "subsampling"), [("RGB", 0), ("RGB", 1), ("RGB", 2), ("L", 0)])
def test_a_random_resized_crop_has_the_pixels_of_the_whole_picture(
    mode: str,
    subsampling: int,
    color_mode: ColorMode,
    interpolation: Filter,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At all scales, and for sizes that are odd."""
    spec = cropping(color_mode, RandomResizedCrop(24, 40, interpolation=interpolation))
    reductions = set()
    for sample, size in enumerate([(97, 131), (333, 217), (641, 499), (1003, 1205), (150, 1111)]):
        data = jpeg(size, mode, sample, subsampling=subsampling)
        part, row = cropped(spec, data, sample)
        with monkeypatch.context() as patched:
            patched.setattr(_jpeg, "crop", lambda *_: False)
            whole, expected = cropped(spec, data, sample)
        small = whole.image.size if isinstance(whole, Reduced) else whole.size
        assert part.image.size < small or part.image.height < small[1]
        assert (row == expected).all()
        reductions.add(part.reduction)
    assert len(reductions) > 1


def test_damage_below_a_crop_is_not_seen_and_damage_within_it_is() -> None:
    spec = cropping("rgb", RandomResizedCrop(40, 40, scale=(0.1, 0.2)))
    intact = jpeg((400, 400), "RGB", 2)
    cut = intact[: len(intact) * 6 // 10]
    seen = []
    for sample in range(20):
        part, row = cropped(spec, intact, sample)
        ends = part.image.height - part.skip[1]
        if ends > 260:
            with pytest.raises(OSError, match="truncated"):
                cropped(spec, cut, sample)
        elif ends < 190:
            assert (cropped(spec, cut, sample)[1] == row).all()
        seen.append(ends)
    assert min(seen) < 190
    assert max(seen) > 260


def sizes() -> Iterator[tuple[int, int]]:
    rng = np.random.default_rng(3)
    yield from [(500, 375), (375, 500), (1, 1), (1, 300), (300, 1), (16, 16), (17, 33), (20, 20)]
    yield from (tuple(rng.integers(1, 400, 2).tolist()) for _ in range(40))


@pytest.mark.parametrize("target", [(20, 20), (37, 90), (150, 150)])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_picture_of_picked_pixels_is_the_resized_picture(
    target: tuple[int, int], subsampling: int
) -> None:
    load = Load(target_size=target, interpolation="nearest")
    resize = Resizer(load)
    picking, whole = Decoder(load, picks=resize.picks), Decoder(load)
    for number, size in enumerate(sizes()):
        data = memoryview(jpeg(size, "RGB", number, subsampling=subsampling))
        picture = picking.decode(data)
        assert isinstance(picture, np.ndarray)
        assert (resize(picture) == resize(whole.decode(data))).all(), size


def test_only_a_few_pixels_are_decoded_alone() -> None:
    load = Load(target_size=(150, 150), interpolation="nearest")
    decoder = Decoder(load, picks=Resizer(load).picks)
    few: Any = decoder.decode(memoryview(PHOTO))
    assert few.shape == (150, 150, 3)
    most: Any = decoder.decode(memoryview(jpeg((240, 240), "RGB", 1)))
    assert most.shape == (240, 240, 3)


@pytest.mark.parametrize(("size", "asked"), [((500, 375), 1), ((240, 240), 0)])
def test_a_renderer_has_few_pixels_decoded_alone(
    size: tuple[int, int], asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []

    def pick(*call: Any) -> bool:
        calls.append(call)
        return False

    monkeypatch.setattr("loaderd.render.native.jpeg.pick", pick)
    renderer = Renderer(rendering(target_size=(150, 150)), StageTimes())
    assert renderer.load(memoryview(jpeg(size, "RGB", 1))).shape == (150, 150, 3)
    assert len(calls) == asked


def test_damage_below_the_last_picked_row_is_not_missed() -> None:
    damaged = without_its_last_block(PHOTO)
    with pytest.raises(ValueError, match="premature end"):
        simplejpeg.decode_jpeg(damaged, "RGB")
    assert picked(PHOTO, places(3), places(4)) is not None
    assert picked(damaged, places(3), places(4)) is None


@pytest.mark.parametrize("cut", [2, 4, 300, 700, 5000])
def test_a_truncated_file_is_left_to_others(cut: int) -> None:
    assert picked(PHOTO[:cut], places(0), places(0)) is None
    assert picked(PHOTO[:-cut], places(0), places(0)) is None


def test_files_of_other_kinds_are_left_to_others() -> None:
    others = [
        jpeg((40, 30), "RGB", 0, progressive=True),
        jpeg((40, 30), "CMYK", 0),
        simplejpeg.encode_jpeg(GREEN, colorsubsampling="440"),
        simplejpeg.encode_jpeg(GREEN, colorsubsampling="411"),
        jpeg((40, 30), "RGB", 0, keep_rgb=True),
        b"\xff\xd8\xff",
        b"",
    ]
    assert [picked(data, places(0), places(0)) for data in others] == [None] * len(others)


@pytest.mark.parametrize("size", [(65500, 65500), (20000, 20000), (1, 65500)])
def test_a_size_that_is_claimed_and_not_there_takes_nothing(size: tuple[int, int]) -> None:
    frame = PHOTO.index(b"\xff\xc0") + 5  # behind the marker, its length and the precision
    claimed = size[1].to_bytes(2) + size[0].to_bytes(2)
    forged = PHOTO[:frame] + claimed + PHOTO[frame + 4 :]
    assert picked(forged, places(0), places(0)) is None


@pytest.mark.parametrize(
    ("rows", "columns"),
    [((375,), (0,)), ((0,), (500,)), ((-1,), (0,)), ((0,), (-1,))],
)
def test_places_beyond_the_picture_are_refused(
    rows: tuple[int, ...], columns: tuple[int, ...]
) -> None:
    assert picked(PHOTO, places(*rows), places(*columns)) is None


@pytest.mark.parametrize(
    ("rows", "columns", "out"),
    [
        (places(0), places(0), np.zeros((1, 2, 3), np.uint8)),
        (places(0, 1), places(0), np.zeros((1, 1, 3), np.uint8)),
        (places(), places(0), np.zeros((1, 1, 3), np.uint8)),
        (places(0), places(0), np.zeros((1, 1, 3), np.int8)),
        (places(0).astype(np.int64), places(0), np.zeros((1, 1, 3), np.uint8)),
        (places(0, 1)[::2], places(0), np.zeros((1, 1, 6), np.uint8)[:, :, ::2]),
    ],
)
def test_arrays_that_do_not_fit_are_errors(rows: Any, columns: Any, out: NDArray[Any]) -> None:
    with pytest.raises((ValueError, BufferError)):
        pick(memoryview(PHOTO), rows, columns, out)


def test_a_damaged_file_has_the_pixels_that_pil_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as the decoder sets it here
    load = Load(target_size=(150, 150), interpolation="nearest", truncated=True)
    resize = Resizer(load)
    found = resize(Decoder(load, picks=resize.picks).decode(memoryview(PHOTO[:-5000])))
    whole = Image.open(io.BytesIO(PHOTO[:-5000]))
    assert (found == np.asarray(whole.resize((150, 150), Image.Resampling.NEAREST))).all()
