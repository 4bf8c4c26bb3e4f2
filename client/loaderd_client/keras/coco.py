"""``image_dataset_from_coco``: boxes and keypoints of a file in COCO's format."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Unpack

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import DatasetNotFound, InvalidArgument
from loaderd.ipc.text import printable
from loaderd_client.core import arguments
from loaderd_client.keras.annotated import AnnotatedSequence, dataset_of
from loaderd_client.keras.dataset_options import DatasetArguments, options_of
from loaderd_client.keras.sample_table import Instances, SampleTable, Shapes

Array = NDArray[np.float32]

_MAX_CLASSES = 255
_LEAST_NUMBERS = 6
_FIRST_CHARACTER = 48


class _Image(msgspec.Struct):
    id: int
    file_name: str


class _Category(msgspec.Struct):
    id: int
    name: str


class _Runs(msgspec.Struct):
    counts: list[int] | str


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    id: int = -1
    iscrowd: int = 0
    keypoints: tuple[float, ...] = ()
    segmentation: list[list[float]] | _Runs | None = None


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def image_dataset_from_coco(
    annotations: str | os.PathLike[str],
    images: str | os.PathLike[str],
    *,
    keypoints: bool = False,
    masks: bool = False,
    **options: Unpack[DatasetArguments],
) -> AnnotatedSequence:
    """Makes a dataset of the images and boxes of a JSON file in COCO's format.

    Labels of boxes are the places of their categories in the order of their ids; ``class_names``
    has the names. Annotations of crowds are left out.

    Args:
        annotations: path of the file.
        images: the folder of the images; the daemon reads it at the same path.
        keypoints: whether batches have the keypoints too; all annotations must have as many.
        masks: whether batches have a mask for each image, drawn from polygons and run lengths: 0
            where nothing is, else 1 + the label of the last annotation there.
        **options: see :class:`DatasetOptions`.

    Returns:
        A sequence of dictionaries with ``images`` and ``bounding_boxes``.

    Raises:
        DatasetNotFound: the file or the folder is missing (also a ``FileNotFoundError``).
        EmptyDataset: there is no image.
        InvalidArgument: the file is not of this format, or an option is not allowed.
        InvalidType: there is no such argument (also a ``TypeError``).
    """
    chosen = options_of(image_dataset_from_coco, options)
    path = arguments.folder("annotations", annotations)
    folder = arguments.folder("images", images)
    if not os.path.isdir(folder):
        raise DatasetNotFound(f"`images`: there is no folder {folder}")
    content = _read(path)
    _require_ids(path, "images", [(one.id, one.file_name) for one in content.images])
    _require_ids(path, "categories", [(one.id, one.name) for one in content.categories])
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
        shapes=_shapes(path, ordered, places) if masks else None,
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


def _require_ids(path: str, what: str, names: list[tuple[int, str]]) -> None:
    """Raises InvalidArgument for two of one id."""
    found: dict[int, str] = {}
    for number, name in names:
        if number in found:
            raise InvalidArgument(
                f"{path}: two {what} have the id {number}: {printable(found[number])} and "
                f"{printable(name)}"
            )
        found[number] = name


def _floats(path: str, one: _Annotation, what: str, numbers: Sequence[float]) -> Array:
    """Numbers of an annotation as float32, all finite."""
    with np.errstate(over="ignore"):
        found = np.array(numbers, np.float32)
    if not np.isfinite(found).all():
        raise InvalidArgument(f"{path}: {what} of annotation {one.id} has too large numbers")
    return found


def _by_id(categories: list[_Category]) -> list[_Category]:
    return sorted(categories, key=lambda one: one.id)


def _corners(path: str, one: _Annotation) -> Array:
    left, top, width, height = one.bbox
    if min(width, height) < 0:
        raise InvalidArgument(
            f"{path}: the box of annotation {one.id} has a negative size: {one.bbox}"
        )
    return _floats(path, one, "the box", (left, top, left + width, top + height))


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
    found = [_floats(path, one, "a keypoint", one.keypoints) for one in ordered]
    return np.array(found).reshape(len(ordered), -1, 3)


def _shapes(path: str, ordered: list[_Annotation], places: dict[int, int]) -> Shapes:
    if len(places) > _MAX_CLASSES:
        raise InvalidArgument(f"{path}: masks have at most {_MAX_CLASSES} categories")
    values, rings, runs = [], [], []
    for one in ordered:
        found = one.segmentation
        values.append(1 + _label(path, one, places))
        polygons = found if isinstance(found, list) else []
        rings.append([_ring(path, one, numbers) for numbers in polygons])
        runs.append(_counts(path, one, found.counts) if isinstance(found, _Runs) else [])
    return Shapes(values, rings, runs)


def _ring(path: str, one: _Annotation, numbers: list[float]) -> Any:
    if len(numbers) < _LEAST_NUMBERS or len(numbers) % 2:
        raise InvalidArgument(
            f"{path}: a polygon of annotation {one.id} should have three points or more, and has "
            f"{len(numbers)} numbers"
        )
    return _floats(path, one, "a polygon", numbers).reshape(-1, 2)


def _counts(path: str, one: _Annotation, counts: list[int] | str) -> list[int]:
    try:
        found = counts if isinstance(counts, list) else decoded_counts(counts)
        if min(found, default=0) < 0:
            raise ValueError
    except (IndexError, ValueError):
        raise InvalidArgument(
            f"{path}: the run lengths of annotation {one.id} are damaged"
        ) from None
    return found


def decoded_counts(text: str) -> list[int]:
    """Run lengths from their compressed form.

    After ``rleFrString`` in ``common/maskApi.c`` of the COCO API: base 48, five bits a character,
    the sixth says that more follow; from the third on each is a difference to the one before the
    last.

    Raises:
        IndexError: the text ends within a number.
    """
    counts: list[int] = []
    place = 0
    while place < len(text):
        number, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - _FIRST_CHARACTER
            number |= (bits & 31) << shift
            more = bool(bits & 32)
            place, shift = place + 1, shift + 5
            if not more and bits & 16:
                number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
    return counts
