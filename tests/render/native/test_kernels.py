"""The kernels give scipy's, NumPy's and Keras's values to the last bit, on every path."""

from __future__ import annotations

import colorsys
import itertools
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from loaderd.render.native import _kernels
from loaderd.render.native.kernels import (
    ALL_KERNELS,
    Finish,
    change_colors,
    look_up,
    to_bfloat16,
)
from tests.render.native.fuzz import Example, by_numpy, check, examples, stored_as

Array = NDArray[Any]

MODES = ["nearest", "constant", "reflect", "wrap"]
TOLERANCE = 0.01
"""Grey levels that a fast warp may be off."""

SIZES = st.tuples(st.integers(1, 60), st.integers(1, 60), st.integers(1, 4))
EXACT = st.sampled_from([0.0, 0.5, 1.0, -1.0, 2.0])
NUMBERS = EXACT | st.floats(-3, 3)
SHIFTS = st.integers(-70, 70).map(float) | st.floats(-100, 100)
MATRICES = st.tuples(NUMBERS, NUMBERS, SHIFTS, NUMBERS, NUMBERS, SHIFTS)


def pixels(shape: tuple[int, ...], dtype: str = "uint8", seed: int = 0) -> Array:
    rng = np.random.default_rng((*shape, seed))
    if dtype == "uint8":
        return rng.integers(0, 256, shape, np.uint8)
    return (rng.standard_normal(shape) * 100).astype(np.float32)


def by_scipy(image: Array, matrix: Any, order: int, mode: str, cval: float) -> Array:
    m = np.array(matrix).reshape(2, 3)
    planes = [
        ndimage.affine_transform(
            plane, m[:, :2], m[:, 2], order=order, mode=mode, cval=cval, output=np.float32
        )
        for plane in np.moveaxis(image.astype(np.float32), -1, 0)
    ]
    return np.stack(planes, -1)


def warped(image: Array, matrix: Any, **options: Any) -> Array:
    row = np.full(image.shape, 77, np.float32)
    Finish(image.shape, **options).one(image, np.array([matrix], np.float64), None, 0, row)
    return row


def same_bits(one: Array, other: Array) -> bool:
    return one.dtype == other.dtype and one.tobytes() == np.ascontiguousarray(other).tobytes()


@settings(max_examples=400, deadline=None)
@given(
    shape=SIZES,
    matrix=MATRICES,
    order=st.integers(0, 1),
    mode=st.sampled_from(MODES),
    cval=st.sampled_from([0.0, 3.7, -5.0]),
    dtype=st.sampled_from(["uint8", "float32"]),
    kernels=st.sampled_from(ALL_KERNELS),
)
def test_a_warp_is_scipys_to_the_last_bit(
    shape: tuple[int, int, int],
    matrix: Any,
    order: int,
    mode: Any,
    cval: float,
    dtype: str,
    kernels: str,
) -> None:
    image = pixels(shape, dtype)
    row = warped(image, matrix, order=order, fill_mode=mode, cval=cval, kernels=kernels)
    assert same_bits(row, by_scipy(image, matrix, order, mode, cval))


@settings(max_examples=200, deadline=None)
@given(shape=SIZES, matrix=MATRICES, mode=st.sampled_from(MODES), order=st.integers(0, 1))
def test_a_fast_warp_is_scipys_to_a_hundredth_of_a_grey_level(
    shape: tuple[int, int, int], matrix: Any, mode: Any, order: int
) -> None:
    image = pixels(shape)
    row = warped(image, matrix, fill_mode=mode, order=order, fast=True)
    np.testing.assert_allclose(row, by_scipy(image, matrix, order, mode, 0), atol=TOLERANCE)


@settings(max_examples=200, deadline=None)
@given(examples())
def test_all_kernels_give_the_same(example: Example) -> None:
    check(_kernels, example)


@settings(max_examples=300, deadline=None)
@given(
    shape=SIZES,
    at=st.integers(0, 63),
    seed=st.integers(0, 9),
    shared=st.booleans(),
    flip=st.integers(0, 3),
    kernels=st.sampled_from(ALL_KERNELS),
)
def test_tables_and_flips_of_bytes_are_numpys_at_any_place_in_memory(
    shape: tuple[int, int, int], at: int, seed: int, shared: bool, flip: int, kernels: str
) -> None:
    room = pixels((at + 2 * int(np.prod(shape)),), seed=seed)
    image, row = room[at:].reshape(2, *shape)
    apart = pixels((shape[0], shape[1] + at + 1, shape[2]))[:, : shape[1]]
    table = pixels((256,) if shared else (256, shape[2]), seed=seed)
    before, expected = image.copy(), by_numpy(image, table)
    look_up(image, table, row, kernels)
    assert (row == expected).all()
    finish = Finish(shape, dtype="uint8", kernels=kernels)
    for each, unmoved in ((None, before), (table, expected)):
        moved = unmoved[:, ::-1] if flip & 1 else unmoved
        apart[:] = image
        for pixels_of_it in (image, apart):
            row[:] = 77
            finish.one(pixels_of_it, None, np.array([flip], np.uint8), 0, row, each)
            assert (row == (moved[::-1] if flip & 2 else moved)).all()
    look_up(image, table, image, kernels)  # in place
    assert (image == expected).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_may_be_apart_but_pixels_and_their_values_may_not(dtype: str) -> None:
    whole, row = pixels((5, 9, 3), dtype), np.empty((4, 5, 3), np.float32)
    finish = Finish(row.shape)
    finish.one(whole[1:, 2:7], None, np.array([3], np.uint8), 0, row)
    assert (row == whole[1:, 2:7][::-1, ::-1]).all()
    wrong = (whole[4:0:-1, :5], whole[:4, ::2], whole[:4, :5, ::-1], whole[:4, :4], whole[:, :5])
    for each in wrong:
        with pytest.raises(ValueError, match="in contiguous rows"):
            finish.one(each, None, None, 0, row)
    with pytest.raises(ValueError, match="not warped"):
        finish.one(whole[1:, 2:7], np.array([[1.0, 0, 0, 0, 1, 0]]), None, 0, row)


def test_tables_that_do_not_fit_are_refused() -> None:
    image, row = pixels((4, 5, 3)), np.empty((4, 5, 3), np.uint8)
    finish, matrix = Finish(image.shape, dtype="uint8"), np.array([[1.0, 0, 0, 0, 1, 0]])
    for table in (pixels((255,)), pixels((256, 2)), pixels((0,))):
        with pytest.raises(ValueError, match="table: "):
            look_up(image, table, row)
        with pytest.raises(ValueError, match="table: "):
            finish.one(image, None, None, 0, row, table)
    table = pixels((256,))
    with pytest.raises(ValueError, match="not warped"):
        finish.one(image, matrix, None, 0, row, table)
    with pytest.raises(ValueError, match="not warped"):
        finish.one(image.astype(np.float32), None, None, 0, row, table)
    with pytest.raises(ValueError, match="out: "):
        look_up(image, table, row[1:])
    with pytest.raises(ValueError, match="height, width"):
        look_up(image.ravel(), table, row)
    with pytest.raises(ValueError, match="kernels cannot be fast"):
        look_up(image, table, row, "fast")


def with_colors(image: Array, change: tuple[float, float, float, float]) -> Array:
    """Brightness, contrast, saturation and hue in float64, but for alpha."""
    brightness, contrast, saturation, turn = change
    values = (image[..., :3] + np.float32(brightness)).clip(0, 255)
    means = values.mean((0, 1), keepdims=True)
    values = (contrast * values + (1 - contrast) * means).clip(0, 255)
    if image.shape[2] > 1:
        for pixel in values.reshape(-1, 3):
            hue, saturated, value = colorsys.rgb_to_hsv(*pixel)
            pixel[:] = colorsys.hsv_to_rgb((hue + turn / 6) % 1, saturated * saturation, value)
    result = image.astype(float)
    result[..., :3] = values.clip(0)
    return result


@settings(max_examples=300, deadline=None)
@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 3, 4])),
    change=st.tuples(
        st.floats(-255, 255, width=32),
        st.floats(0, 2, width=32),
        st.floats(0, 4, width=32),
        st.floats(0, 6, width=32),
    ),
    seed=st.integers(0, 9),
)
def test_colors_are_those_of_hsv_and_the_same_on_every_path(
    size: tuple[int, int, int], change: tuple[float, float, float, float], seed: int
) -> None:
    image = pixels(size, seed=seed)
    results = [np.empty_like(image) for _ in ALL_KERNELS]
    for kernels, result in zip(ALL_KERNELS, results, strict=True):
        change_colors(image, result, change, kernels)
        assert (result == results[0]).all()
    assert np.abs(results[0] - with_colors(image, change)).max() < 0.51


def test_colors_that_cannot_be_changed_are_refused() -> None:
    image, row, change = pixels((4, 5, 3)), np.empty((4, 5, 3), np.uint8), (1.0, 1.0, 1.0, 1.0)
    for wrong in (image.ravel(), pixels((4, 5, 2)), pixels((4, 5, 5))):
        with pytest.raises(ValueError, match="height, width"):
            change_colors(wrong, row, change)
    with pytest.raises(ValueError, match="out: "):
        change_colors(image, row[1:], change)
    for turn in (-0.1, 6.1, np.nan):
        with pytest.raises(ValueError, match="turn must be"):
            change_colors(image, row, (*change[:3], turn))
    with pytest.raises(ValueError, match="kernels cannot be fast"):
        change_colors(image, row, change, "fast")


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_flips_mirror_and_turn_upside_down(channels: int, dtype: str, kernels: str) -> None:
    images = pixels((4, 9, 17, channels), dtype)
    rows = np.empty(images.shape, np.float32)
    flips = np.array([0, 1, 2, 3], np.uint8)
    Finish(images.shape[1:], kernels=kernels).many(images, None, None, flips, rows)
    expected = images[0], images[1, :, ::-1], images[2, ::-1], images[3, ::-1, ::-1]
    np.testing.assert_array_equal(rows, np.stack(expected))


def test_a_warp_comes_before_the_flip() -> None:
    image, matrix = pixels((20, 30, 3)), [0.9, 0.1, 2.0, -0.2, 1.1, -3.0]
    row = np.empty(image.shape, np.float32)
    Finish(image.shape).one(image, np.array([matrix]), np.array([3], np.uint8), 0, row)
    assert same_bits(row, by_scipy(image, matrix, 1, "nearest", 0)[::-1, ::-1])


VALUES = st.floats(-1e3, 1e3, width=32).filter(bool)


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["multiply", "subtract", "divide"]),
            st.lists(VALUES, min_size=3, max_size=3),
        ),
        max_size=8,
    ),
    is_warped=st.booleans(),
    reverse_at=st.integers(0, 8),
)
def test_arithmetic_is_numpys_in_float32(
    steps: list[tuple[str, list[float]]], is_warped: bool, reverse_at: int
) -> None:
    image, matrix = pixels((7, 9, 3)), [0.9, 0.1, 2.0, -0.2, 1.1, -3.0]
    expected = by_scipy(image, matrix, 1, "nearest", 0) if is_warped else image.astype(np.float32)
    given_steps: list[Any] = [(name, np.array(by, np.float32)) for name, by in steps]
    if len(steps) < 8:
        given_steps.insert(reverse_at, ("reverse_channels", None))
    for name, by in given_steps:
        expected = expected[..., ::-1] if by is None else getattr(np, name)(expected, by)
    row = np.empty(image.shape, np.float32)
    matrices = np.array([matrix]) if is_warped else None
    Finish(image.shape, steps=given_steps).one(image, matrices, None, 0, row)
    np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_float16_is_rounded_as_by_numpy(kernels: str) -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].astype(np.float32)
    between = (halves[:-1] + halves[1:]) / 2  # ties, which go to even
    values = np.concatenate(
        [halves, between, np.nextafter(between, 0), [65519.9, 65520, 1e9, -1e9]]
    )
    values = np.concatenate([values, [np.inf, -np.inf, 1e-30]]).astype(np.float32)
    image = values.reshape(1, -1, 1)
    row = np.empty(image.shape, np.float16)
    Finish(image.shape, dtype="float16", kernels=kernels).one(image, None, None, 0, row)
    with np.errstate(over="ignore"):
        assert same_bits(row, image.astype(np.float16))


LOWER_HALVES = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF]  # ties, and what lies beside them
EVERY_KIND = np.arange(2**16, dtype=np.uint32) << 16
"""As float32: zeros, subnormal and normal numbers, infinities and NaNs, of both signs."""


@pytest.mark.parametrize("kernels", ALL_KERNELS)
@pytest.mark.parametrize("lower", LOWER_HALVES)
def test_bfloat16_is_rounded_as_by_ml_dtypes(lower: int, kernels: str) -> None:
    values = (EVERY_KIND | np.uint32(lower)).view(np.float32)[:-1]  # no whole number of vectors
    row = np.empty((1, len(values), 1), np.uint16)
    finish = Finish(row.shape, dtype="bfloat16", kernels=kernels)
    finish.one(values.reshape(row.shape), None, None, 0, row)
    with np.errstate(invalid="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).view(np.uint16)
    assert same_bits(row.ravel(), expected)
    out = np.empty_like(expected)
    to_bfloat16(values, out)
    assert same_bits(out, expected)


def test_bfloat16_needs_as_much_room_as_there_are_values() -> None:
    with pytest.raises(ValueError, match="out: 6 bytes, not 4 values"):
        to_bfloat16(np.zeros(4, np.float32), np.empty(3, np.uint16))
    with pytest.raises(ValueError, match="values: a buffer of format d"):
        to_bfloat16(cast(Any, np.zeros(4)), np.empty(4, np.uint16))


@pytest.mark.parametrize("kernels", ALL_KERNELS)
def test_uint8_drops_fractions_as_numpy_does(kernels: str) -> None:
    image = np.array([0, 0.9, 1.99, 254.5, 255, -0.5, -3.2, 256, 300.7, 1e9], np.float32)
    image = np.tile(image, 20).reshape(1, -1, 1)
    row = np.empty(image.shape, np.uint8)
    Finish(image.shape, dtype="uint8", kernels=kernels).one(image, None, None, 0, row)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(row, image.astype(np.uint8))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_planes_are_the_channels(channels: int, dtype: str) -> None:
    image = pixels((5, 11, channels))
    row = np.empty((channels, 5, 11), stored_as(dtype))
    Finish(image.shape, dtype=dtype, planar=True).one(image, None, None, 0, row)
    expected = np.ascontiguousarray(image.transpose(2, 0, 1).astype(dtype))
    np.testing.assert_array_equal(row, expected.view(row.dtype))


def test_rows_are_those_of_the_images_that_the_index_names() -> None:
    images, index = pixels((5, 6, 7, 3)), np.array([3, 3, 0, 4])
    matrices = np.tile([0.9, 0.1, 2.0, -0.2, 1.1, -3.0], (4, 1))
    matrices[2] = np.nan  # which stands for no warp
    rows = np.empty((4, 6, 7, 3), np.float32)
    Finish((6, 7, 3)).many(images, index, matrices, None, rows)
    for row, place, matrix in zip(rows, index, matrices, strict=True):
        still = np.isnan(matrix[0])
        expected = images[place] if still else by_scipy(images[place], matrix, 1, "nearest", 0)
        np.testing.assert_array_equal(row, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_nothing_is_written_beside_the_row(channels: int, dtype: str) -> None:
    slot = np.full((3, 20, 30, channels), 77, stored_as(dtype))
    matrix = np.array([[0.9, 0.1, 2.0, -0.2, 1.1, -3.0]])
    for matrices, flips in itertools.product((None, matrix), (None, np.array([1], np.uint8))):
        image = pixels((20, 30, channels))
        Finish(image.shape, dtype=dtype).one(image, matrices, flips, 0, slot[1])
        assert (slot[[0, 2]] == 77).all()
        assert not (slot[1] == 77).all()


IMAGE = np.zeros((4, 5, 3), np.uint8)
ROW = np.zeros((4, 5, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Finish((0, 5, 3)), "no image can be of shape"),
        (lambda: Finish((4, 5, 5)), "no image can be of shape"),
        (lambda: Finish((2**20, 2**20, 3)), "no image can be of shape"),
        (lambda: Finish((4, 5, 3), fill_mode=cast(Any, "mirror")), "fill_mode cannot be mirror"),
        (lambda: Finish((4, 5, 3), order=2), "order must be 0 or 1"),
        (lambda: Finish((4, 5, 3), dtype="int8"), "dtype cannot be int8"),
        (lambda: Finish((4, 5, 3), steps=[("add", None)]), "a step cannot be add"),
        (lambda: Finish((4, 5, 3), steps=[("divide", np.ones(2, np.float32))]), "divide: 8 bytes"),
        (lambda: Finish((4, 5, 3), steps=[("divide", np.ones(3))]), "divide: a buffer of format d"),
        (lambda: Finish((4, 5, 3), steps=[("reverse_channels", None)] * 9), "more than 8 steps"),
        (lambda: _one(image=IMAGE[:3]), "image: 45 bytes"),
        (lambda: _one(image=IMAGE.astype(np.float64)), "image: a buffer of format d"),
        (lambda: _one(image=np.zeros((4, 10, 3), np.uint8)[:, ::2]), "contiguous"),
        (lambda: _one(row=ROW.astype(np.float16)), "row: a buffer of format e"),
        (lambda: _one(row=np.zeros((4, 5, 3, 4), np.uint8)[1:].view(np.float32)), "row: 180 bytes"),
        (lambda: _one(matrices=np.zeros((1, 6)), at=1), "no row 1"),
        (lambda: _one(flips=np.zeros(1, np.uint8), at=-1), "no row -1"),
        (lambda: _many(index=np.array([0, 2])), "no image 2 of 2"),
        (lambda: _many(index=np.array([0, -1])), "no image -1 of 2"),
        (lambda: _many(index=np.array([0])), "index: 8 bytes"),
        (lambda: _many(rows=np.zeros((3, *ROW.shape), np.float32)), "other sizes, or numbers"),
        (lambda: _many(matrices=np.zeros((1, 6))), "matrices: 48 bytes"),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, words: str) -> None:
    with pytest.raises((ValueError, IndexError, TypeError), match=words):
        call()


def _one(
    image: Array = IMAGE,
    matrices: Array | None = None,
    flips: Array | None = None,
    at: int = 0,
    row: Array = ROW,
) -> None:
    Finish((4, 5, 3)).one(image, matrices, flips, at, row)


def _many(
    index: Array | None = None, matrices: Array | None = None, rows: Array | None = None
) -> None:
    rows = np.stack([ROW, ROW]) if rows is None else rows
    Finish((4, 5, 3)).many(np.stack([IMAGE, IMAGE]), index, matrices, None, rows)


def test_a_row_that_may_not_be_written_is_refused() -> None:
    row = ROW.copy()
    row.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|writable"):
        _one(row=row)
