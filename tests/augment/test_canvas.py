"""The canvas: what is fused, what lies beyond the edges, and targets that stay with the pixels."""

from __future__ import annotations

from math import ceil
from typing import Any
from unittest.mock import Mock, patch

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from loaderd.augment import warps
from loaderd.augment.canvas import Canvas
from loaderd.augment.crops import CenterCrop, RandomCrop, RandomResizedCrop, Resize
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
from loaderd.augment.pixels import check_kind
from loaderd.augment.targets import Targets
from loaderd.augment.warps import WarpStyle
from loaderd.errors import RenderError
from loaderd.render.augmented import KERNELS

Array = NDArray[Any]

SIZE = (37, 53)
BLACK = WarpStyle("bilinear", "constant")
modes = pytest.mark.parametrize("mode", ["RGB", "RGBX", "RGBA", "L"])


def noise(size: tuple[int, int] = SIZE, channels: int = 3) -> Array:
    return np.random.default_rng(5).integers(0, 256, (*size, channels)).astype(np.uint8)


def smooth(size: tuple[int, int] = SIZE, channels: int = 3) -> Array:
    return cv2.GaussianBlur(noise(size, channels), (0, 0), 2).reshape(*size, channels)


def begun(image: Any, targets: Targets | None = None) -> Canvas:
    canvas = Canvas(KERNELS)
    canvas.begin(image, targets)
    return canvas


def mirrored(image: Array, across: bool, down: bool) -> Array:
    return image[:: -1 if down else 1, :: -1 if across else 1]


def read(image: Array, matrix: Array, mode: str, order: int = 1, fill: float = 0) -> Array:
    """A warp by SciPy."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    u, v, w = np.tensordot(matrix, np.stack([columns, rows, np.ones_like(rows)]), 1)
    places = [v / w - 0.5, u / w - 0.5]
    channels = [
        ndimage.map_coordinates(one.astype(float), places, order=order, mode=mode, cval=fill)
        for one in np.moveaxis(image, 2, 0)
    ]
    return np.dstack(channels)


# -- pictures --------------------------------------------------------------------------


def picture(mode: str) -> tuple[Image.Image, Array]:
    """A picture of some mode, and its pixels."""
    pixels = noise(channels=4 if mode in ("RGBX", "RGBA") else len(mode))
    image = Image.frombytes(mode, SIZE[::-1], pixels.tobytes())
    return image, pixels[..., :3] if mode == "RGBX" else pixels


@modes
def test_pictures_of_pil_are_as_their_pixels(mode: str) -> None:
    image, pixels = picture(mode)
    canvas = begun(image)
    assert canvas.size == SIZE
    assert (canvas.image == pixels).all()
    assert canvas.image.flags.c_contiguous

    canvas.begin(image)
    canvas.crop(5, 7, (20, 30))
    assert (canvas.image == pixels[7:27, 5:35]).all()

    results = []
    for one in (image, pixels):
        canvas.begin(one)
        canvas.resize((20, 30), (1, 2, 40.5, 30))
        canvas.flip(True, False)
        results.append(canvas.image)
    assert (results[0] == results[1]).all()
    canvas.begin(image)
    assert (canvas.image == pixels).all(), "the picture was changed"


def test_resizes_are_those_of_pil() -> None:
    filter: Any
    for filter in ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"):
        canvas = begun(noise())
        canvas.resize((20, 70), (3, 4, 50.5, 30), filter)
        by_pil = Image.fromarray(noise()).resize(
            (70, 20), Image.Resampling[filter.upper()], (3, 4, 50.5, 30)
        )
        assert (canvas.image == np.asarray(by_pil)).all()


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), Image.new("F", (4, 4)), Image.new("I;16", (4, 4))]
)
def test_pictures_of_other_than_bytes_are_refused(image: Any) -> None:
    with pytest.raises(RenderError, match="images of bytes"):
        check_kind(image)


# -- what is fused ---------------------------------------------------------------------


def test_crops_flips_and_a_resize_are_one_resize_of_a_box() -> None:
    canvas = begun(smooth((90, 120)))
    with patch.object(Image.Image, "resize", autospec=True, side_effect=Image.Image.resize) as pil:
        canvas.crop(10, 5, (80, 100))
        canvas.flip(True, False)
        canvas.crop(3, 2, (70, 90))
        canvas.resize((35, 60))
        canvas.flip(True, True)
        canvas.crop(4, 6, (20, 40))
        fused = canvas.image
    assert pil.call_count == 1
    steps = mirrored(smooth((90, 120))[5:85, 10:110], True, False)[2:72, 3:93]
    resized = np.asarray(Image.fromarray(np.ascontiguousarray(steps)).resize((60, 35), 2))
    steps = mirrored(resized, True, True)[6:26, 4:44]
    assert np.abs(fused.astype(int) - steps).max() <= 1


def test_a_list_may_end_with_any_geometry() -> None:
    """``finish`` leaves the flips to the kernels, and nothing else."""
    for crops in (False, True):
        results = []
        for finishes in (False, True):
            canvas = begun(noise((128, 160)))
            canvas.resize((64, 80))
            canvas.flip(True, False)
            if crops:
                canvas.crop(8, 4, (50, 40))
            if finishes:
                pixels, flips, table = canvas.finish()
                assert flips == (True, False)
                assert table is None
                results.append(mirrored(pixels, *flips))
            else:
                results.append(canvas.image)
        assert (results[0] == results[1]).all()


def test_a_crop_after_a_resize_sees_what_the_resize_saw() -> None:
    """Also where its edges are whole pixels of the image before."""
    image = noise((128, 160))
    canvas = begun(image)
    canvas.resize((64, 80))
    canvas.crop(8, 4, (40, 50))
    expected = np.asarray(Image.fromarray(image).resize((80, 64), 2))[4:44, 8:58]
    assert np.abs(canvas.image.astype(int) - expected).max() <= 1


def test_colours_do_not_depend_on_alpha() -> None:
    image = noise((40, 60))
    clear = np.dstack([image, np.resize([0, 255, 90], (40, 60)).astype(np.uint8)])
    for resize in ((20, 33), (55, 61)):
        plain, alpha = begun(image), begun(clear)
        picture = begun(Image.fromarray(clear))
        for canvas in (plain, alpha, picture):
            canvas.resize(resize)
        assert (alpha.image[..., :3] == plain.image).all()
        assert (picture.image == alpha.image).all()


def test_crops_at_the_last_edges_of_a_resize_stay_within_the_image() -> None:
    for length in range(9, 60):
        canvas = begun(noise((length, 2 * length)))
        canvas.resize((17, 23))
        canvas.crop(10, 11, (6, 13))
        whole = Image.fromarray(noise((length, 2 * length))).resize((23, 17), 2)
        assert np.abs(canvas.image - np.asarray(whole)[11:, 10:].astype(int)).max() <= 1


def test_a_resize_after_a_resize_is_another() -> None:
    canvas = begun(noise((60, 90)))
    canvas.resize((9, 11))
    canvas.flip(True, False)
    canvas.resize((40, 50))
    small = Image.fromarray(noise((60, 90))).resize((11, 9), 2)
    expected = small.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((50, 40), 2)
    assert (canvas.image == np.asarray(expected)).all()


def test_warps_crops_and_flips_are_one_warp() -> None:
    canvas = begun(smooth())
    matrices = [
        warps.rotation(20, SIZE),
        warps.shear(0.1, 0.2),
        warps.zoom(0.7, 0.9, SIZE),
    ]
    with patch.object(cv2, "warpAffine", side_effect=cv2.warpAffine) as warp:
        canvas.flip(True, False)
        for matrix in matrices:
            canvas.warp(matrix, BLACK)
        canvas.flip(False, True)
        canvas.crop(4, 6, (20, 40))
        fused = canvas.image
    assert warp.call_count == 1
    steps = mirrored(smooth(), True, False)
    whole = read(steps, matrices[0] @ matrices[1] @ matrices[2], "grid-constant")
    assert np.abs(fused - mirrored(whole, False, True)[6:26, 4:44]).max() <= 1


def test_a_warp_does_not_see_what_was_cropped_before() -> None:
    canvas = begun(noise())
    canvas.crop(10, 5, (20, 30))
    canvas.flip(True, True)
    canvas.warp(warps.translation(4, -3), WarpStyle("nearest", "reflect"))
    part = mirrored(noise()[5:25, 10:40], True, True)
    assert (canvas.image == np.pad(part, ((0, 3), (4, 0), (0, 0)), "symmetric")[3:, :-4]).all()


def test_warps_of_different_styles_are_two() -> None:
    canvas = begun(noise())
    canvas.warp(warps.translation(3, 0), WarpStyle("nearest", "constant", 7))
    canvas.warp(warps.translation(0, 2), WarpStyle("nearest", "constant", 9))
    assert (canvas.image[0] == 9).all()
    assert (canvas.image[2:, :3] == 7).all()


def test_tables_are_one_and_wait_for_flips_and_crops_but_not_for_warps() -> None:
    invert = np.arange(255, -1, -1, dtype=np.uint8)
    double = np.stack([np.minimum(np.arange(256) * (1 + one), 255) for one in range(3)], 1)
    double = double.astype(np.uint8)
    look_up = Mock(side_effect=KERNELS.look_up)
    canvas = Canvas(KERNELS._replace(look_up=look_up))
    canvas.begin(noise())
    canvas.map_values(invert)
    canvas.map_values(double)
    canvas.flip(True, False)
    canvas.crop(2, 3, (30, 40))
    canvas.map_values(double)
    canvas.map_values(invert)
    values = canvas.image
    assert look_up.call_count == 1
    twice = np.take_along_axis(double, double[255 - np.arange(256)].astype(int), 0)
    whole = 255 - np.dstack([twice[noise()[..., one], one] for one in range(3)])
    assert (values == mirrored(whole, True, False)[3:33, 2:42]).all()

    canvas.begin(noise())
    canvas.map_values(invert)
    canvas.warp(warps.translation(3, 0), WarpStyle("nearest", "constant", 7))
    assert (canvas.image[:, :3] == 7).all()
    canvas.begin(noise())
    canvas.warp(warps.translation(0, 2), WarpStyle("nearest", "constant", 7))
    canvas.map_values(invert)
    canvas.warp(warps.translation(3, 0), WarpStyle("nearest", "constant", 7))
    assert (canvas.image[:, :3] == 7).all()
    assert (canvas.image[:2, 3:] == 255 - 7).all()
    canvas.begin(noise())
    canvas.map_values(np.where(np.arange(256) < 128, 0, 255).astype(np.uint8))
    canvas.resize((9, 9))
    assert len(np.unique(canvas.image)) > 2


def test_what_is_finished_lacks_only_its_flips_and_its_table() -> None:
    targets = Targets((np.arange(SIZE[0] * SIZE[1]).reshape(SIZE),))
    canvas = begun(noise(), targets)
    canvas.flip(True, False)
    invert = np.arange(255, -1, -1, dtype=np.uint8)
    canvas.map_values(invert)
    pixels, flips, table = canvas.finish()
    assert (pixels == noise()).all()
    assert flips == (True, False)
    assert table is invert
    assert (canvas.targets.masks[0] == mirrored(targets.masks[0], True, False)).all()

    canvas.begin(noise())
    canvas.warp(warps.rotation(90, SIZE), BLACK)
    canvas.flip(True, False)
    assert canvas.finish()[1] == (False, False)


def test_targets_move_even_if_the_pixels_are_replaced_unseen() -> None:
    canvas = begun(noise(), Targets((noise()[..., 0],)))
    canvas.flip(True, False)
    canvas.image = smooth()
    assert (canvas.image == smooth()).all()
    assert (canvas.targets.masks[0] == noise()[:, ::-1, 0]).all()


def test_a_canvas_forgets_the_sample_before() -> None:
    canvas = begun(noise(), Targets((np.ones(SIZE, np.uint8),)))
    canvas.map_values(np.zeros(256, np.uint8))
    canvas.flip(True, False)
    canvas.begin(noise())
    assert (canvas.image == noise()).all()
    assert canvas.targets.masks == ()


# -- beyond the edges ------------------------------------------------------------------

FILLS = [
    ("constant", "grid-constant"),
    ("nearest", "nearest"),
    ("reflect", "reflect"),
    ("wrap", "grid-wrap"),
]


@pytest.mark.parametrize(("fill_mode", "mode"), FILLS)
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("size", [SIZE, (5, 90), (1, 7)])
def test_fill_modes_are_those_of_scipy(
    size: tuple[int, int], interpolation: Any, fill_mode: Any, mode: str
) -> None:
    # As Keras documents them. On TensorFlow, its "wrap" doubles an edge: test_geometry.py.
    bent = np.array([[1, 0, 0], [0, 1, 0], [0.002, -0.003, 1]])
    for matrix in (warps.rotation(33, size), warps.zoom(2.7, 2.9, size) @ bent):
        canvas = begun(noise(size))
        canvas.warp(matrix, WarpStyle(interpolation, fill_mode, 77))
        expected = read(noise(size), matrix, mode, int(interpolation == "bilinear"), 77)
        differ = np.abs(canvas.image - expected) > 1
        assert differ.mean() <= (0.01 if interpolation == "nearest" else 0)  # ties


@pytest.mark.parametrize("size", [(3, 40_000), (40_000, 3)])
@pytest.mark.parametrize("mode", ["RGBX", "array"])
def test_images_longer_than_32767_pixels_pass(size: tuple[int, int], mode: str) -> None:
    pixels = noise(size)
    mask = pixels[..., 0].astype(np.int32)
    image: Any = pixels if mode == "array" else Image.fromarray(pixels).convert("RGBX")
    fill_mode: Any
    for fill_mode in ("constant", "reflect"):
        canvas = begun(image, Targets((mask,)))
        canvas.flip(True, True)
        canvas.warp(warps.translation(-0.0, -0.0), WarpStyle("bilinear", fill_mode))
        canvas.warp(warps.translation(1, 1), WarpStyle("nearest", fill_mode))
        assert (canvas.image[1:, 1:] == mirrored(pixels, True, True)[:-1, :-1]).all()
        assert (canvas.targets.masks[0][1:, 1:] == canvas.image[1:, 1:, 0]).all()
        canvas.resize((5, 5))
        assert canvas.image.shape == (5, 5, 3)


def test_elastic_transforms_of_such_images_fail_in_one_line() -> None:
    size = (2, 32_767)
    canvas = begun(noise(size))
    distances = np.zeros(size, np.float32)
    with pytest.raises(RenderError, match=r"32766 pixels each way.*32767x2: resize or crop") as no:
        canvas.displace(distances, distances, BLACK)
    assert "\n" not in str(no.value)
    canvas.crop(1, 0, (2, 32_766))
    canvas.displace(distances[:, 1:], distances[:, 1:], BLACK)
    assert (canvas.image == noise(size)[:, 1:]).all()


# -- targets ---------------------------------------------------------------------------


def test_boxes_are_clipped_and_know_how_much_is_left() -> None:
    boxes = np.array([[10.0, 10, 20, 20], [0, 0, 5, 5], [8.5, 1, 12.5, 3], [30, 30, 30, 30]])
    canvas = begun(noise(), Targets(boxes=boxes))
    canvas.crop(10, 2, (30, 40))
    assert canvas.targets.boxes.tolist() == [
        [0, 8, 10, 18],
        [0, 0, 0, 3],
        [0, 0, 2.5, 1],
        [20, 28, 20, 28],
    ]
    assert canvas.targets.visibility.tolist() == pytest.approx([1, 0, 2.5 / 8, 0])
    canvas.crop(5, 0, (30, 35))
    assert canvas.targets.visibility.tolist() == pytest.approx([0.5, 0, 0, 0])
    canvas.resize((60, 70))
    canvas.flip(True, False)
    assert canvas.targets.boxes[0].tolist() == pytest.approx([60, 16, 70, 36])
    assert canvas.targets.visibility[0] == pytest.approx(0.5)


def test_boxes_lie_around_their_turned_corners() -> None:
    canvas = begun(noise((60, 60)), Targets(boxes=np.array([[20.0, 25, 40, 35]])))
    canvas.warp(warps.rotation(45, (60, 60)), BLACK)
    half = 15 / np.sqrt(2)
    expected = [30 - half, 30 - half, 30 + half, 30 + half]
    assert canvas.targets.boxes[0].tolist() == pytest.approx(expected)


def test_keypoints_outside_become_invisible_and_stay_so() -> None:
    points = np.array(
        [[[10.0, 10, 2], [1, 1, 1], [0, 0, 0]], [[52, 36, 1], [53, 37, 1], [5, 5, 1]]]
    )
    canvas = begun(noise(), Targets(keypoints=points))
    canvas.crop(5, 5, (32, 48))
    expected = [[[5, 5, 2], [0, 0, 0], [0, 0, 0]], [[47, 31, 1], [48, 32, 1], [0, 0, 1]]]
    assert canvas.targets.keypoints.tolist() == expected
    canvas.flip(True, True)
    assert canvas.targets.keypoints[0].tolist() == [[43, 27, 2], [0, 0, 0], [0, 0, 0]]


def test_images_may_have_no_boxes_and_no_keypoints() -> None:
    for keypoints in (np.empty((0, 17, 3)), np.empty((0, 0, 3)), np.empty((2, 0, 3))):
        canvas = begun(noise(), Targets(keypoints=keypoints))
        canvas.resize((20, 30))
        canvas.warp(warps.rotation(45, (20, 30)), BLACK)
        zeros = np.zeros((20, 30), np.float32)
        canvas.displace(zeros, zeros, BLACK)
        assert canvas.targets.boxes.shape == (0, 4)
        assert canvas.targets.visibility.shape == (0,)
        assert canvas.targets.keypoints.shape == keypoints.shape


@pytest.mark.parametrize(
    "kind", ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
)
def test_masks_keep_their_integers(kind: str) -> None:
    most = 1 if kind == "bool" else np.iinfo(kind).max
    values = np.array([0, 1, most - 1, most], object).astype(kind)
    mask = np.random.default_rng(3).choice(values, SIZE)
    before = mask.copy()
    fill_mode: Any
    for fill_mode in ("constant", "wrap"):
        canvas = begun(noise(), Targets((mask, mask.astype(np.int64))))
        canvas.warp(warps.rotation(33, SIZE), WarpStyle("bilinear", fill_mode, 99))
        canvas.resize((50, 31), (0.5, 3.25, 40, 30))
        canvas.displace(*(np.full((50, 31), 4.3, np.float32),) * 2, BLACK)
        moved = canvas.targets.masks[0]
        assert moved.dtype == mask.dtype
        assert moved.shape == (50, 31)
        assert np.isin(moved, values).all()
        assert (moved.astype(np.int64) == canvas.targets.masks[1]).all()
    assert (mask == before).all()


@pytest.mark.parametrize("size", [(20, 30), (81, 111)])
def test_masks_are_resized_as_by_nearest_neighbour(size: tuple[int, int]) -> None:
    mask, box = noise()[..., 0], (1.25, 2.4, 50, 33.8)
    canvas = begun(noise(), Targets((mask,)))
    canvas.resize(size, box)
    expected = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST, box)
    assert (canvas.targets.masks[0] == np.asarray(expected)).all()


def test_a_line_of_the_image_holds_no_boxes() -> None:
    targets = Targets(boxes=np.array([[5.0, 5, 20, 20]]), keypoints=np.array([[[9.0, 9, 1]]]))
    canvas = begun(noise(), targets)
    canvas.warp(warps.shear(1, 1), BLACK)
    assert canvas.targets.visibility.tolist() == [0]
    assert canvas.targets.boxes.tolist() == [[0, 0, 0, 0]]
    assert not canvas.targets.keypoints.any()


def painted(size: tuple[int, int], box: Array, is_round: bool = False) -> Array:
    """A white rectangle, or the ellipse in it, on black: (height, width, 1)."""
    left, top, right, bottom = box
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    x = 2 * (columns - left) / (right - left) - 1
    y = 2 * (rows - top) / (bottom - top) - 1
    inside = np.hypot(x, y) < 1 if is_round else np.maximum(abs(x), abs(y)) < 1
    return np.where(inside, 255, 0).astype(np.uint8)[..., np.newaxis]


def around(image: Array) -> Array:
    """The box around the white pixels."""
    x, y, width, height = cv2.boundingRect((image[..., 0] >= 128).astype(np.uint8))
    return np.array([x, y, x + width, y + height])


def test_boxes_that_a_horizon_crosses_are_those_of_the_pixels() -> None:
    size, box = (200, 300), np.array([60.0, 40, 180, 110])
    grown = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, -0.5))
    operation = RandomPerspective(interpolation="nearest")
    matrix = operation.matrix(grown, size)
    canvas = begun(painted(size, box), Targets(boxes=np.array([box, [5, 5, 30, 20]])))
    operation.apply(canvas, grown)
    depths = np.linalg.inv(matrix)[2] @ np.array([[60, 180], [40, 110], [1, 1]])
    assert depths.min() < 0 < depths.max()
    assert np.abs(canvas.targets.boxes[0] - around(canvas.image)).max() <= 1
    assert 0 < canvas.targets.visibility[0] <= 1


@pytest.mark.parametrize("sample", range(6))
def test_targets_follow_an_elastic_transform(sample: int) -> None:
    size, box = (220, 300), np.array([60.0, 50, 230, 170])
    image = painted(size, box)
    points = np.array([[[x, y, 2] for x in (80.0, 150, 210) for y in (70.0, 110, 150)]])
    operation = RandomElasticTransform((1, 1), (0.4, 1.0), fill_mode="constant")
    draws = Draws(11)
    draws.begin(0, sample, 0)
    parameters = operation.draw(draws, size)
    canvas = begun(image, Targets((image[..., 0],), box[np.newaxis], points))
    operation.apply(canvas, parameters)
    moved = canvas.targets
    assert iou(canvas.image[..., 0] >= 128, moved.masks[0] > 0) >= 0.99
    assert np.abs(moved.boxes[0] - around(canvas.image)).max() <= 1
    assert moved.visibility[0] > 0.9
    assert np.count_nonzero(moved.keypoints[0, :, 2] == 2) >= 8  # what is stretched may have holes
    for before, (x, y, visible) in zip(points[0], moved.keypoints[0], strict=True):
        canvas.begin(dot(size, before[0], before[1])[..., np.newaxis])
        operation.apply(canvas, parameters)
        assert not visible or canvas.image[int(y), int(x)] >= 180


def test_keypoints_follow_a_gentle_displacement_within_half_a_pixel() -> None:
    size = (120, 160)
    waves = np.sin(np.mgrid[: size[0], : size[1]] / 20).astype(np.float32)
    x, y = 5 * waves[0], -4 * waves[1] + 3
    points = np.array([[[x, y, 1] for x in (20.3, 70, 131.5) for y in (20.0, 55.5, 97.2)]])
    canvas = begun(np.zeros((*size, 1), np.uint8), Targets(keypoints=points))
    canvas.displace(x, y, BLACK)
    for before, after in zip(points[0], canvas.targets.keypoints[0], strict=True):
        canvas.begin(dot(size, before[0], before[1])[..., np.newaxis])
        canvas.displace(x, y, BLACK)
        assert np.hypot(*(center_of(canvas.image[..., 0]) - after[:2])) <= 0.5


# -- painted targets under random lists ------------------------------------------------


def dot(size: tuple[int, int], x: float, y: float) -> Array:
    """A Gaussian of standard deviation 3 about a point."""
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    bright: Array = np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18))
    return bright.astype(np.uint8)


def center_of(image: Array) -> Array:
    """(x, y), weighted by brightness."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    weights = image / image.sum(dtype=float)
    return np.array([(columns * weights).sum(), (rows * weights).sum()])


def iou(one: Array, other: Array) -> float:
    """1 for two empty masks."""
    either = (one | other).sum()
    return float((one & other).sum() / either) if either else 1.0


odd = st.integers(100, 200).map(lambda half: 2 * half + 1)
sizes = st.tuples(odd, odd).filter(lambda size: size[0] != size[1])
fill_modes = st.sampled_from(["constant", "nearest", "reflect", "wrap"])
crops = sizes.flatmap(
    lambda size: st.sampled_from(
        [RandomCrop(*size), CenterCrop(*size), Resize(*size), RandomResizedCrop(*size, (0.3, 1.0))]
    )
)


def warping(fill_mode: Any) -> list[ImageOperation]:
    return [
        RandomRotation(0.5, fill_mode),
        RandomTranslation(0.2, 0.2, fill_mode),
        RandomZoom(0.3, (-0.3, 0.3), fill_mode),
        RandomShear(0.3, 0.3, fill_mode=fill_mode),
        RandomPerspective((1, 1), 0.3),
        RandomFlip(),
    ]


moves = fill_modes.flatmap(lambda mode: st.sampled_from(warping(mode)))
black_warps = st.sampled_from(warping("constant"))
lists = st.lists(st.one_of(moves, crops), min_size=1, max_size=5)
samples = st.integers(0, 2**32)
boxes = st.tuples(*[st.floats(0, 1)] * 4)
SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


def apply_all(canvas: Canvas, operations: list[ImageOperation], sample: int) -> None:
    draws = Draws(7)
    for number, operation in enumerate(operations):
        draws.begin(0, sample, number)
        operation.apply(canvas, operation.draw(draws, canvas.size))


def placed(part: tuple[float, ...], size: tuple[int, int], least: float) -> Array:
    """A box of whole pixels in an image, of at least some part of its sides."""
    sides = []
    for place, length, side in zip(part[:2], part[2:], size[::-1], strict=True):
        whole = round(side * (least + (1 - least) * length))
        sides.append((round(place * (side - whole)), whole))
    (left, width), (top, height) = sides
    return np.array([left, top, left + width, top + height], float)


def kind_of(operation: ImageOperation) -> Any:
    """Equal for operations that are one warp if they follow one another."""
    if isinstance(operation, RandomPerspective):
        return "constant"
    return getattr(operation, "fill_mode", None)


def growth(operation: ImageOperation, sample: int, number: int, size: tuple[int, int]) -> float:
    """How many times longer the most stretched pixel becomes; 1 if nothing stays in the image."""
    places = np.stack(np.meshgrid(*(np.linspace(2, side - 2, 5) for side in size[::-1])), -1)
    steps = np.array([[0, 0], [1, 0], [0, 1]])
    points = places.reshape(-1, 1, 2) + steps
    points = np.concatenate([points, np.ones((len(points), 3, 1))], axis=-1)
    canvas = begun(np.zeros((*size, 1), np.uint8), Targets(keypoints=points))
    draws = Draws(7)
    draws.begin(0, sample, number)
    operation.apply(canvas, operation.draw(draws, size))
    moved = canvas.targets.keypoints
    seen = moved[(moved[..., 2] > 0).all(axis=1)][..., :2]
    return max((float(np.linalg.norm(one[1:] - one[0], 2)) for one in seen), default=1.0)


def edge_error(operations: list[ImageOperation], sample: int, size: tuple[int, int]) -> float:
    """By how many pixels of the result a mask's edge may be wrong.

    Each resize, and each row of moves, moves an edge by up to half a pixel, and the image's by up
    to a quarter where filters see more than one edge. Later operations stretch that.
    """
    error, before = 0.0, None
    for number, operation in enumerate(operations):
        stretched = growth(operation, sample, number, size)
        kind = kind_of(operation)
        samples = kind != before if kind else isinstance(operation, Resize | RandomResizedCrop)
        size = operation.sets_size or size
        error = stretched * (error + 0.75 * (samples or stretched > 1.01))
        before = kind or before
    return error


def near_edges(one: Array, other: Array, reach: int) -> Array:
    """The pixels within a distance of an edge of one of two masks."""
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    masks = [each.astype(np.uint8) for each in (one, other)]
    edges = [cv2.morphologyEx(each, cv2.MORPH_GRADIENT, square) for each in masks]
    found: Array = np.any(edges, axis=0)
    return found


def perimeter(mask: Array) -> int:
    return int(
        np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1])
    )


@given(lists, samples, sizes, boxes, st.booleans(), st.sampled_from(["uint8", "int32", "int64"]))
@SETTINGS
def test_masks_follow_the_image_under_any_list(
    operations: list[ImageOperation],
    sample: int,
    size: tuple[int, int],
    part: tuple[float, ...],
    is_round: bool,
    kind: str,
) -> None:
    size = (2 * size[0] + 1, 2 * size[1] + 1)
    image = painted(size, placed(part, size, 0.4), is_round)
    mask = np.where(image[..., 0] > 0, 5, 0).astype(kind)
    canvas = begun(image, Targets((mask,)))
    apply_all(canvas, operations, sample)
    moved = canvas.targets.masks[0]
    assert set(np.unique(moved)) <= {0, 5}
    ours, white = moved > 0, canvas.image[..., 0] >= 128
    assert ours.shape == white.shape
    error = edge_error(operations, sample, size)
    assert not ((ours != white) & ~near_edges(ours, white, ceil(error) + 1)).any()
    if ours.sum() >= 100 * error * perimeter(ours):
        assert iou(ours, white) >= 0.99


@given(st.lists(black_warps, min_size=1, max_size=4), samples, sizes, boxes, st.booleans())
@SETTINGS
def test_masks_are_the_image_where_it_is_read_once(
    operations: list[ImageOperation],
    sample: int,
    size: tuple[int, int],
    part: tuple[float, ...],
    is_round: bool,
) -> None:
    image = painted(size, placed(part, size, 0.4), is_round)
    canvas = begun(image, Targets((image[..., 0],)))
    apply_all(canvas, operations, sample)
    ours, white = canvas.targets.masks[0] > 0, canvas.image[..., 0] >= 128
    # Bilinear reading rounds corners: up to a pixel at each, and at each step of a round edge.
    if ours.sum() >= 10 * perimeter(ours):
        assert iou(ours, white) >= 0.99


@given(st.lists(st.one_of(black_warps, crops), min_size=1, max_size=5), samples, sizes, boxes)
@SETTINGS
def test_keypoints_stay_at_the_centers_of_painted_dots(
    operations: list[ImageOperation], sample: int, size: tuple[int, int], places: tuple[float, ...]
) -> None:
    x, y = (20 + place * (side - 40) for place, side in zip(places[:2], size[::-1], strict=True))
    around_it = [[x + dx, y + dy, 1] for dx in (-13, 0, 13) for dy in (-13, 0, 13)]
    image = dot(size, x, y)[..., np.newaxis]
    canvas = begun(image, Targets(keypoints=np.array([around_it])))
    apply_all(canvas, operations, sample)
    moved = canvas.targets.keypoints[0]
    if moved[:, 2].all():  # the whole dot is in the image, and was at each step
        assert np.hypot(*(center_of(canvas.image[..., 0]) - moved[4, :2])) <= 0.5


straight = st.lists(
    st.sampled_from(
        [RandomFlip(), RandomTranslation(0.1, 0.1, "constant"), RandomZoom(0.3, 0.3, "constant")]
    ),
    min_size=1,
    max_size=4,
)
resizes = st.tuples(
    st.just(RandomFlip()),
    sizes.map(lambda size: RandomResizedCrop(*size, (0.3, 1.0))),
    st.just(RandomFlip()),
).map(list)


@given(st.one_of(straight, resizes), samples, sizes, boxes)
@SETTINGS
def test_boxes_are_within_half_a_pixel_of_the_painted_object(
    operations: list[ImageOperation], sample: int, size: tuple[int, int], part: tuple[float, ...]
) -> None:
    box = placed(part, (size[0] - 40, size[1] - 40), 0.2) + 20
    canvas = begun(painted(size, box), Targets(boxes=box[np.newaxis]))
    apply_all(canvas, operations, sample)
    left, top, right, bottom = canvas.targets.boxes[0]
    if min(right - left, bottom - top) > 4:
        assert np.abs(canvas.targets.boxes[0] - around(canvas.image)).max() <= 0.5 + 1e-6
        share = canvas.targets.visibility[0]
        assert 0 < share <= 1


@given(st.lists(black_warps, min_size=1, max_size=4), samples, sizes, boxes)
@SETTINGS
def test_boxes_of_one_warp_lie_around_their_corners(
    operations: list[ImageOperation], sample: int, size: tuple[int, int], part: tuple[float, ...]
) -> None:
    box = placed(part, size, 0.1)
    corners = np.array([[[x, y, 1] for x in box[::2] for y in box[1::2]]])
    canvas = begun(painted(size, box), Targets(boxes=box[np.newaxis], keypoints=corners))
    apply_all(canvas, operations, sample)
    moved = canvas.targets
    if moved.keypoints[0, :, 2].all():
        points = moved.keypoints[0, :, :2]
        assert moved.boxes[0] == pytest.approx([*points.min(0), *points.max(0)])
        assert moved.visibility[0] == pytest.approx(1)
    if moved.visibility[0] == 0:
        assert not (canvas.image >= 128).any()


@given(lists, samples, sizes, boxes)
@SETTINGS
def test_boxes_hold_the_painted_object_under_any_list(
    operations: list[ImageOperation], sample: int, size: tuple[int, int], part: tuple[float, ...]
) -> None:
    operations = [one for one in operations if kind_of(one) in (None, "constant")]
    box = placed(part, size, 0.2)
    canvas = begun(painted(size, box), Targets(boxes=box[np.newaxis]))
    apply_all(canvas, operations, sample)
    if (canvas.image >= 128).any():
        reach = edge_error(operations, sample, size) + 0.5
        outward = np.array([1, 1, -1, -1]) * (canvas.targets.boxes[0] - around(canvas.image))
        assert outward.max() <= reach
        assert canvas.targets.visibility[0] > 0
