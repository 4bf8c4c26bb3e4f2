"""Annotations in a bundle that do not fit one another are refused before a worker reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loaderd.errors import ProtocolError
from loaderd.ipc import annotation_parts, manifest
from loaderd.spec.annotations import Annotations

WANTED = Annotations(masks="shapes", max_boxes=3, boxes=True, keypoints=2)
FILES = Annotations(masks="files")
ARRAYS = Annotations(masks="arrays")
SIZE = (4, 5)


def parts() -> dict[str, Any]:
    """Of two samples: the first has one instance, the second two; one of them has a polygon."""
    return {
        "instances": np.array([0, 1, 3]),
        "boxes": np.zeros((3, 4), np.float32),
        "box_labels": np.zeros(3, np.int32),
        "keypoints": np.zeros((3, 2, 3), np.float32),
        "mask_values": np.ones(3, np.uint8),
        "rings": np.array([0, 1, 1, 1]),
        "ring_points": np.array([0, 4]),
        "points": np.zeros((4, 2), np.float32),
        "runs": np.array([0, 0, 2, 2]),
        "run_lengths": np.array([3, 4]),
    }


def masks(count: int) -> dict[str, Any]:
    table = manifest.pack("", (), [b"/m.png"] * count, np.zeros(count, np.int32))
    return {"mask_manifest": np.frombuffer(table, np.uint8)}


def test_parts_that_fit_pass() -> None:
    annotation_parts.check(WANTED, parts(), 2, SIZE)
    annotation_parts.check(FILES, masks(5), 5, SIZE)
    annotation_parts.check(Annotations(), {}, 5, SIZE)


@pytest.mark.parametrize("name", parts())
def test_a_missing_part_is_refused_by_name(name: str) -> None:
    given = parts()
    del given[name]
    with pytest.raises(ProtocolError, match=f"lacks '{name}'"):
        annotation_parts.check(WANTED, given, 2, SIZE)


@pytest.mark.parametrize("name", parts())
def test_a_part_of_another_dtype_or_shape_is_refused(name: str) -> None:
    whole = parts()[name]
    for wrong in (whole.astype(np.float64), whole[..., np.newaxis], whole[:-1]):
        with pytest.raises(ProtocolError, match=name):
            annotation_parts.check(WANTED, parts() | {name: wrong}, 2, SIZE)


@pytest.mark.parametrize("bounds", [[0, 99, 3], [-2, 1, 3], [1, 2, 3], [0, 2, 1], [0, 3]])
def test_bounds_that_are_none_are_refused(bounds: list[int]) -> None:
    with pytest.raises(ProtocolError, match="instances"):
        annotation_parts.check(WANTED, parts() | {"instances": np.array(bounds)}, 2, SIZE)


def test_masks_for_another_number_of_samples_are_refused() -> None:
    with pytest.raises(ProtocolError, match="'mask_manifest' of the bundle has 4 files for 5"):
        annotation_parts.check(FILES, masks(4), 5, SIZE)
    with pytest.raises(ProtocolError):
        annotation_parts.check(FILES, {"mask_manifest": np.zeros(100, np.uint8)}, 5, SIZE)


def test_masks_in_arrays_have_the_size_of_the_images() -> None:
    annotation_parts.check(ARRAYS, {"masks": np.zeros((3, *SIZE), np.uint8)}, 3, SIZE)
    for shape in ((2, *SIZE), (3, 5, 4), (3, *SIZE, 1)):
        with pytest.raises(ProtocolError, match="'masks'"):
            annotation_parts.check(ARRAYS, {"masks": np.zeros(shape, np.uint8)}, 3, SIZE)


def test_further_images_are_one_for_each_sample() -> None:
    further = Annotations(further=("rgb", "grayscale"))
    table = masks(3)["mask_manifest"]
    annotation_parts.check(further, {"image_manifest_1": table, "image_manifest_2": table}, 3, SIZE)
    with pytest.raises(ProtocolError, match="lacks 'image_manifest_2'"):
        annotation_parts.check(further, {"image_manifest_1": table}, 3, SIZE)
    with pytest.raises(ProtocolError, match="3 files for 4"):
        annotation_parts.check(further, {"image_manifest_1": table}, 4, SIZE)
