"""Operations on the values of pixels against Keras's layers, PIL and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats

from loaderd.augment import color_changes as color
from loaderd.augment.canvas import Canvas
from loaderd.augment.color import (
    AutoContrast,
    Equalization,
    RandomBrightness,
    RandomColorDegeneration,
    RandomColorJitter,
    RandomContrast,
    RandomGamma,
    RandomGrayscale,
    RandomHue,
    RandomInvert,
    RandomPosterization,
    RandomSaturation,
    Solarization,
)
from loaderd.augment.color_changes import Adjustment
from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation
from loaderd.errors import InvalidArgument
from loaderd.render.augmented import KERNELS

Pixels = NDArray[Any]

SIZE = (48, 64)
CHANNELS = pytest.mark.parametrize("channels", [1, 3, 4])
WITH_ARGUMENTS = [
    RandomBrightness(0.5),
    RandomContrast((0.5, 0.5)),
    RandomSaturation((0.6, 0.9)),
    RandomHue(0.5),
    RandomColorJitter(0.5, (0.5, 0.5), (0.6, 0.9), 0.5),
    RandomGrayscale(1.0),
    RandomColorDegeneration((0.5, 1.0)),
    RandomGamma(),
    AutoContrast(),
    Equalization(),
    RandomPosterization(4),
    Solarization(),
    RandomInvert((1.0, 1.0)),
]
EACH = pytest.mark.parametrize("operation", WITH_ARGUMENTS, ids=lambda op: type(op).__name__)
NEEDS_COLOR = (RandomSaturation, RandomHue, RandomGrayscale, RandomColorDegeneration)


def picture(channels: int = 3) -> Pixels:
    """All kinds of colours, from 6 to 235; a quarter is nearly grey, one dark, one purple."""
    random = np.random.default_rng(channels)
    values = random.integers(20, 236, (*SIZE, channels))
    values[:12, :, 1:3] = values[:12, :, :1] + random.integers(-3, 4, values[:12, :, 1:3].shape)
    values[12:24] = values[12:24] // 8 + 20
    values[24:36, :, 1:2] //= 3
    return values.astype(np.uint8)


def full_picture() -> Pixels:
    """With all values from 0 to 255, and many colours of full saturation."""
    values = np.random.default_rng(9).integers(-100, 356, (*SIZE, 3))
    return values.clip(0, 255).astype(np.uint8)


def changed(image: Pixels, change: Callable[[Canvas], None]) -> Pixels:
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    change(canvas)
    return canvas.image


def applied(operation: ImageOperation, image: Pixels, parameters: Any) -> Pixels:
    return changed(image, lambda canvas: operation.apply(canvas, parameters))


def drawn(operation: ImageOperation, count: int = 2000) -> list[Any]:
    draws = Draws(7)
    found = []
    for sample in range(count):
        draws.begin(0, sample, 0)
        found.append(operation.draw(draws, SIZE))
    return found


def by_keras(layer: Any, image: Pixels, transformation: Any) -> Pixels:
    """In floats, clipped to 0 to 255: some layers go beyond."""
    images = image[np.newaxis].astype(np.float32)
    return np.asarray(layer.transform_images(images, transformation)[0]).clip(0, 255)


def drawn_by_keras(layer: Any, name: str, count: int = 2000) -> Pixels:
    layer.generator = keras.random.SeedGenerator(5)
    images = np.zeros((count, 2, 2, 3), np.float32)
    return np.asarray(layer.get_random_transformation(images)[name]).ravel()


def one(value: float) -> Pixels:
    """A parameter of a batch of one image."""
    return np.full((1, 1, 1, 1), value, np.float32)


def assert_near(found: Pixels, expected: Pixels) -> None:
    assert found.dtype == np.uint8
    assert np.abs(found.astype(float) - expected).max() <= 1


def assert_same_distribution(found: Any, reference: Any) -> None:
    assert stats.ks_2samp(found, reference).pvalue > 0.01


# -- given parameters, against Keras ---------------------------------------------------


@pytest.mark.parametrize("delta", [-255.0, -31.7, 0.0, 12.5, 140.2])
def test_brightness_adds(delta: float) -> None:
    expected = by_keras(keras.layers.RandomBrightness(1.0), picture(), {"rgb_delta": one(delta)})
    assert_near(applied(RandomBrightness(1.0), picture(), delta), expected)


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.45, 2.0])
@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_is_around_the_mean_of_each_channel(factor: float, channels: int) -> None:
    layer = keras.layers.RandomContrast(1.0)
    expected = by_keras(layer, picture(channels), {"contrast_factor": one(factor)})
    assert_near(applied(RandomContrast(1.0), picture(channels), factor), expected)


@pytest.mark.parametrize("factor", [-0.3, 0.0, 0.4, 1.0, 1.7, 12.0, 1e7])
def test_saturation_is_multiplied(factor: float) -> None:
    layer = keras.layers.RandomSaturation(1.0)
    for image in (picture(), full_picture()):
        expected = by_keras(layer, image, {"factor": np.array([factor], np.float32)})
        assert_near(applied(RandomSaturation(1.0), image, factor), expected)


@pytest.mark.parametrize("turn", [-0.5, -0.31, -0.02, 0.0, 0.1, 0.27, 0.5])
def test_hue_is_turned(turn: float) -> None:
    layer = keras.layers.RandomHue(1.0)
    for image in (picture(), full_picture()):
        expected = by_keras(layer, image, {"factor": np.array([turn], np.float32)})
        assert_near(applied(RandomHue(1.0), image, turn), expected)


@pytest.mark.parametrize(
    "adjustment",
    [
        Adjustment(60.3, 1.7, 0.6, 0.3),
        Adjustment(-60.3, 1.7, 4.0, -0.3),
        Adjustment(30.3, 0.6),
        Adjustment(contrast=0.6, hue=0.2),
        Adjustment(saturation=2.0),
        Adjustment(-50.5, saturation=-0.1),
    ],
)
def test_jitter_applies_the_four_layers_in_their_order(adjustment: Adjustment) -> None:
    brightness, contrast, saturation, hue = adjustment
    layers: list[tuple[Any, dict[str, Any]]] = [
        (keras.layers.RandomBrightness(1.0), {"rgb_delta": one(brightness)}),
        (keras.layers.RandomContrast(1.0), {"contrast_factor": one(contrast)}),
        (keras.layers.RandomSaturation(1.0), {"factor": one(saturation)[0, 0, 0]}),
        (keras.layers.RandomHue(1.0), {"factor": one(hue)[0, 0, 0]}),
    ]
    expected: Any = full_picture()[np.newaxis].astype(np.float32)
    for layer, transformation in layers:
        expected = layer.transform_images(expected, transformation)
    found = applied(RandomColorJitter(), full_picture(), adjustment)
    assert_near(found, np.asarray(expected[0]).clip(0, 255))


def test_grey_images_have_equal_channels() -> None:
    expected = by_keras(keras.layers.RandomGrayscale(), picture(), np.full((1, 1, 1, 1), True))
    found = applied(RandomGrayscale(), picture(), True)
    assert_near(found, expected)
    assert (found == found[:, :, :1]).all()
    assert (applied(RandomGrayscale(), picture(), False) == picture()).all()


@pytest.mark.parametrize("share", [-1.0, -0.3, 0.0, 0.45, 1.0])
def test_degeneration_blends_with_grey(share: float) -> None:
    layer = keras.layers.RandomColorDegeneration(1.0)
    expected = by_keras(layer, picture(), {"factor": one(share)})
    assert_near(applied(RandomColorDegeneration(1.0), picture(), share), expected)


@pytest.mark.parametrize("gamma", [0.3, 0.8, 1.0, 1.2, 3.0])
def test_gamma_is_a_power(gamma: float) -> None:
    expected = (picture() / 255.0) ** gamma * 255
    assert_near(applied(RandomGamma(), picture(), gamma), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_autocontrast_stretches_each_channel(channels: int) -> None:
    image = picture(channels)
    image[:, :, -1] = image[:, :, -1] // 100 + 7  # three values: a scale above 100
    expected = by_keras(keras.layers.AutoContrast(), image, None)
    assert_near(applied(AutoContrast(), image, None), expected)


def test_autocontrast_keeps_constant_channels() -> None:
    image = picture()
    image[:, :, 1] = 99
    found = applied(AutoContrast(), image, None)
    assert (found[:, :, 1] == 99).all()
    assert (found[:, :, 0].min(), found[:, :, 0].max()) == (0, 255)


@pytest.mark.parametrize("bins", [1, 10, 128, 256, 300])
@pytest.mark.parametrize("channels", [1, 3])
def test_equalization_is_of_each_channel(bins: int, channels: int) -> None:
    image = picture(channels)
    expected = by_keras(keras.layers.Equalization(bins=bins), image, None)
    assert_near(applied(Equalization(bins), image, None), expected)


@pytest.mark.parametrize("equalize", [color.equalized, lambda c: Equalization().apply(c, None)])
def test_equalization_keeps_constant_channels(equalize: Callable[[Canvas], None]) -> None:
    image = picture()
    image[:, :, 1] = 99
    found = changed(image, equalize)
    assert (found[:, :, 1] == 99).all()
    assert (found[:, :, 0] != image[:, :, 0]).any()


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterization_keeps_upper_bits(bits: int) -> None:
    layer = keras.layers.RandomPosterization((bits, bits))
    expected = by_keras(layer, picture(), {"shift_factor": np.array([8 - bits], np.uint8)})
    assert (applied(RandomPosterization(8), picture(), bits) == expected).all()


@pytest.mark.parametrize(("addition", "threshold"), [(0, 0), (0, 128), (40.2, 127.6), (200, 255)])
def test_solarization_adds_then_inverts(addition: float, threshold: float) -> None:
    transformation = {"additions": one(addition), "thresholds": one(threshold)}
    expected = by_keras(keras.layers.Solarization(), picture(), transformation)
    assert_near(applied(Solarization(), picture(), (addition, threshold)), expected)


@pytest.mark.parametrize("inverts", [False, True])
def test_inversion_is_exact(inverts: bool) -> None:
    transformation = {"apply_inversion": np.array([inverts])}
    expected = by_keras(keras.layers.RandomInvert(), picture(), transformation)
    assert (applied(RandomInvert(), picture(), inverts) == expected).all()


# -- torchvision's functions, against PIL, whose results they take over ---------------------


@pytest.mark.parametrize("factor", [0.0, 0.1, 0.55, 1.0, 1.3, 1.9])
@pytest.mark.parametrize(
    ("change", "enhance"),
    [
        (color.scaled_brightness, ImageEnhance.Brightness),
        (color.blended_color, ImageEnhance.Color),
        (color.blended_contrast, ImageEnhance.Contrast),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_enhancements_are_those_of_pil(
    change: Callable[[Canvas, float], None], enhance: Any, factor: float, channels: int
) -> None:
    image = picture(channels)
    expected = np.asarray(enhance(pil_image(image)).enhance(factor)).reshape(image.shape)
    assert_near(changed(image, lambda canvas: change(canvas, factor)), expected)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda canvas: color.posterized(canvas, 3), lambda image: ImageOps.posterize(image, 3)),
        (lambda canvas: color.solarized(canvas, 99), lambda image: ImageOps.solarize(image, 99)),
        (color.autocontrasted, ImageOps.autocontrast),
        (color.equalized, ImageOps.equalize),
        (color.inverted, ImageOps.invert),
    ],
    ids=["posterized", "solarized", "autocontrasted", "equalized", "inverted"],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_functions_do_what_pil_does(
    change: Callable[[Canvas], None], expected: Callable[[Any], Any], channels: int
) -> None:
    for image in (picture(channels), picture(channels)[:10, :20]):  # too few pixels for 255 steps
        reference = np.asarray(expected(pil_image(image))).reshape(image.shape)
        found = changed(image, change)
        assert_near(found, reference)
        assert change is color.autocontrasted or (found == reference).all()


def pil_image(image: Pixels) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)


# -- draws, against Keras --------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.4, (-0.9, 0.2), (0.5, 0.1)])
@pytest.mark.parametrize(
    ("operation", "layer", "name"),
    [
        (RandomBrightness, keras.layers.RandomBrightness, "rgb_delta"),
        (RandomSaturation, keras.layers.RandomSaturation, "factor"),
        (RandomColorDegeneration, keras.layers.RandomColorDegeneration, "factor"),
        (RandomContrast, keras.layers.RandomContrast, "contrast_factor"),
        (RandomHue, keras.layers.RandomHue, "factor"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_factors_are_drawn_as_by_keras(operation: Any, layer: Any, name: str, factor: Any) -> None:
    if factor == (-0.9, 0.2) and operation in (RandomContrast, RandomHue):
        return  # refused
    assert_same_distribution(drawn(operation(factor)), drawn_by_keras(layer(factor), name))


@pytest.mark.parametrize("factor", [0.7, (0.2, 0.9)])
def test_solarization_is_drawn_as_by_keras(factor: Any) -> None:
    layer = keras.layers.Solarization(factor, factor)
    additions, thresholds = zip(*drawn(Solarization(factor, factor)), strict=True)
    assert_same_distribution(additions, drawn_by_keras(layer, "additions"))
    assert_same_distribution(thresholds, drawn_by_keras(layer, "thresholds"))
    assert abs(np.corrcoef(additions, thresholds)[0, 1]) < 0.1


@pytest.mark.parametrize("factor", [1, 2, 5, 8, (3, 6), (6, 3), (4, 4)])
def test_bits_are_drawn_as_by_keras(factor: Any) -> None:
    reference = 8 - drawn_by_keras(keras.layers.RandomPosterization(factor), "shift_factor")
    found = drawn(RandomPosterization(factor))
    counts = np.array(
        [np.bincount(np.asarray(each, np.int64), minlength=9) for each in (found, reference)]
    )
    counts = counts[:, counts.any(axis=0)]
    assert counts.all()
    assert counts.shape[1] == 1 or stats.chi2_contingency(counts).pvalue > 0.01


@pytest.mark.parametrize("factor", [1.0, 0.3, (0.2, 0.4)])
def test_inversion_is_as_likely_as_in_keras(factor: Any) -> None:
    probability = factor / 2 if isinstance(factor, float) else 0.3
    count = sum(drawn(RandomInvert(factor)))
    assert stats.binomtest(count, 2000, probability).pvalue > 0.01


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0])
def test_grey_is_as_likely_as_asked(factor: float) -> None:
    assert stats.binomtest(sum(drawn(RandomGrayscale(factor))), 2000, factor).pvalue > 0.01


def test_gamma_is_uniform() -> None:
    found = drawn(RandomGamma((0.5, 2.0)))
    assert stats.kstest(found, stats.uniform(0.5, 1.5).cdf).pvalue > 0.01


def test_jitter_draws_each_part_as_its_operation() -> None:
    found = drawn(RandomColorJitter(0.2, (0.1, 0.6), (0.3, 0.7), 0.4))
    parts: list[ImageOperation] = [
        RandomBrightness(0.2),
        RandomContrast((0.1, 0.6)),
        RandomSaturation((0.3, 0.7)),
        RandomHue(0.4),
    ]
    for values, part in zip(zip(*found, strict=True), parts, strict=True):
        assert_same_distribution(values, drawn(part))
    assert abs(np.corrcoef(np.array(found).T) - np.eye(4)).max() < 0.1


@pytest.mark.parametrize("times", [(5, 1, 1), (1, 300, 1)], ids=["tall", "wide"])
def test_hue_is_turned_alike_at_any_place_of_an_image(times: tuple[int, int, int]) -> None:
    expected = np.tile(applied(RandomHue(1.0), picture(), 0.2), times)
    assert (applied(RandomHue(1.0), np.tile(picture(), times), 0.2) == expected).all()


def test_jitter_leaves_out_what_has_no_factor() -> None:
    assert drawn(RandomColorJitter(), 3) == [Adjustment()] * 3
    some = drawn(RandomColorJitter(0.1, 0.1), 3)
    assert all((each.saturation, each.hue) == (1, 0) and each.contrast > 1 for each in some)
    assert (applied(RandomColorJitter(), picture(), Adjustment()) == picture()).all()


# -- all of them -----------------------------------------------------------------------


@EACH
@CHANNELS
def test_images_keep_their_shape_and_alpha(operation: ImageOperation, channels: int) -> None:
    image = picture(channels)
    before = image.copy()
    for parameters in drawn(operation, 3):
        found = applied(operation, image, parameters)
        assert found.shape == image.shape
        assert found.flags.c_contiguous
        assert (image == before).all()
        if channels == 4:
            assert (found[:, :, 3] == image[:, :, 3]).all()
            # OpenCV multiplies three channels in fixed point, four in floats.
            assert_near(found[:, :, :3], applied(operation, image[:, :, :3], parameters))
        kept = (found == image).all()
        assert kept == (channels == 1 and isinstance(operation, NEEDS_COLOR))


@EACH
def test_pictures_of_pil_are_taken(operation: ImageOperation) -> None:
    parameters = drawn(operation, 1)[0]
    for channels in (1, 3, 4):
        image = picture(channels)
        canvas = Canvas(KERNELS)
        canvas.begin(pil_image(image))
        operation.apply(canvas, parameters)
        assert (canvas.image == applied(operation, image, parameters)).all()


def test_tables_wait_for_the_pixels() -> None:
    """Geometry and tables in a row are one of each: nothing of this reads the pixels."""
    canvas = Canvas(KERNELS)
    canvas.begin(picture(4))
    canvas.flip(True, False)
    RandomBrightness(1.0).apply(canvas, 30.0)
    RandomGamma().apply(canvas, 0.7)
    RandomPosterization(8).apply(canvas, 3)
    color.inverted(canvas)
    pixels, flips, table = canvas.finish()
    assert flips == (True, False)
    assert (pixels == picture(4)).all()
    assert table is not None and table.shape == (256, 4)
    one_by_one = picture(4)
    for change in (
        lambda each: RandomBrightness(1.0).apply(each, 30.0),
        lambda each: RandomGamma().apply(each, 0.7),
        lambda each: RandomPosterization(8).apply(each, 3),
        color.inverted,
    ):
        one_by_one = changed(one_by_one, change)
    assert (KERNELS.look_up(pixels, table) == one_by_one).all()


def test_numbers_of_numpy_and_lists_are_taken() -> None:
    assert RandomBrightness([np.float32(-0.5), 1]) == RandomBrightness((-0.5, 1.0))  # type: ignore[arg-type]
    assert RandomPosterization(np.int64(4)) == RandomPosterization(4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: RandomBrightness(1.5), "RandomBrightness: `factor` must be from -1 to 1"),
        (lambda: RandomBrightness((0.1, np.nan)), "RandomBrightness: `factor`"),
        (lambda: RandomBrightness("much"), "RandomBrightness: `factor`"),  # type: ignore[arg-type]
        (lambda: RandomContrast(-0.1), "RandomContrast: `factor` must be from 0 to 1"),
        (lambda: RandomContrast((0.1, 0.2, 0.3)), "RandomContrast: `factor`"),  # type: ignore[arg-type]
        (lambda: RandomSaturation((0, 2)), "RandomSaturation: `factor` must be from -1 to 1"),
        (lambda: RandomHue(1.1), "RandomHue: `factor` must be from 0 to 1"),
        (lambda: RandomColorJitter(hue_factor=2), "RandomColorJitter: `hue_factor`"),
        (lambda: RandomColorJitter(0.1, contrast_factor=-1), "RandomColorJitter: `contrast"),
        (lambda: RandomGrayscale(2.0), "RandomGrayscale: `factor` must be from 0 to 1"),
        (lambda: RandomGrayscale((0, 1)), "RandomGrayscale: `factor`"),  # type: ignore[arg-type]
        (lambda: RandomColorDegeneration(-2), "RandomColorDegeneration: `factor`"),
        (lambda: RandomGamma((0, 1)), "RandomGamma: `gamma` must be two positive numbers"),
        (lambda: RandomGamma((1.2, 0.8)), "RandomGamma: `gamma` must be two positive numbers"),
        (lambda: RandomGamma(1.2), "RandomGamma: `gamma`"),  # type: ignore[arg-type]
        (lambda: Equalization(0), "Equalization: `bins` must be positive"),
        (lambda: Equalization(10**12), "Equalization: `bins` must be positive, and at most"),
        (lambda: RandomPosterization(0), "RandomPosterization: `factor` must be from 1 to 8"),
        (lambda: RandomPosterization((3, 9)), "RandomPosterization: `factor` must be from 1 to 8"),
        (lambda: RandomPosterization(2.5), "RandomPosterization: `factor`"),  # type: ignore[arg-type]
        (lambda: Solarization(-0.1), "Solarization: `addition_factor` must be from 0 to 1"),
        (lambda: Solarization(0, 128), "Solarization: `threshold_factor` must be from 0 to 1"),
        (lambda: RandomInvert(1.01), "RandomInvert: `factor` must be from 0 to 1"),
    ],
)
def test_wrong_arguments_are_refused(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        make()
    assert str(refusal.value).startswith(text)
