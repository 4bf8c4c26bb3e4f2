"""Keras's own layers in ``augment=[...]`` run as operations, or are refused by name."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest
from keras import layers as L
from keras.src.layers.preprocessing.image_preprocessing import base_image_preprocessing_layer

from loaderd.augment import color, erasing, filters, geometry
from loaderd.augment.policies import AnyOperation
from loaderd.errors import InvalidArgument
from loaderd.spec.base import DataFormat
from loaderd_client import Session, image_dataset_from_directory
from loaderd_client import augment as A
from loaderd_client.keras.layers import read
from tests.support.daemons import Daemon, Serve
from tests.support.photos import write_photo

ANY: Any = A
"""For layers where only operations are declared."""

Make = Callable[[], Any]
"""Makes a layer; not before the test, as TensorFlow starts with the first one."""

SIZE = (60, 80)
OPERATIONS = {kind.__name__ for kind in get_args(AnyOperation)}
BASE = base_image_preprocessing_layer.BaseImagePreprocessingLayer
IMAGE_LAYERS: dict[str, Any] = {
    name: kind
    for name, kind in vars(L).items()
    if inspect.isclass(kind)
    and (issubclass(kind, BASE) or name in ("Rescaling", "Normalization", "GaussianNoise"))
}
NEEDED: dict[str, Any] = {
    "factor": 0.5,
    "height": 40,
    "width": 50,
    "scale": 1 / 255,
    "height_factor": 0.1,
    "width_factor": (-0.1, 0.2),
    "max_number": 3,
    "stddev": 0.5,
}
"""The arguments without a default."""
LIKE_KERAS: dict[str, dict[str, Any]] = {
    "Normalization": {"mean": 3.0, "variance": 2.0},
    "RandomPosterization": {"factor": 4},
}
"""Further arguments of those that are refused without them."""
NOT_KEPT = {"name", "trainable", "dtype", "seed", "data_format", "value_range"}
WARP: dict[str, Any] = {"fill_mode": "constant", "interpolation": "nearest", "fill_value": 7.0}

PAIRS: list[tuple[Make, Any]] = [
    (lambda: L.RandomFlip("horizontal", seed=3), A.RandomFlip("horizontal")),
    (lambda: L.RandomRotation(0.1), geometry.RandomRotation((-0.1, 0.1))),
    (lambda: L.RandomRotation((0.1, 0.2), **WARP), geometry.RandomRotation((0.1, 0.2), **WARP)),
    (lambda: L.RandomTranslation(0.1, (-0.1, 0.2)), geometry.RandomTranslation(0.1, (-0.1, 0.2))),
    (lambda: L.RandomZoom(0.1), geometry.RandomZoom(0.1)),
    (
        lambda: L.RandomZoom((-0.2, -0.1), 0.3, **WARP),
        geometry.RandomZoom((-0.2, -0.1), 0.3, **WARP),
    ),
    (lambda: L.RandomShear(0.1), geometry.RandomShear(0.1)),
    (lambda: L.RandomShear((0.1, 0.2), 0.3, **WARP), geometry.RandomShear((0.1, 0.2), 0.3, **WARP)),
    (lambda: L.RandomPerspective(0.4, 0.5), geometry.RandomPerspective((0, 0.4), 0.5)),
    (
        lambda: L.RandomElasticTransform(0.4, 0.5),
        geometry.RandomElasticTransform((0, 0.4), (0, 0.5)),
    ),
    (lambda: L.RandomBrightness(0.2), color.RandomBrightness((-0.2, 0.2))),
    (lambda: L.RandomContrast(0.2), color.RandomContrast((0, 0.2))),
    (lambda: L.RandomContrast((0.1, 0.2)), color.RandomContrast((0.1, 0.2))),
    (lambda: L.RandomSaturation((0.4, 0.6)), color.RandomSaturation((0.4, 0.6))),
    (lambda: L.RandomHue(0.2), color.RandomHue((0, 0.2))),
    (lambda: L.RandomColorJitter(hue_factor=0.2), color.RandomColorJitter(hue_factor=0.2)),
    (lambda: L.RandomGrayscale(0.2), color.RandomGrayscale(0.2)),
    (lambda: L.RandomColorDegeneration(0.2), color.RandomColorDegeneration((-0.2, 0.2))),
    (lambda: L.AutoContrast(value_range=[0.0, 255.0]), color.AutoContrast()),
    (lambda: L.Equalization(bins=64), color.Equalization(64)),
    (lambda: L.RandomPosterization(4), color.RandomPosterization((1, 4))),
    (lambda: L.Solarization(0.1, 0.2), color.Solarization((0, 0.1), (0, 0.2))),
    (lambda: L.RandomInvert(0.3), color.RandomInvert((0, 0.3))),
    (lambda: L.RandomSharpness(0.3), filters.RandomSharpness((0, 0.3))),
    (
        lambda: L.RandomGaussianBlur(0.3, 5, 0.5),
        filters.RandomGaussianBlur((0, 0.3), (5, 5), (0, 0.5)),
    ),
    (lambda: L.GaussianNoise(0.5), filters.GaussianNoise(0.5)),
    (lambda: L.RandomErasing(0.3, fill_value=5), erasing.RandomErasing((0, 0.3), fill_value=5)),
    (lambda: L.MixUp(0.3), A.MixUp(0.3)),
    (lambda: L.CenterCrop(40, 50), A.CenterCrop(40, 50)),
    (lambda: L.RandomCrop(40, 50), A.RandomCrop(40, 50)),
    (lambda: L.Resizing(40, 50, "nearest"), A.Resize(40, 50, "nearest", antialias=False)),
    (
        lambda: L.Resizing(40, 50, "lanczos3", crop_to_aspect_ratio=True, antialias=True),
        A.Resize(40, 50, "lanczos", crop_to_aspect_ratio=True),
    ),
    (lambda: L.Rescaling(np.float32(0.5), offset=-1), A.Rescaling(0.5, -1)),
    (lambda: L.Normalization(mean=3, variance=2), A.Normalization(3, 2)),
    (
        lambda: L.Normalization(mean=[1, 2, 3], variance=[4, 5, 6]),
        A.Normalization((1, 2, 3), (4, 5, 6)),
    ),
]


@pytest.mark.parametrize(("make", "operation"), PAIRS, ids=[str(one) for _, one in PAIRS])
def test_a_layer_is_read_as_the_operation_of_its_name(make: Make, operation: Any) -> None:
    assert read(make(), "channels_last") == (operation,)


def plain(value: Any) -> Any:
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_every_layer_for_images_keeps_all_its_settings_or_is_refused_by_name(name: str) -> None:
    kind = IMAGE_LAYERS[name]
    needed = NEEDED.keys() & {
        one.name
        for one in inspect.signature(kind.__init__).parameters.values()
        if one.default is one.empty
    }
    layer = kind(**{one: NEEDED[one] for one in needed} | LIKE_KERAS.get(name, {}))
    try:
        (operation,) = read(layer, "channels_last")
    except InvalidArgument as error:
        assert f"Keras's layer {name}: " in str(error)
        assert name in ("AugMix", "CutMix", "RandAugment") or name not in OPERATIONS
        return
    settings = {key: one for key, one in layer.get_config().items() if key not in NOT_KEPT}
    kept = {key: getattr(operation, key) for key in operation.__struct_fields__}
    lost = {"Resizing": {"pad_to_aspect_ratio", "fill_mode", "fill_value"}}
    lost |= {"Normalization": {"axis", "invert"}}
    assert settings.keys() - kept.keys() == lost.get(name, set())
    assert kept.keys() <= settings.keys()
    if name != "RandomShear":  # whose pairs with a negative number stand for one number
        assert kept == {key: plain(settings[key]) for key in kept}


def test_no_other_layer_shares_its_name_with_an_operation() -> None:
    others = {name for name, one in vars(L).items() if inspect.isclass(one)} - set(IMAGE_LAYERS)
    assert "Dense" in others
    assert not others & OPERATIONS


def test_chains_are_unfolded_in_their_order() -> None:
    inner = L.Pipeline([L.RandomRotation(0.1), L.RandomZoom(0.2)])
    chain = keras.Sequential([L.Input((*SIZE, 3)), L.RandomFlip(), inner, L.Rescaling(1 / 255)])
    names = [type(one).__name__ for one in read(chain, "channels_last")]
    assert names == ["RandomFlip", "RandomRotation", "RandomZoom", "Rescaling"]


@pytest.mark.parametrize("axis", [-1, None])
def test_an_adapted_layer_has_the_mean_and_variance_that_it_found(axis: int | None) -> None:
    layer = L.Normalization(axis)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 5, 6, 3)).astype(np.float32)
    layer.adapt(pixels)
    (operation,) = read(layer, "channels_last")
    over = (0, 1, 2) if axis else None
    np.testing.assert_allclose(operation.mean, pixels.mean(over), rtol=1e-5)
    np.testing.assert_allclose(operation.variance, pixels.var(over), rtol=1e-4)


# -- refusals --------------------------------------------------------------------------------


class OwnFlip(L.RandomFlip):  # type: ignore[misc]  # Keras has no types
    pass


class OwnLayer(L.Layer):  # type: ignore[misc]  # the same
    pass


REFUSED: list[tuple[Make, str, str]] = [
    (lambda: L.RandomBrightness(0.1, value_range=(0, 1)), "value_range", "put Rescaling last"),
    (lambda: L.RandomFlip(data_format="channels_first"), "data_format", '"channels_last"'),
    (lambda: L.RandomFlip(dtype="mixed_bfloat16"), "dtype", "float32"),
    (lambda: L.Rescaling(0.5, dtype="float16"), "dtype", "float32"),
    (lambda: L.Resizing(40, 50, "bicubic"), "antialias", "must be True"),
    (lambda: L.Resizing(40, 50, "area", antialias=True), "interpolation", "lanczos3"),
    (
        lambda: L.Resizing(40, 50, antialias=True, pad_to_aspect_ratio=True),
        "pad_to_aspect_ratio",
        "False",
    ),
    (lambda: L.Resizing(40, 50, "nearest", fill_mode="nearest"), "fill_mode", "constant"),
    (lambda: L.Resizing(40, 50, "nearest", fill_value=1.0), "fill_value", "0.0"),
    (lambda: L.Normalization(), "mean", "adapt"),
    (lambda: L.Normalization(mean=1, variance=2, invert=True), "invert", "False"),
    (lambda: L.Normalization(axis=(1, 3), mean=[1, 2, 3], variance=[1, 2, 3]), "axis", "-1"),
    (lambda: L.Normalization(axis=1, mean=[1, 2, 3], variance=[1, 2, 3]), "axis", "-1"),
    (lambda: L.Rescaling(np.ones(3)), "scale", "float"),
    (lambda: L.Rescaling(0.5, [1, 2, 3]), "offset", "float"),
]


@pytest.mark.parametrize(("make", "setting", "hint"), REFUSED)
def test_a_setting_that_cannot_be_kept_is_refused_by_name(
    make: Make, setting: str, hint: str
) -> None:
    layer = make()
    with pytest.raises(InvalidArgument) as error:
        read(layer, "channels_last")
    assert f"Keras's layer {type(layer).__name__}: " in str(error.value)
    assert f"`{setting}`" in str(error.value)
    assert hint in str(error.value)


def test_a_setting_that_nobody_knows_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known = L.RandomFlip.get_config
    monkeypatch.setattr(L.RandomFlip, "get_config", lambda self: known(self) | {"axis": 2})
    with pytest.raises(InvalidArgument, match=r"RandomFlip: `axis` is no setting .*Received: 2"):
        read(L.RandomFlip(), "channels_last")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: L.Dense(3), "Keras's layer Dense: there is no operation"),
        (lambda: keras.Sequential([L.RandomFlip(), L.Flatten()]), "Keras's layer Flatten: there"),
        (lambda: L.CutMix(), "Keras's layer CutMix: .*put that in its place"),
        (lambda: OwnFlip(), "OwnFlip is not Keras's own layer, but derived from RandomFlip"),
        (lambda: OwnLayer(), "OwnLayer is not Keras's own layer, but derived from Layer"),
        (lambda: keras.optimizers.Adam(), "should hold operations"),
        (lambda: L.RandomFlip, "should hold operations"),
        (lambda: ANY.RandomApply([L.Dense(3)]), "Keras's layer Dense: there is no operation"),
        (lambda: ANY.RandomApply([L.RandomCrop(9, 9)]), "must not change the size of images"),
        (lambda: ANY.RandomChoice([L.RandomCrop(9, 9), L.RandomFlip()]), "of the same size"),
        (lambda: ANY.RandomMix([L.RandomFlip()]), "`ops` cannot hold RandomFlip"),
        (lambda: ANY.RandomApply([keras.optimizers.Adam()]), "should hold operations"),
    ],
)
def test_what_is_no_operation_is_refused_when_the_dataset_is_made(
    photos: Path, make: Make, words: str
) -> None:
    with pytest.raises(InvalidArgument, match=words):
        image_dataset_from_directory(photos, augment=[A.RandomFlip(), make()])


@pytest.mark.parametrize(
    ("data_format", "axis"), [("channels_first", 1), ("channels_last", 3), ("channels_last", -1)]
)
def test_the_axis_of_a_mean_is_that_of_the_channels(data_format: DataFormat, axis: int) -> None:
    layer = L.Normalization(axis, mean=[1, 2, 3], variance=[1, 2, 3])
    assert read(layer, data_format) == (A.Normalization((1, 2, 3), (1, 2, 3)),)


# -- datasets --------------------------------------------------------------------------------


def images_with(daemon: Daemon, folder: Path, augment: Any, **options: Any) -> Any:
    """The images of one epoch, in the order of the files."""
    with Session(daemon.path):
        dataset: Any = image_dataset_from_directory(
            folder, labels=None, shuffle=False, verbose=False, seed=1, augment=augment, **options
        )
        return np.concatenate([np.asarray(batch) for batch in dataset])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photos of one size."""
    for number in range(5):
        write_photo(tmp_path / f"{number}.jpg", number, SIZE)
    return tmp_path


EXACT: dict[str, Make] = {
    "Rescaling": lambda: [L.Rescaling(1 / 127.5, offset=-1)],
    "Normalization": lambda: [L.Normalization(mean=[120, 110, 100], variance=[3000, 3500, 4000])],
    "CenterCrop": lambda: [L.CenterCrop(41, 52)],
    "Resizing to the same size": lambda: [L.Resizing(*SIZE, antialias=True)],
    "Resizing to the nearest": lambda: [L.CenterCrop(51, 71), L.Resizing(41, 52, "nearest")],
    "all": lambda: [
        L.CenterCrop(51, 72),
        L.Resizing(51, 72, antialias=True),
        L.Rescaling(1 / 255),
        L.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.1, 0.2, 0.3]),
    ],
}
ROUNDED: dict[str, Make] = {
    "bilinear": lambda: [L.Resizing(31, 90, antialias=True)],
    "not averaging": lambda: [L.Resizing(31, 50)],
    "larger, not averaging": lambda: [L.Resizing(90, 101)],
    "a part, not averaging": lambda: [L.Resizing(50, 31, crop_to_aspect_ratio=True)],
    "bilinear, not the first": lambda: [L.CenterCrop(*SIZE), L.Resizing(31, 90, antialias=True)],
    "bicubic": lambda: [L.Resizing(31, 42, "bicubic", antialias=True)],
    "lanczos3": lambda: [L.Resizing(31, 42, "lanczos3", antialias=True)],
    "rotation": lambda: [L.RandomRotation((0.1, 0.1))],
    "brightness": lambda: [L.RandomBrightness((0.1, 0.1))],
}


def both(daemon: Daemon, folder: Path, chain: list[Any]) -> tuple[Any, Any]:
    """Images of a dataset with layers in its list, and of the layers applied to one without."""
    expected = images_with(daemon, folder, None, image_size=SIZE)
    assert expected.shape == (5, *SIZE, 3)
    for layer in chain:
        expected = np.asarray(layer(expected, training=True))
    return images_with(daemon, folder, chain, image_size=expected.shape[1:3]), expected


def test_images_are_those_of_the_layers(serve: Serve, folder: Path) -> None:
    with serve(workers=1) as daemon:
        for name, make in EXACT.items():
            found, expected = both(daemon, folder, make())
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_images_that_become_bytes_are_within_one_grey_level(serve: Serve, folder: Path) -> None:
    with serve(workers=1) as daemon:
        for name, make in ROUNDED.items():
            found, expected = both(daemon, folder, make())
            rounded = np.rint(expected.clip(0, 255))
            np.testing.assert_allclose(found, rounded, rtol=0, atol=1, err_msg=name)


def test_a_chain_is_taken_in_the_place_of_the_list(serve: Serve, folder: Path) -> None:
    chain = [L.CenterCrop(41, 52), L.Rescaling(1 / 255)]
    with serve(workers=1) as daemon:
        expected = images_with(daemon, folder, chain, image_size=(41, 52))
        found = images_with(daemon, folder, keras.Sequential(chain), image_size=(41, 52))
    np.testing.assert_array_equal(found, expected)


def test_layers_and_operations_stand_in_one_list(serve: Serve, folder: Path) -> None:
    own = [A.RandomFlip("horizontal"), geometry.RandomRotation(0.1), A.Rescaling(1 / 255)]
    mixed = [L.RandomFlip("horizontal", seed=9), geometry.RandomRotation((-0.1, 0.1))]
    with serve(workers=2) as daemon:
        expected = images_with(daemon, folder, own, image_size=SIZE)
        found = images_with(daemon, folder, [*mixed, L.Rescaling(1 / 255)], image_size=SIZE)
    np.testing.assert_array_equal(found, expected)


def test_layers_stand_in_groups_too(serve: Serve, folder: Path) -> None:
    chain = keras.Sequential([L.RandomRotation(0.1), L.RandomFlip("vertical")])
    turned = [geometry.RandomRotation((-0.1, 0.1)), A.RandomFlip("vertical")]
    flip, hue = A.RandomFlip("horizontal"), A.RandomHue(0.2)
    own = [
        A.RandomApply([A.RandomChoice([flip, A.RandomApply(turned, 1.0), hue])], 0.9),
        A.RandomApply(turned),
    ]
    layers = [
        ANY.RandomApply([ANY.RandomChoice([L.RandomFlip("horizontal"), chain, hue])], 0.9),
        ANY.RandomApply([chain]),
    ]
    with serve(workers=2) as daemon:
        expected = images_with(daemon, folder, own, image_size=SIZE)
        found = images_with(daemon, folder, layers, image_size=SIZE)
    np.testing.assert_array_equal(found, expected)


# -- other programs --------------------------------------------------------------------------

OF_KERAS_2 = """
import numpy as np
import tf_keras
from tf_keras import layers as L
from loaderd.augment import color, geometry
from loaderd_client import augment as A
from loaderd_client.keras.layers import read

def of(layer):
    return read(layer, "channels_last")

first = L.RandomFlip("horizontal", input_shape=(60, 80, 3))
chain = tf_keras.Sequential([first, L.RandomRotation(0.1), L.Rescaling(0.5)])
assert of(chain) == (
    A.RandomFlip("horizontal"), geometry.RandomRotation(0.1), A.Rescaling(0.5))
assert of(L.RandomContrast(0.2)) == (color.RandomContrast((0.2, 0.2)),)
assert of(L.RandomBrightness(0.2)) == (color.RandomBrightness((-0.2, 0.2)),)
assert of(L.Resizing(4, 5, "nearest")) == (A.Resize(4, 5, "nearest", antialias=False),)
assert of(L.Normalization(mean=[1, 2, 3], variance=[4, 5, 6])) == (
    A.Normalization((1, 2, 3), (4, 5, 6)),)
adapted = L.Normalization()
adapted.adapt(np.arange(24.0).reshape(2, 2, 2, 3))
np.testing.assert_allclose(of(adapted)[0].mean, (10.5, 11.5, 12.5))

class OwnFlip(L.RandomFlip):
    pass

for layer, words in (
    (L.Resizing(4, 5, "bicubic"), "Resizing: Resize: `antialias`"),
    (L.RandomBrightness(0.2, (0, 1)), "RandomBrightness: `value_range`"),
    (L.RandomFlip(dtype="mixed_float16"), "RandomFlip: `dtype`"),
    (L.RandomHeight(0.2), "RandomHeight: there is no operation"),
    (OwnFlip(), "OwnFlip is not Keras's own"),
):
    try:
        of(layer)
    except ValueError as error:
        assert words in str(error), error
    else:
        raise AssertionError(words)
"""

WITHOUT_KERAS = """
import sys
from loaderd_client import augment as A
from loaderd_client.keras.layers import read
assert read(A.RandomFlip(), "channels_last") == (A.RandomFlip(),)
assert not {"keras", "tf_keras", "tensorflow"} & sys.modules.keys()
"""


@pytest.mark.parametrize("program", [OF_KERAS_2, WITHOUT_KERAS], ids=["Keras 2", "none"])
def test_layers_are_read_without_importing_keras(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
