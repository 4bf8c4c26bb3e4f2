"""The warp is Keras's, to a hundredth of a grey level, where scipy and OpenCV agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from loaderd.render.transforms.geometry import Warp, fixed_matrix, flipped, keras_matrix
from loaderd.spec.base import ColorMode, FillMode
from loaderd.spec.operations import RandomAffine
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Affine, Flip, Transform
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import moving, parameters_of

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]
Noisy = Callable[..., Image.Image]
Size = tuple[int, int]

CLOSE = 0.01  # grey levels

pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`")  # Keras's


def finish(image: Pixels, pipeline: Spec, transform: Transform) -> Pixels:
    row = np.full(pipeline.image_shape, 77, pipeline.output.dtype)
    FileRenderer(pipeline).finish_one(image, parameters_of(pipeline, transform), row)
    return row


def as_keras(image: Pixels, pipeline: Spec, transform: Transform) -> Pixels:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    affine = pipeline.first(RandomAffine)
    assert affine is not None
    generator = ImageDataGenerator(fill_mode=affine.fill_mode, cval=affine.cval)
    pixels: Pixels = generator.apply_transform(image.astype(np.float32), transform._asdict())
    return pixels


def noise(size: Size, channels: int = 3) -> Pixels:
    return np.random.default_rng(size).integers(0, 256, (*size, channels), dtype=np.uint8)


SIZES = st.tuples(st.integers(1, 100), st.integers(1, 100))
TRANSFORMS = st.builds(
    Transform,
    theta=st.sampled_from([0.0]) | st.floats(-180, 180),
    tx=st.sampled_from([0.0, 1.0, -7.0]) | st.floats(-30, 30),
    ty=st.sampled_from([0.0, 1.0, -7.0]) | st.floats(-30, 30),
    shear=st.sampled_from([0.0]) | st.floats(-45, 45),
    zx=st.sampled_from([1.0]) | st.floats(0.5, 1.5),
    zy=st.sampled_from([1.0]) | st.floats(0.5, 1.5),
    flip_horizontal=st.booleans(),
    flip_vertical=st.booleans(),
    channel_shift_intensity=st.none(),
    brightness=st.none(),
)
CHANNELS: dict[int, ColorMode] = {1: "grayscale", 3: "rgb", 4: "rgba"}


@settings(max_examples=300, deadline=None)
@given(
    size=SIZES,
    transform=TRANSFORMS,
    fill_mode=st.sampled_from(["nearest", "reflect"]),
    channels=st.sampled_from(sorted(CHANNELS)),
)
def test_nearest_and_reflect_give_the_values_of_keras(
    size: Size, transform: Transform, fill_mode: FillMode, channels: int
) -> None:
    pipeline = moving(target_size=size, fill_mode=fill_mode, color_mode=CHANNELS[channels])
    image = noise(size, channels)
    np.testing.assert_allclose(
        finish(image, pipeline, transform), as_keras(image, pipeline, transform), rtol=0, atol=CLOSE
    )


def sources(transform: Transform, size: Size) -> tuple[Pixels, Pixels]:
    """The source coordinates (rows, columns) of all output pixels."""
    (xx, xy, x), (yx, yy, y) = flipped(keras_matrix(transform.affine, size), transform.flip, size)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return yx * columns + yy * rows + y, xx * columns + xy * rows + x


def near_edge(place: Pixels, length: int) -> Pixels:
    """Where a source coordinate is within a pixel of the border."""
    edge: Pixels = np.minimum(abs(place), abs(place - (length - 1))) <= 1.001
    return edge


def near_seam(place: Pixels, length: int) -> Pixels:
    """Where a source coordinate is within a pixel of a seam of the periodic picture."""
    period = max(length - 1, 1)
    rest = place % period
    seam: Pixels = np.minimum(rest, period - rest) <= 1.001
    return seam


@settings(max_examples=150, deadline=None)
@given(size=SIZES, transform=TRANSFORMS, cval=st.sampled_from([0.0, 200.0, -50.0]))
def test_constant_gives_the_values_of_keras_but_for_a_pixel_at_the_border(
    size: Size, transform: Transform, cval: float
) -> None:
    pipeline = moving(target_size=size, fill_mode="constant", cval=cval)
    image = noise(size)
    rows, columns = sources(transform, size)
    unsure = near_edge(rows, size[0]) | near_edge(columns, size[1])
    difference = abs(finish(image, pipeline, transform) - as_keras(image, pipeline, transform))
    assert difference[~unsure].max(initial=0) <= CLOSE


@settings(max_examples=150, deadline=None)
@given(size=SIZES, transform=TRANSFORMS)
def test_wrap_gives_the_values_of_keras_but_for_a_pixel_at_each_seam(
    size: Size, transform: Transform
) -> None:
    pipeline = moving(target_size=size, fill_mode="wrap")
    image = noise(size)
    rows, columns = sources(transform, size)
    unsure = near_seam(rows, size[0]) | near_seam(columns, size[1])
    difference = abs(finish(image, pipeline, transform) - as_keras(image, pipeline, transform))
    assert difference[~unsure].max(initial=0) <= CLOSE


@pytest.mark.parametrize("fill_mode", ["constant", "wrap"])
def test_the_border_pixels_left_out_above_are_few(fill_mode: FillMode) -> None:
    size, transform = (100, 100), Transform(theta=20, tx=15, ty=-10, shear=10, zx=1.1, zy=0.9)
    pipeline = moving(target_size=size, fill_mode=fill_mode, cval=100)
    image = noise(size)
    difference = abs(finish(image, pipeline, transform) - as_keras(image, pipeline, transform))
    assert (difference > CLOSE).mean() < 0.05


def test_the_border_colour_is_in_grey_levels_whatever_the_rescale() -> None:
    pipeline = moving(target_size=(9, 9), fill_mode="constant", cval=255.0, rescale=1 / 255)
    row = finish(np.zeros((9, 9, 3), np.uint8), pipeline, Transform(tx=5.0))
    np.testing.assert_allclose(row[:, -1], 1.0)


def test_rescaled_warps_are_as_close_as_the_others(
    tmp_path: Path, noisy: Noisy, ours: Pipe, keras_pixels: Pipe
) -> None:
    noisy(90, 70).save(tmp_path / "a.jpg")
    transform = Transform(12, 5, -3, 8, 0.9, 1.1, True, False)
    pipeline = moving(target_size=(50, 60), rescale=1 / 255, interpolation="bilinear")
    np.testing.assert_allclose(
        ours(tmp_path / "a.jpg", pipeline, transform),
        keras_pixels(tmp_path / "a.jpg", pipeline, transform),
        rtol=0,
        atol=CLOSE / 255,
    )


def test_a_uint8_batch_cuts_off_the_warped_values() -> None:
    transform = Transform(theta=10, tx=2.5)
    image = noise((40, 40))
    pipeline = moving(target_size=(40, 40), dtype="uint8")
    keras = as_keras(image, pipeline, transform)
    sure = abs(keras - keras.round()) > CLOSE  # a whole number may fall either way
    np.testing.assert_array_equal(
        finish(image, pipeline, transform)[sure], keras.astype(np.uint8)[sure]
    )


def test_sixteen_bit_pictures_are_warped_without_loss_of_range() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (40, 40, 1)).astype(np.uint16)
    pipeline = moving(target_size=(40, 40), color_mode="grayscale")
    transform = Transform(theta=10, zx=0.9)
    np.testing.assert_allclose(
        finish(image, pipeline, transform), as_keras(image, pipeline, transform), atol=CLOSE * 257
    )


@pytest.mark.parametrize("fill_mode", ["nearest", "constant", "reflect", "wrap"])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2)])
def test_the_smallest_targets_can_be_warped(size: Size, fill_mode: FillMode) -> None:
    pipeline = moving(target_size=size, fill_mode=fill_mode)
    row = finish(np.full((*size, 3), 9, np.uint8), pipeline, Transform(30, 1, 2, 5, 0.8, 1.2))
    assert ((row >= 0) & (row <= 9)).all()


def test_the_source_is_left_as_it_is() -> None:
    image = noise((20, 20))
    image.flags.writeable = False
    pipeline = moving(target_size=(20, 20))
    finish(image, pipeline, Transform(theta=5, flip_horizontal=True))
    np.testing.assert_array_equal(image, noise((20, 20)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_warp_writes_in_the_middle_of_a_slot(channels: int) -> None:
    slot = np.zeros((3, 20, 30, channels), np.float32)
    source = noise((20, 30), channels).astype(np.float32)
    Warp((20, 30), "nearest", 0.0, "keras")(source, Affine(theta=5), Flip(), slot[1])
    assert slot[1].any()
    assert not slot[[0, 2]].any()


# compat="fixed"

WIDE = (30, 60)


def fixed(image: Pixels, transform: Transform, *, fill: FillMode = "nearest") -> Pixels:
    pipeline = moving(target_size=WIDE, compat="fixed", fill_mode=fill)
    return finish(image, pipeline, transform)


def test_fixed_shifts_from_the_width_range_along_the_width() -> None:
    image = noise(WIDE)
    moved = fixed(image, Transform(ty=10.0))
    np.testing.assert_allclose(moved[:, :-10], image[:, 10:], atol=CLOSE)


def test_fixed_shifts_from_the_height_range_along_the_height() -> None:
    image = noise(WIDE)
    moved = fixed(image, Transform(tx=10.0))
    np.testing.assert_allclose(moved[:-10], image[10:], atol=CLOSE)


def test_keras_swaps_the_axes_of_the_shifts() -> None:
    image = noise(WIDE)
    moved = finish(image, moving(target_size=WIDE), Transform(tx=10.0))
    np.testing.assert_allclose(moved[:, :-10], image[:, 10:], atol=CLOSE)


def test_fixed_turns_about_the_centre_of_a_wide_picture() -> None:
    image = noise(WIDE)
    half_turn = fixed(image, Transform(theta=180.0))
    np.testing.assert_allclose(half_turn, image[::-1, ::-1], atol=CLOSE)


def test_keras_turns_a_wide_picture_about_another_point() -> None:
    image = noise(WIDE)
    half_turn = finish(image, moving(target_size=WIDE), Transform(theta=180.0))
    assert not np.allclose(half_turn, image[::-1, ::-1], atol=1)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 99),
    transform=TRANSFORMS,
    kind=st.sampled_from(["theta", "shear", "zoom"]),
)
def test_fixed_is_keras_on_square_pictures_without_shifts(
    size: int, transform: Transform, kind: Literal["theta", "shear", "zoom"]
) -> None:
    still = transform.affine._replace(tx=0.0, ty=0.0)
    square = (size, size)
    np.testing.assert_allclose(
        fixed_matrix(still, square), keras_matrix(still, square), rtol=0, atol=1e-9
    )
