"""``image_dataset_from_arrays``: images in memory, and what belongs to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import EmptyDataset, InvalidArgument
from loaderd.spec.base import CHANNELS, ColorMode
from loaderd_client.keras import adapter
from loaderd_client.keras.annotated import AnnotatedSequence, dataset_of
from loaderd_client.keras.columns import Columns
from loaderd_client.keras.dataset_options import DatasetArguments, options_of
from loaderd_client.keras.sample_table import SampleTable

Array = NDArray[Any]

_MODES: dict[int, ColorMode] = {channels: mode for mode, channels in CHANNELS.items()}


def image_dataset_from_arrays(
    images: Any,
    labels: Any = None,
    *,
    masks: Any = None,
    boxes: Any = None,
    box_labels: Any = None,
    keypoints: Any = None,
    weights: Any = None,
    class_weights: str | Mapping[str, float] | None = None,
    sampling_weights: Any = None,
    **options: Unpack[DatasetArguments],
) -> AnnotatedSequence:
    """Makes a dataset of images in memory.

    The images are copied to shared memory once, and all workers read them there.

    Args:
        images: uint8 (n, height, width, channels) with 1, 3 or 4 channels, or (n, height, width)
            for grey ones; (n, channels, height, width) with ``data_format="channels_first"``.
        labels: names of classes, finite numbers, or rows of these (multi-hot, or several).
        masks: whole numbers from 0 to 255, (n, height, width) or (n, height, width, 1).
        boxes: for each image a list of boxes in ``bounding_box_format``, in pixels; may be empty.
        box_labels: for each image a list of as many whole numbers from 0.
        keypoints: for each image a list of (x, y, visible), of all images as many, or an empty
            list; with boxes, a list of such lists, one for each box.
        weights: finite numbers, by which losses are multiplied.
        class_weights: draws each epoch's samples with replacement; see
            :func:`image_dataset_from_dataframe`.
        sampling_weights: weights of samples, by which they are drawn.
        **options: see :class:`DatasetOptions`; without ``cache`` and ``decode``, which are for
            files. ``image_size`` is by default that of the images, to which they are resized before
            ``augment`` otherwise, and ``color_mode`` follows from them.

    Returns:
        A sequence of dictionaries, or, with ``targets``, of tuples.

    Raises:
        EmptyDataset: there are no images.
        InvalidArgument: an array has another shape, dtype or length, or holds something else.
        InvalidType: there is no such argument (also a ``TypeError``).
    """
    chosen = options_of(image_dataset_from_arrays, options)
    if chosen.cache != "none" or chosen.decode != "exact":
        raise InvalidArgument(
            "`cache` and `decode` are for images in files, and have no effect on arrays: leave "
            "them out"
        )
    data_format = chosen.data_format or adapter.image_data_format()
    found = _images(images, data_format)
    *_, height, width = found.shape[:-1] if data_format == "channels_last" else found.shape
    if "image_size" not in options:
        chosen = replace(chosen, image_size=(height, width))
    channels = found.shape[3 if data_format == "channels_last" else 1]
    chosen = replace(chosen, color_mode=_color_mode(options.get("color_mode"), channels))
    given = {
        "label": labels,
        "boxes": boxes,
        "box_labels": box_labels,
        "keypoints": keypoints,
        "weight": weights,
        "sampling_weight": sampling_weights,
    }
    values = {
        what: _rows(_ARGUMENTS[what], value, len(found))
        for what, value in given.items()
        if value is not None
    }
    listing = SampleTable(found, masks=_masks(masks, (len(found), height, width)))
    columns = Columns(_ARGUMENTS, values, chosen.bounding_box_format)
    return dataset_of(columns.added_to(listing, class_weights), chosen)


_ARGUMENTS = {
    "label": "labels",
    "boxes": "boxes",
    "box_labels": "box_labels",
    "keypoints": "keypoints",
    "weight": "weights",
    "sampling_weight": "sampling_weights",
}
"""The arguments' names by what they hold."""


def _images(given: Any, data_format: str) -> Array:
    """uint8 (n, height, width, channels), or (n, channels, height, width)."""
    axis = 3 if data_format == "channels_last" else 1
    found = _stacked("images", given)
    if not len(found):
        raise EmptyDataset("there are no images in `images`")
    if found.ndim == 3:
        found = np.expand_dims(found, axis)
    if found.ndim != 4 or found.shape[axis] not in _MODES or 0 in found.shape[1:]:
        raise InvalidArgument(
            "`images` should be an array (n, height, width, channels), or, with "
            '`data_format="channels_first"`, (n, channels, height, width), of 1, 3 or 4 channels. '
            f"Received: shape {found.shape}"
        )
    if found.dtype != np.uint8:
        raise InvalidArgument(
            f"`images` should be uint8, with values from 0 to 255. Received: {found.dtype}; "
            "ImageDataGenerator().flow() takes images of other dtypes"
        )
    return found


def _stacked(name: str, given: Any) -> Array:
    """An array of images, also of a list or an array of arrays."""
    try:
        found = np.asarray(given)
        if found.dtype == object and found.ndim == 1 and len(found):
            found = np.stack([np.asarray(one) for one in found])
    except ValueError:
        raise InvalidArgument(
            f"`{name}` are not all of one size: resize them, or read files instead of arrays"
        ) from None
    if not found.ndim:
        raise InvalidArgument(f"`{name}` should be an array. Received: {given!r}")
    return found


def _rows(name: str, given: Any, count: int) -> Sequence[Any]:
    """A value for each image, of a list, an array or a column."""
    values = given.to_numpy() if hasattr(given, "to_numpy") else given
    if isinstance(values, np.ndarray):
        is_list = values.ndim > 0
    else:
        is_list = isinstance(values, Sequence) and not isinstance(values, str | bytes)
    if not is_list:
        raise InvalidArgument(
            f"`{name}` should be a list or an array, with a row for each image. Received: "
            f"{type(given).__name__}"
        )
    if len(values) != count:
        raise InvalidArgument(f"`{name}` has {len(values)} rows, and there are {count} images")
    return values  # type: ignore[no-any-return]  # also an array, which is no Sequence


def _color_mode(given: Any, channels: int) -> ColorMode:
    mode = _MODES[channels]
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    if given not in (None, mode):
        raise InvalidArgument(
            f"`color_mode` follows from the channels of `images`: it is {mode!r} for {channels}. "
            f"Received: {given!r}"
        )
    return mode


def _masks(given: Any, shape: tuple[int, int, int]) -> Array | None:
    """uint8 (n, height, width)."""
    if given is None:
        return None
    found = _stacked("masks", given)
    if found.shape not in (shape, (*shape, 1)) or found.dtype.kind not in "biu":
        raise InvalidArgument(
            f"`masks` should be whole numbers of shape {shape}, as the images. Received: "
            f"{found.dtype} of shape {found.shape}"
        )
    found = found.reshape(shape)
    kept = found.astype(np.uint8, copy=False)
    if not np.array_equal(kept, found):
        raise InvalidArgument("`masks` should be numbers of classes from 0 to 255")
    return kept
