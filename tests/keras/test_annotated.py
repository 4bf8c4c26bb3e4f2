"""Masks, boxes and keypoints stay with their images; fits with them; what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image, ImageDraw

from loaderd.errors import BadImage, DatasetNotFound, EmptyDataset, InvalidArgument
from loaderd_client import (
    Session,
    image_dataset_from_coco,
    image_dataset_from_dataframe,
    segmentation_dataset_from_directory,
)
from loaderd_client import augment as A
from tests.support.augmented import every_operation
from tests.support.daemons import Daemon, Serve
from tests.support.streams import killing_one

COUNT = 24
COLORS = ((230, 20, 20), (20, 20, 230))
OPTIONS: dict[str, Any] = {"image_size": (64, 64), "batch_size": 8, "seed": 1, "verbose": False}
MOVES = [
    A.RandomResizedCrop(64, 64, scale=(0.5, 1.0)),
    A.RandomFlip(),
    A.RandomRotation(0.1, fill_mode="constant"),
]


def segmentation_of(number: int, size: tuple[int, int], corner: tuple[int, int]) -> Any:
    """A rectangle as a polygon, as run lengths, or as these compressed."""
    left, top = corner
    right, bottom = left + 30, top + 24
    if number % 3 == 0:
        return [[left, top, right, top, right, bottom, left, bottom]]
    inside = np.zeros(size, bool)
    inside[top:bottom, left:right] = True
    column_by_column = inside.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], column_by_column, [False]])))
    edges = edges[edges < column_by_column.size]
    counts = np.diff([0, *edges, column_by_column.size]).tolist()
    return {"size": list(size), "counts": counts if number % 3 == 1 else compressed(counts)}


def compressed(counts: list[int]) -> str:
    """As ``rleToString`` of the COCO API."""
    text = ""
    for place, count in enumerate(counts):
        number = count - counts[place - 2] if place > 2 else count
        while True:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(bits + 32 * more + 48)
            if not more:
                break
    return text


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images with one red or blue rectangle; masks; one file for all in COCO's format."""
    root = tmp_path_factory.mktemp("scenes")
    for name in ("images/a", "masks/a"):
        (root / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number in range(COUNT):
        width, height = (int(side) for side in rng.integers(60, 120, 2))
        left, top = int(rng.integers(0, width - 30)), int(rng.integers(0, height - 24))
        kind = number % 2
        picture, mask = (
            Image.new("RGB", (width, height), (70, 70, 70)),
            Image.new("P", (width, height)),
        )
        mask.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
        area = (left, top, left + 29, top + 23)
        ImageDraw.Draw(picture).rectangle(area, fill=COLORS[kind])
        ImageDraw.Draw(mask).rectangle(area, fill=1 + kind)
        picture.save(root / f"images/a/{number:02}.png")
        mask.save(root / f"masks/a/{number:02}.png")
        images.append({"id": number, "file_name": f"a/{number:02}.png"})
        annotations.append(
            {
                "id": 100 + number,
                "image_id": number,
                "category_id": (7, 3)[kind],
                "bbox": [left, top, 30, 24],
                "keypoints": [left + 15, top + 12, 2],
                "segmentation": segmentation_of(number, (height, width), (left, top)),
            }
        )
    categories = [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "coco.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def daemon(serve: Serve) -> Iterator[Daemon]:
    with serve(workers=2) as daemon, Session(daemon.path):
        yield daemon


def painted(image: Any, kind: int) -> Any:
    """Where an image shows a rectangle."""
    own, other = image[..., 2 * kind].astype(int), image[..., 2 - 2 * kind].astype(int)
    return own - other > 100


def segmentation(scenes: Path, **more: Any) -> Any:
    options = OPTIONS | more
    return segmentation_dataset_from_directory(scenes / "images", scenes / "masks", **options)


def coco(scenes: Path, **more: Any) -> Any:
    return image_dataset_from_coco(scenes / "coco.json", scenes / "images", **(OPTIONS | more))


def table(scenes: Path) -> dict[str, list[Any]]:
    """The rows; boxes are left, top, width, height."""
    content = json.loads((scenes / "coco.json").read_text())
    rows: dict[str, list[Any]] = {name: [] for name in ("image", "mask", "class", "boxes", "of")}
    for image, one in zip(content["images"], content["annotations"], strict=True):
        rows["image"].append(str(scenes / "images" / image["file_name"]))
        rows["mask"].append(str(scenes / "masks" / image["file_name"]))
        rows["class"].append("red" if one["category_id"] == 7 else "blue")
        rows["boxes"].append([one["bbox"]])
        rows["of"].append([one["category_id"]])
    rows["points"] = [[[one["keypoints"]]] for one in content["annotations"]]
    rows["weight"] = [number / 10 for number in range(COUNT)]
    return rows


def test_masks_move_with_their_images_to_the_pixel(daemon: Daemon, scenes: Path) -> None:
    """Where images are read by nearest neighbour too, each pixel shows the number of its mask."""
    moves = [
        A.RandomResizedCrop(64, 64, scale=(0.5, 1.0), interpolation="nearest"),
        A.RandomFlip(),
        A.RandomRotation(0.1, fill_mode="constant", interpolation="nearest"),
        A.RandomShear(0.2, 0.1, fill_mode="constant", interpolation="nearest"),
    ]
    seen = 0
    for images, masks in segmentation(scenes, augment=moves, targets="segmentation_masks"):
        assert masks.shape == (8, 64, 64, 1)
        assert masks.dtype == np.uint8
        for kind in (0, 1):
            np.testing.assert_array_equal(painted(images, kind), masks[..., 0] == 1 + kind)
        seen += (masks > 0).sum()
    assert seen > COUNT * 100


def test_masks_are_drawn_from_polygons_and_run_lengths(daemon: Daemon, scenes: Path) -> None:
    moves = [A.RandomResizedCrop(64, 64, scale=(0.5, 1.0)), A.RandomFlip()]
    files = segmentation(scenes, augment=moves, targets="segmentation_masks")
    drawn = coco(scenes, augment=moves, masks=True, targets="segmentation_masks")
    assert drawn.class_names == ["blue", "red"]
    for (images, masks), (others, found) in zip(files, drawn, strict=True):
        np.testing.assert_array_equal(images, others)
        expected = np.array([0, 2, 1], np.uint8)[masks]  # red is 1 in the files
        # OpenCV fills pixels on the edge of a polygon too.
        assert (expected != found).sum() <= 0.02 * masks.size
        for one, other in zip(expected, found, strict=True):
            assert ((one > 0) & (other == one)).sum() >= 0.98 * (one > 0).sum()


def test_boxes_and_keypoints_move_with_their_images(daemon: Daemon, scenes: Path) -> None:
    moves = [A.RandomResizedCrop(64, 64, scale=(0.4, 1.0), interpolation="nearest"), A.RandomFlip()]
    dataset = coco(scenes, augment=moves, keypoints=True)
    assert dataset.class_names == ["blue", "red"]
    found = 0
    for batch in dataset:
        boxes = batch["bounding_boxes"]
        assert boxes["boxes"].shape == (8, 1, 4)
        assert batch["keypoints"].shape == (8, 1, 1, 3)
        for row, image in enumerate(batch["images"]):
            (label,), (box,) = boxes["labels"][row], boxes["boxes"][row]
            if label < 0:
                assert (box == -1).all()
                assert not batch["keypoints"][row].any()
                continue
            rows, columns = np.nonzero(painted(image, 1 - label))
            edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            np.testing.assert_allclose(box, edges, atol=1.01)  # half a pixel, rounded
            x, y, visible = batch["keypoints"][row, 0, 0]
            if visible:
                assert box[0] <= x <= box[2]
                assert box[1] <= y <= box[3]
            found += 1
    assert found > COUNT / 2


def everything(first: list[Any]) -> dict[str, Any]:
    """A list with all operations that keep the size, and all targets."""
    from loaderd.augment.operation import ImageOperation

    keeping = [
        operation
        for operation in every_operation().values()
        if isinstance(operation, ImageOperation) and not operation.sets_size
    ]
    return {
        "mask": "mask", "boxes": "boxes", "box_labels": "of", "keypoints": "points",
        "bounding_box_format": "xywh", "augment": [*first, *keeping], **OPTIONS,
    }  # fmt: skip


def epochs(made: Any) -> Iterator[Any]:
    """The batches of three epochs, by index."""
    for _ in range(3):
        yield from (made[index] for index in range(len(made)))
        made.on_epoch_end()


def test_all_operations_and_targets_are_the_same_for_any_workers_and_under_kills(
    serve: Serve, scenes: Path
) -> None:
    def digests(workers: int, kill: bool = False) -> list[str]:
        with serve(workers=workers) as daemon, Session(daemon.path):
            batches: Any = epochs(image_dataset_from_dataframe(table(scenes), **everything(MOVES)))
            return [digest(one) for one in (killing_one(daemon, batches, 2) if kill else batches)]

    alone = digests(1)
    assert len(alone) == len(set(alone)) == 9
    assert digests(3) == alone
    assert digests(3, kill=True) == alone


def test_all_operations_and_targets_are_the_same_from_a_cache_and_from_any_batch(
    daemon: Daemon, scenes: Path
) -> None:
    options = everything([A.Resize(70, 80), A.RandomCrop(64, 64)])
    decoded = image_dataset_from_dataframe(table(scenes), **options)
    expected = [digest(batch) for batch in epochs(decoded)]
    assert len(set(expected)) == 9
    for cache in ("memory", "disk"):
        made = image_dataset_from_dataframe(table(scenes), cache=cache, **options)
        assert [digest(batch) for batch in epochs(made)] == expected
    begun = image_dataset_from_dataframe(table(scenes), **options)
    assert [digest(begun[index]) for index in (2, 0, 1)] == [expected[index] for index in (2, 0, 1)]


def digest(batch: dict[str, Any]) -> str:
    sha = hashlib.sha256()
    for value in (
        batch["images"],
        batch["segmentation_masks"],
        *batch["bounding_boxes"].values(),
        batch["keypoints"],
    ):
        sha.update(np.ascontiguousarray(value).tobytes())
    return sha.hexdigest()


@pytest.mark.parametrize("color_mode", ["grayscale", "rgba"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_targets_do_not_depend_on_the_form_of_the_images(
    daemon: Daemon, scenes: Path, color_mode: str, data_format: str
) -> None:
    plain = coco(scenes, augment=MOVES, masks=True)
    other = coco(scenes, augment=MOVES, masks=True, color_mode=color_mode, data_format=data_format)
    channels = {"grayscale": 1, "rgba": 4}[color_mode]
    for one, another in zip(plain, other, strict=True):
        first = data_format == "channels_first"
        expected = (8, channels, 64, 64) if first else (8, 64, 64, channels)
        assert another["images"].shape == expected
        np.testing.assert_array_equal(one["segmentation_masks"], another["segmentation_masks"])
        for name, value in one["bounding_boxes"].items():
            np.testing.assert_array_equal(value, another["bounding_boxes"][name])


@pytest.mark.parametrize(
    ("form", "of"),
    [
        ("xyxy", lambda x, y, w, h: (x, y, x + w, y + h)),
        ("yxyx", lambda x, y, w, h: (y, x, y + h, x + w)),
        ("xywh", lambda x, y, w, h: (x, y, w, h)),
        ("center_xywh", lambda x, y, w, h: (x + w / 2, y + h / 2, w, h)),
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_boxes_have_kerass_formats(
    daemon: Daemon, scenes: Path, form: str, of: Callable[..., Any], relative: bool
) -> None:
    name = f"rel_{form}" if relative else form
    plain = coco(scenes, shuffle=False, bounding_box_format="xywh", image_size=(64, 96))[0]
    other = coco(scenes, shuffle=False, bounding_box_format=name, image_size=(64, 96))[0]
    boxes = plain["bounding_boxes"]["boxes"][:, 0]
    scale = np.array([96, 64, 96, 64]) if relative else np.ones(4)
    expected = [of(*(box / scale)) for box in boxes]
    np.testing.assert_allclose(other["bounding_boxes"]["boxes"][:, 0], expected, rtol=1e-5)


def test_boxes_that_are_hardly_seen_are_left_out(daemon: Daemon, scenes: Path) -> None:
    def labels(**more: Any) -> Any:
        crops = [A.RandomResizedCrop(64, 64, scale=(0.2, 0.4))]
        made = coco(scenes, augment=crops, **more)
        return np.concatenate([batch["bounding_boxes"]["labels"] for batch in made])

    everything = (labels() >= 0).sum()
    assert 0 < (labels(min_visibility=0.9) >= 0).sum() < everything
    assert 0 < (labels(min_area=900) >= 0).sum() < everything
    assert labels(max_boxes=3).shape == (COUNT, 3)


def test_a_table_gives_labels_weights_and_several_targets(daemon: Daemon, scenes: Path) -> None:
    rows = table(scenes)
    made = image_dataset_from_dataframe(
        rows, label="class", mask="mask", weight="weight", shuffle=False,
        targets=("labels", "segmentation_masks"), **OPTIONS,
    )  # fmt: skip
    _, (labels, masks), weights = made[1]
    assert made.class_names == ["blue", "red"]
    assert labels.tolist() == [1, 0] * 4
    assert made.classes.tolist() == made.labels.tolist() == [1, 0] * 12
    assert repr(made).startswith("<AnnotatedSequence: 24 images in 3 batches, 2 classes, of /")
    np.testing.assert_allclose(weights, np.arange(8, 16) / 10, rtol=1e-6)
    assert [np.unique(mask).max() for mask in masks] == [1, 2] * 4
    soft = image_dataset_from_dataframe(
        rows | {"class": [[0.5, 1.0, 0.0]] * COUNT}, label="class", targets="labels", **OPTIONS
    )
    assert soft[0][1].tolist() == [[0.5, 1.0, 0.0]] * 8
    assert set(image_dataset_from_dataframe(rows, label="class", **OPTIONS)[0]) == {
        "images",
        "labels",
    }


def test_images_that_belong_together_share_their_draws(
    daemon: Daemon, scenes: Path, tmp_path: Path
) -> None:
    """The second is the first in other colours, the third its mask as a picture."""
    rows = table(scenes)
    rows["other"], rows["depth"] = [], []
    for number, (image, mask) in enumerate(zip(rows["image"], rows["mask"], strict=True)):
        other, depth = tmp_path / f"{number}.png", tmp_path / f"{number}.depth.png"
        Image.open(image).transpose(Image.Transpose.TRANSPOSE).transpose(
            Image.Transpose.TRANSPOSE
        ).point(lambda value: 255 - value).save(other)
        Image.fromarray(np.asarray(Image.open(mask)) * 100).save(depth)
        rows["other"].append(str(other))
        rows["depth"].append(str(depth))
    moves = [
        A.RandomResizedCrop(64, 64, scale=(0.5, 1.0), interpolation="nearest"),
        A.RandomFlip(),
        A.RandomRotation(0.1, fill_mode="constant", interpolation="nearest"),
        A.Rescaling(1 / 255),
    ]
    made = image_dataset_from_dataframe(
        rows, ("image", "other", "depth"), mask="mask", augment=moves,
        color_mode=("rgb", "rgb", "grayscale"), targets="segmentation_masks", **OPTIONS,
    )  # fmt: skip
    for (first, second, third), masks in made:
        assert third.shape == (8, 64, 64, 1)
        inside = (first > 0).any(axis=-1)
        assert 0.3 < inside.mean() < 1
        np.testing.assert_allclose((first + second)[inside], 1, rtol=1e-5)
        np.testing.assert_allclose(third * 255, masks * 100.0, rtol=1e-5)
    assert {
        len(image_dataset_from_dataframe(rows, ("image", "other"), **OPTIONS)[0]["images"])
    } == {2}


def test_images_that_belong_together_have_one_size(
    daemon: Daemon, scenes: Path, tmp_path: Path
) -> None:
    rows = table(scenes)
    rows["other"] = list(rows["image"])
    rows["other"][5] = str(tmp_path / "small.png")
    Image.new("RGB", (9, 7)).save(rows["other"][5])
    with pytest.raises(BadImage, match=r"small\.png: an image of 9x7, and .*/05\.png, to wh"):
        list(image_dataset_from_dataframe(rows, ("image", "other"), **OPTIONS))
    made = image_dataset_from_dataframe(rows, ("image", "other"), on_error="skip", **OPTIONS)
    lengths = [tuple(map(len, batch["images"])) for batch in made]
    assert sorted(lengths) == [(7, 7), (8, 8), (8, 8)]


def test_labels_of_a_table_are_mixed_with_their_images(daemon: Daemon, scenes: Path) -> None:
    rows = table(scenes)
    rows["soft"] = [[0.0, 0.5] if one == "red" else [0.5, 0.0] for one in rows["class"]]
    for column, scale in (("class", 1.0), ("soft", 2.0)):
        made = image_dataset_from_dataframe(
            rows, label=column, augment=[A.Rescaling(1 / 255), A.MixUp(1.0)], targets="labels",
            **OPTIONS,
        )  # fmt: skip
        mixed = 0
        for images, labels in made:
            assert labels.dtype == np.float32
            np.testing.assert_allclose(labels.sum(axis=1) * scale, 1, rtol=1e-5)
            for image, label in zip(images, labels * scale, strict=True):
                if not 0 < label[1] < 1:
                    continue
                mixed += 1
                redness = (image[..., 0] - image[..., 2]) / (210 / 255)
                assert redness.max() == pytest.approx(label[1], abs=0.02)
                assert -redness.min() == pytest.approx(label[0], abs=0.02)
        assert mixed > 3


def test_a_split_gives_each_sample_to_one_part(daemon: Daemon, scenes: Path) -> None:
    rows = table(scenes)
    options: dict[str, Any] = {
        "mask": "mask", "boxes": "boxes", "box_labels": "of", "label": "class", "weight": "weight",
        "bounding_box_format": "xywh", "validation_split": 0.25, **OPTIONS,
    }  # fmt: skip
    parts = [
        image_dataset_from_dataframe(rows, subset=subset, **options)
        for subset in ("training", "validation")
    ]
    assert [part.n for part in parts] == [18, 6]
    names = [name for part in parts for name in part.filenames]
    assert sorted(names) == sorted(rows["image"])
    assert names != sorted(names)
    whole = image_dataset_from_dataframe(
        rows, **{**options, "validation_split": None, "shuffle": False, "batch_size": COUNT}
    )[0]
    for part in parts:
        for batch in part:
            places = np.round(batch["sample_weights"] * 10).astype(int)
            np.testing.assert_array_equal(batch["images"], whole["images"][places])
            np.testing.assert_array_equal(batch["labels"], whole["labels"][places])
            for name in ("boxes", "labels"):
                np.testing.assert_array_equal(
                    batch["bounding_boxes"][name], whole["bounding_boxes"][name][places]
                )
    shapes = coco(scenes, masks=True, validation_split=0.25, subset="validation", shuffle=False)
    last = coco(scenes, masks=True, shuffle=False)[2]["segmentation_masks"][2:]
    np.testing.assert_array_equal(shapes[0]["segmentation_masks"], last)


def test_a_substitute_has_its_own_targets_and_the_same_class(daemon: Daemon, own: Path) -> None:
    says = too_large(own)
    rows = table(own)
    options: dict[str, Any] = {"mask": "mask", "label": "class", "on_error": "substitute"}
    batch = image_dataset_from_dataframe(rows, **options, **OPTIONS, shuffle=False)[0]
    assert len(batch["images"]) == 8
    assert batch["labels"].tolist() == [1, 0] * 4
    assert np.unique(batch["segmentation_masks"][3]).tolist() == [0, 2]
    for image, mask in zip(batch["images"], batch["segmentation_masks"], strict=True):
        shown = painted(image, mask.max() - 1)
        assert (shown == (mask[..., 0] > 0)).mean() > 0.95
    with pytest.raises(BadImage, match=says):
        list(image_dataset_from_dataframe(rows, mask="mask", label="class", **OPTIONS))


LOADED: dict[str, list[Any]] = {
    "resized": [A.Resize(64, 64), A.RandomFlip(), A.RandomRotation(0.1, fill_mode="constant")],
    "resized by nearest": [A.Resize(64, 64, "nearest"), A.RandomFlip()],
    "centre": [A.Resize(70, 80, crop_to_aspect_ratio=True), A.RandomCrop(64, 64), A.RandomFlip()],
    "only turned": [A.RandomRotation(0.1, fill_mode="constant")],
    "nothing": [],
}


@pytest.mark.parametrize("augment", LOADED.values(), ids=LOADED)
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_cached_images_have_the_targets_of_decoded_ones(
    daemon: Daemon, scenes: Path, augment: list[Any], cache: str
) -> None:
    """Targets move from the sizes that the pictures have, which a cache keeps too."""
    options = {"augment": augment, "keypoints": True, "masks": True}
    plain, cached = coco(scenes, **options), coco(scenes, **options, cache=cache)
    for _ in range(3):
        for one, other in zip(plain, cached, strict=True):
            assert digest(one) == digest(other)
    for batch in cached:
        for row, image in enumerate(batch["images"]):
            label, mask = (
                batch["bounding_boxes"]["labels"][row, 0],
                batch["segmentation_masks"][row],
            )
            if label >= 0:
                assert (painted(image, 1 - label) == (mask[..., 0] > 0)).mean() > 0.95


@pytest.mark.parametrize(
    "augment",
    [
        [A.RandomResizedCrop(32, 32, scale=(0.3, 1.0)), A.RandomFlip()],
        [A.Resize(32, 32), A.RandomFlip(), A.RandomRotation(0.1, fill_mode="constant")],
        [A.Resize(32, 32, "nearest"), A.RandomFlip()],
    ],
)
def test_targets_of_photos_that_are_decoded_at_a_fraction_move_alike(
    daemon: Daemon, tmp_path: Path, augment: list[Any]
) -> None:
    rows: dict[str, list[Any]] = {"image": [], "mask": [], "boxes": [], "of": []}
    rng = np.random.default_rng(0)
    for number in range(8):
        width, height = (int(side) for side in rng.integers(500, 900, 2))
        left, top = int(rng.integers(0, width - 300)), int(rng.integers(0, height - 240))
        picture, mask = Image.new("RGB", (width, height), "grey"), Image.new("L", (width, height))
        area = (left, top, left + 299, top + 239)
        ImageDraw.Draw(picture).rectangle(area, fill=COLORS[0])
        ImageDraw.Draw(mask).rectangle(area, fill=1)
        for name, image, extension in (("image", picture, "jpg"), ("mask", mask, "png")):
            rows[name].append(str(tmp_path / f"{name}{number}.{extension}"))
            image.save(rows[name][-1], quality=95)
        rows["boxes"].append([[left, top, left + 300, top + 240]])
        rows["of"].append([0])
    options: dict[str, Any] = {
        "mask": "mask", "boxes": "boxes", "box_labels": "of", "augment": augment,
        **OPTIONS, "image_size": (32, 32),
    }  # fmt: skip
    exact = image_dataset_from_dataframe(rows, **options)[0]
    scaled = image_dataset_from_dataframe(rows, decode="scaled", **options)[0]
    assert (exact["images"] != scaled["images"]).any()
    assert np.abs(exact["images"] - scaled["images"]).mean() < 4
    np.testing.assert_array_equal(exact["segmentation_masks"], scaled["segmentation_masks"])
    for name, value in exact["bounding_boxes"].items():
        np.testing.assert_array_equal(value, scaled["bounding_boxes"][name])
    pairs = rows | {"other": rows["image"]}
    of_pairs = options | {"image": ("image", "other"), "decode": "scaled"}
    for one in image_dataset_from_dataframe(pairs, **of_pairs)[0]["images"]:
        np.testing.assert_array_equal(one, scaled["images"])


def test_a_preview_shows_masks_boxes_and_keypoints(daemon: Daemon, scenes: Path) -> None:
    options = {
        "mask": "mask", "boxes": "boxes", "box_labels": "of", "keypoints": "points",
        "bounding_box_format": "xywh", "shuffle": False, "image_size": (96, 96),
    }  # fmt: skip
    rows = table(scenes)
    annotated = image_dataset_from_dataframe(rows, **(OPTIONS | options))
    shown = np.asarray(annotated.preview(1))[:96, :96].astype(int)
    plain = annotated[0]["images"][0]
    mask = annotated[0]["segmentation_masks"][0, :, :, 0]
    left, top, width, height = annotated[0]["bounding_boxes"]["boxes"][0, 0]
    x, y, _ = annotated[0]["keypoints"][0, 0, 0]
    changed = np.abs(shown - plain).max(axis=-1) > 2
    assert changed[mask > 0].mean() > 0.9
    assert changed[int(top), int(left) : int(left + width)].mean() > 0.9
    assert shown[int(y), int(x)].tolist() == [255, 0, 0]
    outside = np.ones((96, 96), bool)
    outside[int(top) - 1 : int(top + height) + 2, int(left) - 1 : int(left + width) + 2] = False
    assert not changed[outside].any()


def test_a_small_network_learns_masks(daemon: Daemon, scenes: Path) -> None:
    keras.utils.set_random_seed(0)
    train = segmentation(
        scenes, image_size=(32, 32), augment=[A.RandomFlip(), A.Rescaling(1 / 255)],
        targets="segmentation_masks",
    )  # fmt: skip
    conv = keras.layers.Conv2D
    model = keras.Sequential(
        [
            keras.layers.Input((32, 32, 3)),
            conv(8, 3, padding="same", activation="relu"),
            conv(3, 1, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy")
    model.fit(train, epochs=12, verbose=0)
    images, masks = train[0]
    predicted = model.predict(images, verbose=0).argmax(-1)
    for kind in (1, 2):
        marked, seen = masks[..., 0] == kind, predicted == kind
        assert (marked & seen).sum() / (marked | seen).sum() > 0.7


def test_a_detector_head_trains_on_boxes(daemon: Daemon, scenes: Path) -> None:
    keras.utils.set_random_seed(0)
    train = coco(
        scenes, image_size=(32, 32), bounding_box_format="rel_center_xywh",
        augment=[A.RandomFlip(), A.Rescaling(1 / 255)], targets="bounding_boxes",
    )  # fmt: skip

    class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
        def __len__(self) -> int:
            return len(train)

        def __getitem__(self, index: int) -> Any:
            images, boxes = train[index]
            return images, boxes["boxes"][:, 0]

    model = keras.Sequential(
        [keras.layers.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(4)]
    )
    model.compile(keras.optimizers.Adam(0.001), "mae")
    losses = model.fit(Batches(), epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]


# -- what is refused -------------------------------------------------------------------


@pytest.fixture
def own(scenes: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(scenes, tmp_path / "own"))


def too_large(own: Path) -> str:
    Image.new("L", (9, 7)).save(own / "masks/a/03.png")
    return r"masks/a/03\.png: a mask of 9x7 pixels, and its image .*images/a/03\.png has"


def coloured(own: Path) -> str:
    Image.new("RGB", (9, 7)).save(own / "masks/a/03.png")
    return r"masks/a/03\.png: a mask must have one number .* this one is RGB"


def broken(own: Path) -> str:
    (own / "masks/a/03.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    return r"masks/a/03\.png: "


@pytest.mark.parametrize("damage", [too_large, coloured, broken])
def test_a_bad_mask_is_a_bad_image(
    daemon: Daemon, own: Path, damage: Callable[[Path], str]
) -> None:
    says = damage(own)
    with pytest.raises(BadImage, match=says) as caught:
        list(segmentation(own))
    assert "\n" not in str(caught.value)
    assert sum(len(batch["images"]) for batch in segmentation(own, on_error="skip")) == COUNT - 1


def edited(own: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((own / "coco.json").read_text())
    change(content)
    (own / "coco.json").write_text(json.dumps(content))


def test_a_box_outside_of_its_image_is_a_bad_image(daemon: Daemon, own: Path) -> None:
    edited(own, lambda content: content["annotations"][5].update(bbox=[-9, 5, 20, 20]))
    with pytest.raises(BadImage, match=r"a/05\.png: box 0 from \(-9\.0, 5\.0\) .* is outside"):
        list(coco(own))
    assert sum(len(batch["images"]) for batch in coco(own, on_error="skip")) == COUNT - 1


def test_run_lengths_of_another_size_are_a_bad_image(daemon: Daemon, own: Path) -> None:
    edited(own, lambda content: content["annotations"][4].update(segmentation={"counts": [9, 3]}))
    with pytest.raises(BadImage, match=r"a/04\.png: runs of 12 pixels in the mask of instance 4"):
        list(coco(own, masks=True))


def test_a_missing_image_is_a_bad_image(daemon: Daemon, own: Path) -> None:
    (own / "images/a/07.png").unlink()
    with pytest.raises(BadImage, match=r"a/07\.png: No such file"):
        list(coco(own))


CHANGES: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (
        lambda c: c["annotations"][2].update(bbox=[1, 2, -3, 4]),
        "annotation 102 has a negative size",
    ),
    (lambda c: c["annotations"][2].update(category_id=9), "annotation 102 is of category 9"),
    (lambda c: c["annotations"][2].update(image_id=99), "annotation 102 belongs to image 99"),
    (lambda c: c["annotations"][2].update(bbox="x"), "not of COCO's format"),
    (lambda c: c["annotations"][2].update(keypoints=[1, 2]), "needs as many keypoints"),
    (lambda c: c.pop("images"), "not of COCO's format"),
    (lambda c: c["annotations"][3].update(segmentation=[[1, 2, 3]]), "polygon of annotation 103"),
    (
        lambda c: c["annotations"][3].update(segmentation={"counts": "o"}),
        "run lengths of annotation 103 are damaged",
    ),
]


@pytest.mark.parametrize(("change", "says"), CHANGES)
def test_a_wrong_file_is_refused_in_one_line(
    daemon: Daemon, own: Path, change: Callable[[dict[str, Any]], object], says: str
) -> None:
    edited(own, change)
    with pytest.raises(InvalidArgument, match=says) as caught:
        coco(own, keypoints=True, masks=True)
    assert "\n" not in str(caught.value)
    assert "coco.json" in str(caught.value)


BOXES = {"boxes": "boxes", "box_labels": "of", "bounding_box_format": "xywh"}
WRONG: list[tuple[dict[str, Any], dict[str, list[Any]], str]] = [
    ({"mask": "masks"}, {}, "no column 'masks': it has image, mask"),
    ({"boxes": "boxes"}, {}, "`boxes` and `box_labels` should be given together"),
    (BOXES, {"of": [[1, 2]] * COUNT}, "row 0: 1 boxes, but 2"),
    (BOXES, {"boxes": [[[5, 5, -1, 9]]] * COUNT}, "row 0: a box has a negative size"),
    (BOXES, {"boxes": [[[1, 2]]] * COUNT}, "four numbers"),
    (BOXES | {"bounding_box_format": "rel_xywh"}, {}, "boxes of a table are in pixels"),
    ({"label": "class"}, {"class": [None] * COUNT}, "labels should be names, numbers or lists"),
    ({"mask": "mask"}, {"mask": [3] * COUNT}, "row 0: 'mask' should be a path"),
    ({"label": "class", "targets": "keypoints"}, {}, "`targets` should be some of labels"),
    ({"mask": "mask", "augment": [A.MixUp()]}, {}, "the mean of two masks has no meaning"),
    (BOXES | {"augment": [A.CutMix()]}, {}, "MixUp and CutMix mix images"),
    ({"image": ("image", "image"), "augment": [A.MixUp()]}, {}, "MixUp and CutMix mix images"),
    ({"image": ()}, {}, "`image` should name at least one column"),
    ({"color_mode": ("rgb", "grayscale")}, {}, "`color_mode` should be one for all images, or one"),
    ({"validation_split": 0.5}, {}, "both `validation_split` and `subset`"),
    ({"validation_split": 1.0, "subset": "training"}, {}, "between 0 and 1"),
    ({"validation_split": 0.5, "subset": "test"}, {}, "Invalid subset"),
    ({"validation_split": 0.5, "subset": "training", "seed": None}, {}, "needs a `seed`"),
    ({"label": "class", "bounding_box_format": "coco"}, {}, "Invalid bounding_box_format"),
    ({"label": "class", "on_error": "ignore"}, {}, "Invalid on_error"),
]


@pytest.mark.parametrize(("options", "columns", "says"), WRONG)
def test_a_wrong_table_is_refused_in_one_line(
    daemon: Daemon,
    scenes: Path,
    options: dict[str, Any],
    columns: dict[str, list[Any]],
    says: str,
) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        image_dataset_from_dataframe(table(scenes) | columns, **(OPTIONS | options))
    assert "\n" not in str(caught.value)


def test_images_without_masks_and_missing_folders_are_named(daemon: Daemon, own: Path) -> None:
    (own / "masks/a/04.png").unlink()
    with pytest.raises(InvalidArgument, match=r"1 of 24 images in .* have no mask in .*: a.04$"):
        segmentation(own)
    with pytest.raises(DatasetNotFound, match="there is no folder"):
        segmentation_dataset_from_directory(own / "pictures", own / "masks")
    with pytest.raises(DatasetNotFound, match="there is no file"):
        image_dataset_from_coco(own / "none.json", own / "images")
    with pytest.raises(EmptyDataset, match="no images"):
        image_dataset_from_dataframe({"image": []}, verbose=False)
    with pytest.raises(TypeError, match="unexpected keyword argument 'image_sise'"):
        segmentation(own.parent / "own", image_sise=(3, 3))
