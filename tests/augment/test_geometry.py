"""Geometric operations against Keras's layers; their distributions; the matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats

from loaderd.augment import geometry, warps
from loaderd.augment.canvas import Canvas
from loaderd.augment.draws import Draws
from loaderd.augment.geometry import (
    RandomElasticTransform,
    RandomFlip,
    RandomPerspective,
    RandomRotation,
    RandomShear,
    RandomTranslation,
    RandomZoom,
)
from loaderd.augment.operation import ImageOperation
from loaderd.augment.warps import WarpStyle
from loaderd.errors import InvalidArgument
from loaderd.render.augmented import KERNELS

Array = NDArray[Any]

SIZE = (37, 53)
DRAWN = 2000

styles = pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
# On TensorFlow, the layers double an edge for "wrap": see test_canvas.py.
fills = pytest.mark.parametrize("fill_mode", ["constant", "nearest", "reflect"])


def noise(size: tuple[int, int] = SIZE, channels: int = 3) -> Array:
    return np.random.default_rng(5).integers(0, 256, (*size, channels)).astype(np.uint8)


def applied(operation: ImageOperation, image: Array, parameters: Any) -> Array:
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    operation.apply(canvas, parameters)
    return canvas.image


def drawn(operation: ImageOperation, size: tuple[int, int] = SIZE, count: int = DRAWN) -> list[Any]:
    draws = Draws(7)
    results = []
    for sample in range(count):
        draws.begin(0, sample, 0)
        results.append(operation.draw(draws, size))
    return results


def style(fill_mode: str, interpolation: str) -> dict[str, Any]:
    return {"fill_mode": fill_mode, "interpolation": interpolation, "fill_value": 90}


def of_keras(layer: Any, image: Array, transformation: Any = None) -> Array:
    """What a layer makes of an image; by itself if its arguments leave it no choice."""
    images = image[np.newaxis].astype(np.float32)
    if transformation is None:
        results = layer(images, training=True)
    else:
        results = layer.transform_images(images, transformation, training=True)
    result: Array = np.asarray(results)[0]
    return result


def assert_same(ours: Array, theirs: Array, interpolation: str = "bilinear") -> None:
    """Within one grey level; Keras's float32 coordinates round a few to another neighbour."""
    differ = np.abs(ours - theirs) > 1
    assert differ.mean() <= (0.01 if interpolation == "nearest" else 0)
    assert ours.shape == theirs.shape


def assert_uniform(values: Any, low: float, high: float) -> None:
    assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01


# -- against Keras ---------------------------------------------------------------------


@styles
@fills
@pytest.mark.parametrize("size", [SIZE, (9, 120)])
@pytest.mark.parametrize("factor", [0.07, -0.3])
def test_rotations_are_those_of_keras(
    size: tuple[int, int], factor: float, fill_mode: Any, interpolation: Any
) -> None:
    image = noise(size)
    arguments: Any = {"factor": (factor, factor), **style(fill_mode, interpolation)}
    ours = applied(RandomRotation(**arguments), image, factor * 360)
    theirs = of_keras(keras.layers.RandomRotation(**arguments), image)
    assert_same(ours, theirs, interpolation)


@styles
@fills
@pytest.mark.parametrize(("down", "right"), [(0.31, -0.77), (-1.0, 1.0)])
def test_translations_are_those_of_keras(
    down: float, right: float, fill_mode: Any, interpolation: Any
) -> None:
    factors = {"height_factor": (down, down), "width_factor": (right, right)}
    arguments: Any = {**factors, **style(fill_mode, interpolation)}
    parameters = (right * SIZE[1], down * SIZE[0])
    ours = applied(RandomTranslation(**arguments), noise(), parameters)
    theirs = of_keras(keras.layers.RandomTranslation(**arguments), noise())
    assert_same(ours, theirs, interpolation)


@styles
@fills
@pytest.mark.parametrize(("down", "across"), [(-0.43, 0.2), (1.0, None), (-0.6, -0.7)])
def test_zooms_are_those_of_keras(
    down: float, across: float | None, fill_mode: Any, interpolation: Any
) -> None:
    width = None if across is None else (across, across)
    factors = {"height_factor": (down, down), "width_factor": width}
    arguments: Any = {**factors, **style(fill_mode, interpolation)}
    parameters = (1 + (down if across is None else across), 1 + down)
    ours = applied(RandomZoom(**arguments), noise(), parameters)
    theirs = of_keras(keras.layers.RandomZoom(**arguments), noise())
    assert_same(ours, theirs, interpolation)


@styles
@fills
@pytest.mark.parametrize("shear", [(0.3137, 0.0), (-0.2113, -0.8871), (0.7713, 0.4567)])
def test_shears_are_those_of_keras(
    shear: tuple[float, float], fill_mode: Any, interpolation: Any
) -> None:
    arguments: Any = {"x_factor": 0.9, "y_factor": 0.9, **style(fill_mode, interpolation)}
    ours = applied(RandomShear(**arguments), noise(), shear)
    transformation = {"shear_factor": np.array([shear], np.float32)}
    theirs = of_keras(keras.layers.RandomShear(**arguments), noise(), transformation)
    assert_same(ours, theirs, interpolation)


@styles
@pytest.mark.parametrize("seed", range(4))
def test_perspectives_are_those_of_keras(seed: int, interpolation: Any) -> None:
    grown = np.random.default_rng(seed).uniform(-0.4, 0.4, (4, 2))
    height, width = SIZE
    corners = [[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]
    start = np.array([corners], np.float32)
    transformation = {
        "apply_perspective": np.array([True]),
        "start_points": start,
        "end_points": start * (1 + grown.astype(np.float32)),
    }
    arguments: Any = {"scale": 0.8, "interpolation": interpolation, "fill_value": 90}
    ours = applied(RandomPerspective(**arguments), noise(), tuple(map(tuple, grown)))
    theirs = of_keras(keras.layers.RandomPerspective(**arguments), noise(), transformation)
    assert_same(ours, theirs, interpolation)


@styles
@pytest.mark.parametrize("fill_mode", ["constant", "nearest", "reflect", "wrap"])
def test_elastic_transforms_read_as_keras_documents_it(fill_mode: Any, interpolation: Any) -> None:
    parameters = (0.8, normals((2, *SIZE)))
    operation = RandomElasticTransform(1.0, 1.0, interpolation, fill_mode, 90)
    ours = applied(operation, noise(), parameters)
    x, y = geometry.distances(*parameters)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    image, places = noise().astype(float), [rows + y, columns + x]
    # As Keras on NumPy. On TensorFlow, "reflect" does not double the first row and column.
    mode = {"constant": "grid-constant", "wrap": "grid-wrap"}.get(fill_mode, fill_mode)
    theirs = [
        ndimage.map_coordinates(image[..., one], places, order=order, mode=mode, cval=90)
        for one in range(3)
        for order in [int(interpolation == "bilinear")]
    ]
    assert_same(ours, np.dstack(theirs), interpolation)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_elastic_transforms_blur_noise_as_keras_does(strength: float) -> None:
    size = (40, 61)
    normal = normals((2, *size))
    layer = keras.layers.RandomElasticTransform()
    alpha, sigma = layer.get_elastic_transform_params(*size, strength)
    width = 6 * int(sigma) | 1
    theirs = alpha * np.asarray(
        keras.ops.image.gaussian_blur(
            normal[..., np.newaxis] * np.float32(sigma), (width, width), (sigma, sigma)
        )
    )
    ours = geometry.distances(strength, normal)
    np.testing.assert_allclose(np.stack(ours), theirs[..., 0], atol=1e-3)


def normals(shape: tuple[int, ...]) -> NDArray[np.float32]:
    draws = Draws(1)
    draws.begin(0, 0, 0)
    return draws.normals(shape)


# -- distributions ---------------------------------------------------------------------


def test_flips_are_drawn_evenly_in_their_directions() -> None:
    both = drawn(RandomFlip())
    counts = [both.count((across, down)) for across in (True, False) for down in (True, False)]
    assert stats.chisquare(counts).pvalue > 0.01
    assert set(drawn(RandomFlip("horizontal"))) == {(True, False), (False, False)}
    assert set(drawn(RandomFlip("vertical"))) == {(False, True), (False, False)}


def test_angles_are_uniform() -> None:
    assert_uniform(drawn(RandomRotation((-0.1, 0.3))), -36, 108)
    assert_uniform(drawn(RandomRotation(0.2)), -72, 72)


def test_distances_of_translations_are_uniform() -> None:
    right, down = zip(*drawn(RandomTranslation((0.1, 0.4), 0.2)), strict=True)
    assert_uniform(right, -0.2 * SIZE[1], 0.2 * SIZE[1])
    assert_uniform(down, 0.1 * SIZE[0], 0.4 * SIZE[0])
    assert abs(stats.pearsonr(right, down).statistic) < 0.06


def test_zooms_are_uniform_and_keep_the_shape_without_a_width() -> None:
    across, down = zip(*drawn(RandomZoom((-0.5, 0.5), (0.1, 0.2))), strict=True)
    assert_uniform(down, 0.5, 1.5)
    assert_uniform(across, 1.1, 1.2)
    assert all(across == down for across, down in drawn(RandomZoom(0.3), count=20))


def test_shears_are_uniform_with_one_sign_for_both_directions() -> None:
    across, down = np.array(drawn(RandomShear((0.1, 0.4), (0.2, 0.3)))).T
    assert (np.sign(across) == np.sign(down)).all()
    assert stats.binomtest(int((across > 0).sum()), DRAWN).pvalue > 0.01
    assert_uniform(abs(across), 0.1, 0.4)
    assert_uniform(abs(down), 0.2, 0.3)
    assert_uniform([across for across, _ in drawn(RandomShear(0.3))], -0.3, 0.3)


def test_corners_are_uniform_and_half_of_the_images_stay_by_default() -> None:
    some = drawn(RandomPerspective(scale=0.6))
    assert stats.binomtest(some.count(None), DRAWN).pvalue > 0.01
    corners = np.array([one for one in some if one is not None])
    assert corners.shape[1:] == (4, 2)
    for place in np.ndindex(4, 2):
        assert_uniform(corners[(slice(None), *place)], -0.3, 0.3)


def test_elastic_strengths_are_uniform_and_their_noise_is_new_each_time() -> None:
    some = drawn(RandomElasticTransform((0.3, 0.3), (0.2, 0.8)), (3, 4))
    assert stats.binomtest(DRAWN - some.count(None), DRAWN, 0.3).pvalue > 0.01
    strengths, normals = zip(*(one for one in some if one is not None), strict=True)
    assert_uniform(strengths, 0.2, 0.8)
    assert stats.kstest(np.ravel(normals), stats.norm.cdf).pvalue > 0.01


# -- all -------------------------------------------------------------------------------

EXAMPLES: list[tuple[ImageOperation, Any]] = [
    (RandomFlip(), (True, False)),
    (RandomRotation(0.1), 20.0),
    (RandomTranslation(0.1, 0.1), (3.3, -2.0)),
    (RandomZoom(0.2), (0.8, 0.8)),
    (RandomShear(0.2, 0.1), (0.2, 0.1)),
    (RandomPerspective(), ((0.1, 0.1), (-0.2, 0.2), (0.3, 0.1), (-0.1, 0.2))),
    (RandomElasticTransform(), (0.7, np.ones((2, *SIZE), np.float32))),
]
examples = pytest.mark.parametrize(
    ("operation", "parameters"), EXAMPLES, ids=[type(one).__name__ for one, _ in EXAMPLES]
)


@examples
def test_channels_move_together(operation: ImageOperation, parameters: Any) -> None:
    image = noise(channels=4)
    whole = applied(operation, image, parameters)
    assert (whole != image).any()
    for channels in (1, 3):
        part = np.ascontiguousarray(image[..., :channels])
        assert (applied(operation, part, parameters) == whole[..., :channels]).all()


@examples
def test_parameters_of_none_change_nothing(operation: ImageOperation, parameters: Any) -> None:
    if not isinstance(operation, RandomFlip):
        assert (applied(operation, noise(), None) == noise()).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_images_of_few_pixels_pass_all_operations(size: tuple[int, int]) -> None:
    for operation, _ in EXAMPLES:
        for parameters in drawn(operation, size, 20):
            assert applied(operation, noise(size), parameters).shape == (*size, 3)


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: RandomRotation(1.5), "factor"),
    (lambda: RandomRotation((0.3, -0.3)), "factor"),
    (lambda: RandomRotation(0.1, fill_mode="mirror"), "fill_mode"),  # type: ignore[arg-type]
    (lambda: RandomRotation(0.1, interpolation="box"), "interpolation"),  # type: ignore[arg-type]
    (lambda: RandomRotation(0.1, fill_value=256), "fill_value"),
    (lambda: RandomRotation(float("nan")), "factor"),
    (lambda: RandomTranslation(0.1, 2.0), "width_factor"),
    (lambda: RandomTranslation((-2.0, 0.0), 0.1), "height_factor"),
    (lambda: RandomZoom(-1.0), "height_factor"),
    (lambda: RandomZoom(0.1, (0.1, 1.1)), "width_factor"),
    (lambda: RandomShear(-0.1), "x_factor"),
    (lambda: RandomShear(0.1, (0.1, 1.1)), "y_factor"),
    (lambda: RandomPerspective(1.1), "factor"),
    (lambda: RandomPerspective(scale=-0.1), "scale"),
    (lambda: RandomElasticTransform(-0.1), "factor"),
    (lambda: RandomElasticTransform(scale=1.1), "scale"),
]


@pytest.mark.parametrize(("make", "name"), WRONG)
def test_wrong_arguments_are_named(make: Callable[[], Any], name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^Random\\w+: `{name}` .*Received: ") as caught:
        make()
    assert "\n" not in str(caught.value)


# -- matrices --------------------------------------------------------------------------


def moved(matrix: Array, x: float, y: float) -> tuple[float, float]:
    """Where a point of the image goes."""
    u, v, w = np.linalg.inv(matrix) @ (x, y, 1)
    return u / w, v / w


def test_matrices_move_points_as_they_say() -> None:
    about = pytest.approx
    assert moved(warps.rotation(90, (40, 60)), 60, 20) == about((30, -10))
    assert moved(warps.translation(3, -2), 10, 10) == about((13, 8))
    assert moved(warps.zoom(2, 0.5, (40, 60)), 60, 40) == about((45, 60))
    assert moved(warps.shear(0.5, 0, (0, 0)), 10, 10) == about((5, 10))
    assert moved(warps.shear(0, 0.5, (30, 20)), 40, 20) == about((40, 15))
    start, end = [(0, 0), (9, 0), (0, 9), (9, 9)], [(1, 0), (8, 1), (0, 9), (9, 7)]
    matrix = warps.perspective(start, end)
    for point, to in zip(start, end, strict=True):
        assert moved(matrix, *point) == about(to)


def test_warps_take_fill_values_and_modes() -> None:
    image = np.full((5, 5, 1), 100, np.uint8)
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    canvas.warp(warps.translation(2, 0), WarpStyle("bilinear", "constant", 7))
    assert canvas.image[0, :, 0].tolist() == [7, 7, 100, 100, 100]
