"""``image_dataset_from_coco``: boxes and keypoints of a file in COCO's format."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from typing import Any

import msgspec
import numpy as np

from loaderd.errors import DatasetNotFound, InvalidArgument
from loaderd_client.core import arguments
from loaderd_client.keras.annotated import (
    AnnotatedSequence,
    DatasetOptions,
    Instances,
    SampleTable,
    dataset_of,
)


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int = -1
    iscrowd: int = 0
    keypoints: tuple[float, ...] = ()


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def image_dataset_from_coco(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    keypoints: bool = False,
    **options: Any,
) -> AnnotatedSequence:
    """Makes a dataset of the images and boxes of a JSON file in COCO's format.

    Labels of boxes are the places of their categories in the order of their ids; ``class_names``
    has the names. Annotations of crowds are left out.

    Args:
        annotations: path of the file.
        images: the folder of the images; the daemon reads it at the same path.
        keypoints: whether batches have the keypoints too; all annotations must have as many.
        **options: see :class:`DatasetOptions`.

    Returns:
        A sequence of dictionaries with ``images`` and ``bounding_boxes``.

    Raises:
        DatasetNotFound: the file or the folder is missing (also a ``FileNotFoundError``).
        EmptyDataset: there is no image.
        InvalidArgument: the file is not of this format, or an option is not allowed.
    """
    chosen = DatasetOptions(**options)
    path = arguments.folder("annotations", annotations)
    folder = arguments.folder("images", images)
    if not os.path.isdir(folder):
        raise DatasetNotFound(f"`images`: there is no folder {folder}")
    content = _read(path)
    rows: dict[int, list[_Annotation]] = defaultdict(list)
    known = {image.id for image in content.images}
    for one in content.annotations:
        if one.image_id not in known:
            raise InvalidArgument(
                f"{path}: annotation {one.id} belongs to image {one.image_id}, which is not listed"
            )
        if not one.iscrowd:
            rows[one.image_id].append(one)
    ordered = [one for image in content.images for one in rows[image.id]]
    places = {each.id: place for place, each in enumerate(_by_id(content.categories))}
    instances = Instances(
        counts=[len(rows[image.id]) for image in content.images],
        boxes=np.array([_corners(path, one) for one in ordered], np.float32).reshape(-1, 4),
        labels=np.array([_label(path, one, places) for one in ordered], np.int32),
        keypoints=_keypoints(path, ordered) if keypoints else None,
    )
    listing = SampleTable(
        images=[os.path.join(folder, image.file_name) for image in content.images],
        instances=instances,
        class_names=[each.name for each in _by_id(content.categories)],
    )
    return dataset_of(listing, chosen)


def _read(path: str) -> _File:
    try:
        with open(path, "rb") as file:
            return msgspec.json.decode(file.read(), type=_File)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"there is no file {path}") from error
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InvalidArgument(f"{path} is not of COCO's format: {error}") from error


def _by_id(categories: list[_Category]) -> list[_Category]:
    return sorted(categories, key=lambda one: one.id)


def _corners(path: str, one: _Annotation) -> tuple[float, float, float, float]:
    left, top, width, height = one.bbox
    if min(width, height) < 0:
        raise InvalidArgument(
            f"{path}: the box of annotation {one.id} has a negative size: {one.bbox}"
        )
    return left, top, left + width, top + height


def _label(path: str, one: _Annotation, places: dict[int, int]) -> int:
    if one.category_id not in places:
        raise InvalidArgument(
            f"{path}: annotation {one.id} is of category {one.category_id}, which is not listed"
        )
    return places[one.category_id]


def _keypoints(path: str, ordered: list[_Annotation]) -> Any:
    lengths = {len(one.keypoints) for one in ordered}
    if len(lengths) != 1 or not all(length and length % 3 == 0 for length in lengths):
        raise InvalidArgument(
            f"{path}: `keypoints` needs as many keypoints (x, y, visible) in every annotation, and "
            f"there are {sorted(lengths)} numbers"
        )
    return np.array([one.keypoints for one in ordered], np.float32).reshape(len(ordered), -1, 3)
