"""Rotations, shifts, shears, zooms, and what changes the brightness."""

from __future__ import annotations

import re
import sys
from typing import Any

import numpy as np
import pytest

from tests.keras.surface.module import image, only_on
from tests.keras.surface.samples import Pixels, said_without

NEARLY = 0.02  # of a grey level: what a warp of ours may be off


@pytest.fixture
def planes() -> Pixels:
    """Two channels, which come first."""
    return np.random.default_rng(4).random((2, 28, 28))


@pytest.mark.parametrize(
    ("name", "amounts"),
    [
        ("random_rotation", (45,)),
        ("random_shift", (1, 1)),
        ("random_shear", (20,)),
        ("random_zoom", ((5, 5),)),
        ("random_channel_shift", (20,)),
    ],
)
def test_a_random_change_keeps_the_shape(
    name: str, amounts: tuple[Any, ...], planes: Pixels
) -> None:
    assert getattr(image, name)(planes, *amounts).shape == planes.shape


def test_an_eighth_of_a_turn_cuts_the_corners() -> None:
    plus = np.array([[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
    turned = image.apply_affine_transform(
        np.ones((3, 3, 3)), theta=45, row_axis=0, col_axis=1, channel_axis=2, fill_mode="constant"
    )
    np.testing.assert_allclose(turned, np.stack([plus] * 3, axis=-1), atol=NEARLY)


def test_a_quarter_of_a_turn_is_about_the_middle() -> None:
    corner = np.array([[0, 1], [0, 0]])[..., None]
    turned = image.apply_affine_transform(corner, theta=90, row_axis=0, col_axis=1, channel_axis=2)
    assert turned.squeeze().tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize("amount", [1, -1])
@pytest.mark.parametrize("name", ["tx", "ty"])
@pytest.mark.parametrize("swapped", [False, True], ids=["rows_then_columns", "swapped"])
@pytest.mark.parametrize("channel_axis", [0, 2])
def test_a_shift_moves_a_dot_by_a_pixel(
    channel_axis: int, swapped: bool, name: str, amount: int
) -> None:
    dot = np.zeros((3, 4), int)
    dot[1, 1] = 1
    axes = [axis for axis in range(3) if axis != channel_axis]
    row_axis, col_axis = reversed(axes) if swapped else axes
    moved = image.apply_affine_transform(
        np.expand_dims(dot, channel_axis),
        row_axis=row_axis,
        col_axis=col_axis,
        channel_axis=channel_axis,
        **{name: amount},
    )
    sideways = (name == "tx") is not swapped
    assert (moved.squeeze(channel_axis) == np.roll(dot, -amount, axis=int(sideways))).all()


def test_a_zoom_of_one_changes_nothing(planes: Pixels) -> None:
    np.testing.assert_allclose(image.random_zoom(planes, (1, 1)), planes, rtol=1e-5)


def test_a_zoom_range_is_two_numbers() -> None:
    words = "`zoom_range` should be a tuple or list of two floats. Received: [0]"
    with pytest.raises(ValueError, match=re.escape(words)):
        image.random_zoom(0, zoom_range=[0])


def test_the_axes_of_a_warp_are_three_and_the_channels_at_an_end(planes: Pixels) -> None:
    with pytest.raises(ValueError, match="'row_axis', 'col_axis', and 'channel_axis' must be"):
        image.apply_affine_transform(planes, theta=1, row_axis=1, col_axis=1, channel_axis=0)
    with pytest.raises(ValueError, match="Invalid axis' indices"):
        image.apply_affine_transform(planes, theta=1, row_axis=1, col_axis=3, channel_axis=0)
    with pytest.raises(ValueError, match="Channels are allowed and the first and last dimensions"):
        image.apply_affine_transform(planes, theta=1, row_axis=0, col_axis=2, channel_axis=1)
    with pytest.raises(ValueError, match="Input arrays must be multi-channel 2D images"):
        image.apply_affine_transform(planes[0], theta=1)


@only_on(keras=False)
def test_a_warp_without_scipy_says_which_extra_is_missing() -> None:
    program = """
import numpy
try:
    image.apply_affine_transform(numpy.ones((3, 5, 5)), theta=30)
except ImportError as error:
    print(error)
"""
    said = said_without("scipy", program)
    assert "scipy" in said
    assert 'pip install "loaderd[daemon]"' in said


@only_on(keras=True)
def test_the_brightness_needs_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError):
        image.apply_brightness_shift(np.zeros((1, 1, 3)), 1.0)


def test_a_random_brightness_lies_in_its_range() -> None:
    grey = np.arange(48.0).reshape(4, 4, 3)
    drawn = image.random_brightness(grey, (3, 3), False)
    np.testing.assert_array_equal(drawn, 3 * grey)
    for scale in (True, False):
        drawn = image.random_brightness(grey, (3, 3), scale)
        np.testing.assert_array_equal(drawn, image.apply_brightness_shift(grey, 3.0, scale))


def test_a_brightness_range_is_two_numbers() -> None:
    words = "`brightness_range should be tuple or list of two floats. Received: [0]"
    with pytest.raises(ValueError, match=re.escape(words)):
        image.random_brightness(0, [0])


@pytest.mark.parametrize("grey", [128.0, 1024.0, -1024.0])
def test_the_same_brightness_leaves_a_picture_that_is_not_rescaled(grey: float) -> None:
    flat = np.full((1, 1, 3), grey)
    np.testing.assert_array_equal(image.random_brightness(flat, [1, 1], False), flat)


@pytest.mark.parametrize("grey", [128.0, 1024.0, -1024.0])
def test_a_flat_picture_rescaled_is_black(grey: float) -> None:
    flat = np.full((1, 1, 3), grey)
    assert not image.random_brightness(flat, [1, 1], True).any()
