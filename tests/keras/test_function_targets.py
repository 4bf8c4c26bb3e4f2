"""Functions in a list that move masks, boxes and keypoints with their images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loaderd.errors import InvalidArgument, RenderError
from loaderd_client import Session, image_dataset_from_arrays, image_dataset_from_dataframe
from loaderd_client import augment as A
from tests.support import listed_functions
from tests.support.daemons import Daemon, Serve
from tests.support.streams import killing_one

SIZE = (60, 70)
BOX = (12, 20)
"""(width, height)."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Images of SIZE with one white rectangle, or none; a box, a mask and a point for each."""
    root = tmp_path_factory.mktemp("rectangles")
    rng = np.random.default_rng(0)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image", "mask", "boxes", "of", "number", "points")
    }
    for number in range(24):
        pixels = np.zeros((*SIZE, 3), np.uint8)
        left, top = int(rng.integers(SIZE[1] - BOX[0])), int(rng.integers(SIZE[0] - BOX[1]))
        count = int(number % 6 > 0)
        if count:
            pixels[top : top + BOX[1], left : left + BOX[0]] = 255
        Image.fromarray(pixels).save(root / f"{number}.png")
        Image.fromarray(pixels[..., 0] // 255 * 3).save(root / f"{number}.mask.png")
        columns["image"].append(str(root / f"{number}.png"))
        columns["mask"].append(str(root / f"{number}.mask.png"))
        columns["boxes"].append([(left, top, *BOX)] * count)
        columns["of"].append([number] * count)
        columns["number"].append(number)
        columns["points"].append([[(left + 6, top + 10, 1)]] * count)
    return columns


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=2) as daemon, Session(daemon.path):
        yield daemon


def dataset(table: Any, *augment: Any, **more: Any) -> Any:
    options: dict[str, Any] = {
        "label": "number", "mask": "mask", "boxes": "boxes", "box_labels": "of",
        "keypoints": "points", "bounding_box_format": "xywh", "image_size": SIZE,
        "batch_size": 8, "seed": 1, "verbose": False, "augment": augment,
    }  # fmt: skip
    return image_dataset_from_dataframe(table, **(options | more))


MOVE = A.Function(listed_functions.crop_and_mirror)


def test_targets_move_as_the_function_says(daemon: Daemon, table: Any) -> None:
    made = dataset(table, MOVE, A.Resize(*SIZE, interpolation="nearest"), A.RandomFlip())
    cut = 0
    for index in range(len(made)):
        batch = made[index]
        boxes = batch["bounding_boxes"]
        for row, image in enumerate(batch["images"]):
            painted = image[..., 0] > 127
            np.testing.assert_array_equal(batch["segmentation_masks"][row, ..., 0], 3 * painted)
            if not painted.any():
                assert (boxes["labels"][row] == -1).all()
                continue
            rows, columns = painted.any(axis=1).nonzero()[0], painted.any(axis=0).nonzero()[0]
            seen = (columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1)
            np.testing.assert_allclose(boxes["boxes"][row, 0], seen, atol=1)
            assert boxes["labels"][row, 0] == 10 + batch["labels"][row]
            x, y, visible = batch["keypoints"][row, 0, 0]
            cut += not visible
            assert not visible or painted[int(y), int(x)]
    assert cut


def epochs(made: Any) -> Iterator[bytes]:
    for _ in range(3):
        for index in range(len(made)):
            batch = made[index]
            boxes = batch["bounding_boxes"]
            parts = [batch["images"], batch["segmentation_masks"], batch["keypoints"]]
            yield b"".join(one.tobytes() for one in (*parts, boxes["boxes"], boxes["labels"]))
        made.on_epoch_end()


def test_the_bytes_are_the_same_for_1_and_3_workers_and_under_kills(
    serve: Serve, table: Any
) -> None:
    augment = [A.RandomRotation(0.1), MOVE, A.RandomFlip(), MOVE, A.Resize(*SIZE)]
    with serve(workers=1), Session("auto"):
        alone = list(epochs(dataset(table, *augment)))
    assert len(set(alone)) == len(alone) == 9
    with serve(workers=3) as daemon, Session("auto"):
        assert list(epochs(dataset(table, *augment))) == alone
        assert list(killing_one(daemon, epochs(dataset(table, *augment)), 3)) == alone


def test_boxes_have_the_format_of_the_dataset(daemon: Daemon, table: Any) -> None:
    def look(image: Any, bounding_boxes: Any) -> Any:
        boxes, labels = bounding_boxes["boxes"], bounding_boxes["labels"]
        assert (boxes.dtype, labels.dtype) == (np.float32, np.int32)
        assert (boxes[:, 2:] - boxes[:, :2] == BOX[::-1]).all()
        return image, bounding_boxes

    boxes = [[(y, x, y + BOX[1], x + BOX[0]) for x, y, *_ in each] for each in table["boxes"]]
    options = {"bounding_box_format": "yxyx", "keypoints": None, "mask": None}
    with_function = dataset(table | {"boxes": boxes}, A.Function(look), **options)
    without = dataset(table | {"boxes": boxes}, **options)
    for index in range(len(without)):
        ours, theirs = with_function[index], without[index]
        np.testing.assert_allclose(
            ours["bounding_boxes"]["boxes"], theirs["bounding_boxes"]["boxes"], atol=1e-6
        )
        np.testing.assert_array_equal(
            ours["bounding_boxes"]["labels"], theirs["bounding_boxes"]["labels"]
        )


def test_targets_that_it_does_not_take_stay_where_they_are(daemon: Daemon, table: Any) -> None:
    made, plain = dataset(table, A.Function(listed_functions.invert)), dataset(table)
    ours, theirs = made[0], plain[0]
    np.testing.assert_array_equal(ours["images"], 255 - theirs["images"])
    for name in ("segmentation_masks", "keypoints"):
        np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("how", ["by name", "by value"])
def test_images_of_a_sample_are_given_one_by_one_and_drawn_alike(
    daemon: Daemon, table: Any, how: str
) -> None:
    pairs = table | {"other": table["image"]}
    move = MOVE if how == "by name" else A.Function(as_lambda(listed_functions.crop_and_mirror))
    list_of_all = [move, A.Function(listed_functions.add_noise), A.Resize(*SIZE)]
    made = dataset(pairs, *list_of_all, image=("image", "other"))
    alone = dataset(table, *list_of_all)
    for index in range(len(made)):
        batch, one = made[index], alone[index]
        left, right = batch["images"]
        np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(left, one["images"])
        for name in ("segmentation_masks", "keypoints"):
            np.testing.assert_array_equal(batch[name], one[name])
        assert batch["bounding_boxes"]["labels"].max() >= 10


def as_lambda(function: Any) -> Any:
    return lambda image, segmentation_masks, bounding_boxes, keypoints, rng: function(
        image, segmentation_masks, bounding_boxes, keypoints, rng
    )


def test_images_of_arrays_are_given_in_their_own_size_before_a_resize(daemon: Daemon) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (8, 33, 44, 3), np.uint8)
    masks = arrays[..., 0] // 2

    def halve(image: Any, segmentation_masks: Any) -> Any:
        assert image.shape == (33, 44, 3)
        return image // 2, segmentation_masks // 2

    def dataset_of(images: Any, masks: Any, *augment: Any) -> Any:
        return image_dataset_from_arrays(
            images, masks=masks, shuffle=False, image_size=(16, 22), batch_size=8, verbose=False,
            augment=[*augment, A.Resize(16, 22, antialias=False)],
        )[0]  # fmt: skip

    ours = dataset_of(arrays, masks, A.Function(halve))
    theirs = dataset_of(arrays // 2, masks // 2)
    np.testing.assert_array_equal(ours["images"], theirs["images"])
    np.testing.assert_array_equal(ours["segmentation_masks"], theirs["segmentation_masks"])


def test_a_change_of_what_it_reads_counts_from_the_next_epoch_on(
    daemon: Daemon, table: Any
) -> None:
    level = {"now": 1}
    made = dataset(table, A.Function(lambda image: np.full_like(image, level["now"])))
    for now in (1, 2):
        level["now"] = now
        assert {float(made[index]["images"].max()) for index in range(len(made))} == {now}
        assert made[0]["segmentation_masks"].max() == 3
        made.on_epoch_end()


def test_channels_are_last_whatever_the_data_format_is(daemon: Daemon, table: Any) -> None:
    function = A.Function(listed_functions.crop_and_mirror)
    last = dataset(table, function, A.Resize(*SIZE))[0]["images"]
    first = dataset(table, function, A.Resize(*SIZE), data_format="channels_first")[0]["images"]
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


# -- what goes wrong -------------------------------------------------------------------


def boxes_as(change: Any) -> Any:
    def moved(image: Any, bounding_boxes: Any) -> Any:
        return image, change(bounding_boxes)

    return moved


WRONG: list[tuple[Any, str]] = [
    (
        lambda image: image[1:],
        "70x59 pixels for one of 70x60 pixels, and segmentation_masks, bounding_boxes, "
        "keypoints would not fit it: take and return",
    ),
    (
        lambda image, segmentation_masks: (image[1:], segmentation_masks[1:]),
        "and bounding_boxes, keypoints would not fit it",
    ),
    (boxes_as(lambda boxes: boxes["boxes"]), "no dictionary of `boxes` and `labels`"),
    (boxes_as(lambda boxes: boxes | {"boxes": None}), "NoneType in the place of boxes"),
    (
        boxes_as(lambda boxes: boxes | {"boxes": boxes["boxes"][:, :3]}),
        r"boxes of float32 and shape \(1, 3\), not \(1, 4\)",
    ),
    (boxes_as(lambda boxes: boxes | {"boxes": boxes["boxes"] * np.nan}), "not finite"),
    (
        boxes_as(lambda boxes: boxes | {"boxes": boxes["boxes"] + 60}),
        "box 0 from .* not within its image of 70x60 pixels: clip it",
    ),
    (boxes_as(lambda boxes: boxes | {"boxes": -boxes["boxes"]}), "box 0 .* not within"),
    (
        boxes_as(lambda boxes: boxes | {"boxes": boxes["boxes"] * [1, 1, -0.02, 1]}),
        "box 0 .* not within",
    ),
    (boxes_as(lambda boxes: boxes | {"labels": boxes["labels"] / 2}), "labels of float64"),
    (
        boxes_as(lambda boxes: boxes | {"labels": boxes["labels"] - 99}),
        "labels that are not from 0",
    ),
    (lambda image, keypoints: image, "ndarray in the place of a tuple of image, keypoints"),
    (lambda image, keypoints: (image, keypoints[:, :0]), "keypoints of float32"),
    (
        lambda image, segmentation_masks: (image, segmentation_masks / 2),
        r"segmentation_masks of float64 and shape \(60, 70, 1\), not uint8",
    ),
    (
        lambda image, segmentation_masks: (image, segmentation_masks[1:]),
        r"segmentation_masks of uint8 and shape \(59, 70, 1\), not uint8 and \(60, 70, 1\)",
    ),
]


def test_wrong_targets_are_one_error_that_names_function_and_file(
    daemon: Daemon, table: Any
) -> None:
    for function, says in WRONG:
        with pytest.raises(RenderError, match=f"A.Function .*returned .*{says}") as caught:
            dataset(table, A.Function(function), shuffle=False, batch_size=24)[0]
        assert ".png: " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_targets_that_the_table_has_not_are_refused_when_it_is_made(
    daemon: Daemon, table: Any
) -> None:
    says = "crop_and_mirror takes keypoints, which this dataset has not: it has segmentation_masks"
    with pytest.raises(InvalidArgument, match=says):
        dataset(table, MOVE, keypoints=None)
