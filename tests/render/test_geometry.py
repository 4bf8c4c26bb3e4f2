"""The warp is Keras's to the last bit; a fast one to a hundredth of a grey level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from loaderd.render.transforms import augment
from loaderd.render.transforms.geometry import matrices
from loaderd.spec.base import ColorMode, FillMode
from loaderd.spec.operations import GeneratorRescaling, RandomAffine
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import moving

Pixels = NDArray[Any]
Pipe = Callable[..., Pixels]
Noisy = Callable[..., Image.Image]
Size = tuple[int, int]

CLOSE = 0.01  # grey levels

pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`")  # Keras's


def finish(image: Pixels, pipeline: Spec, transform: Transform) -> Pixels:
    row = np.full(pipeline.image_shape, 77, pipeline.output.dtype)
    FileRenderer(pipeline).finish_one(image, transform, row)
    return row


def as_keras(image: Pixels, pipeline: Spec, transform: Transform) -> Pixels:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    affine = pipeline.first(RandomAffine)
    assert affine is not None
    rescaling = pipeline.first(GeneratorRescaling)
    generator = ImageDataGenerator(
        fill_mode=affine.fill_mode,
        cval=affine.cval,
        interpolation_order=affine.interpolation_order,
        rescale=None if rescaling is None else rescaling.scale,
    )
    moved = generator.apply_transform(image.astype(np.float32), transform._asdict())
    pixels: Pixels = generator.standardize(moved)
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


@settings(max_examples=400, deadline=None)
@given(
    size=SIZES,
    transform=TRANSFORMS,
    fill_mode=st.sampled_from(get_args(FillMode)),
    channels=st.sampled_from(sorted(CHANNELS)),
    order=st.sampled_from([0, 1]),
    cval=st.sampled_from([0.0, 200.0, -50.0]),
    rescale=st.sampled_from([None, 1 / 255]),
)
def test_a_warp_gives_the_values_of_keras(
    size: Size,
    transform: Transform,
    fill_mode: FillMode,
    channels: int,
    order: int,
    cval: float,
    rescale: float | None,
) -> None:
    pipeline = moving(
        target_size=size,
        fill_mode=fill_mode,
        cval=cval,
        color_mode=CHANNELS[channels],
        interpolation_order=order,
        rescale=rescale,
    )
    image = noise(size, channels)
    np.testing.assert_array_equal(
        finish(image, pipeline, transform), as_keras(image, pipeline, transform)
    )


@settings(max_examples=100, deadline=None)
@given(size=SIZES, transform=TRANSFORMS, fill_mode=st.sampled_from(get_args(FillMode)))
def test_a_fast_warp_gives_the_values_of_keras_to_a_hundredth_of_a_grey_level(
    size: Size, transform: Transform, fill_mode: FillMode
) -> None:
    image = noise(size)
    exact = moving(target_size=size, fill_mode=fill_mode)
    fast = moving(target_size=size, fill_mode=fill_mode, precision="fast")
    np.testing.assert_allclose(
        finish(image, fast, transform), as_keras(image, exact, transform), rtol=0, atol=CLOSE
    )


def test_a_fast_warp_is_another_than_the_exact_one() -> None:
    image, transform = noise((40, 50)), Transform(theta=10, zx=0.9)
    rows = [
        finish(image, moving(target_size=(40, 50), precision=precision), transform)
        for precision in ("exact", "fast")
    ]
    assert (rows[0] != rows[1]).mean() > 0.1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(SIZES, TRANSFORMS), min_size=1, max_size=9))
def test_matrices_of_a_chunk_are_those_that_keras_makes_one_by_one(
    cases: list[tuple[Size, Transform]],
) -> None:
    affines = [transform.affine for _, transform in cases]
    drawn = np.array([transform for _, transform in cases], float)
    size = cases[0][0]
    made = matrices(drawn, size, "keras")
    for affine, row in zip(affines, made, strict=True):
        product = augment.affine_matrix(affine)
        if product is None:
            assert np.isnan(row).all()
            continue
        wanted = augment.about_center(product, *size)
        assert row.tolist() == [*wanted[1, [1, 0, 2]], *wanted[0, [1, 0, 2]]]


def test_the_border_colour_is_in_grey_levels_whatever_the_rescale() -> None:
    pipeline = moving(target_size=(9, 9), fill_mode="constant", cval=255.0, rescale=1 / 255)
    row = finish(np.zeros((9, 9, 3), np.uint8), pipeline, Transform(tx=5.0))
    np.testing.assert_allclose(row[:, -1], 1.0)


def test_a_uint8_batch_cuts_off_the_warped_values() -> None:
    transform = Transform(theta=10, tx=2.5)
    image = noise((40, 40))
    pipeline = moving(target_size=(40, 40), dtype="uint8")
    keras = as_keras(image, pipeline, transform)
    np.testing.assert_array_equal(finish(image, pipeline, transform), keras.astype(np.uint8))


def test_sixteen_bit_pictures_are_warped_without_loss_of_range() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (40, 40, 1)).astype(np.uint16)
    pipeline = moving(target_size=(40, 40), color_mode="grayscale")
    transform = Transform(theta=10, zx=0.9)
    np.testing.assert_array_equal(
        finish(image, pipeline, transform), as_keras(image, pipeline, transform)
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
    still = np.array([transform._replace(tx=0.0, ty=0.0)], float)
    square = (size, size)
    np.testing.assert_array_equal(
        matrices(still, square, "fixed"), matrices(still, square, "keras")
    )
