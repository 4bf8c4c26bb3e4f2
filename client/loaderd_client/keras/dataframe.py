"""``DataFrameIterator``: the images that a pandas DataFrame names.

Names, arguments, checks and messages follow ``keras/src/legacy/preprocessing/image.py``.
pandas is not imported here: a program with a DataFrame has imported it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import EmptyDataset, InvalidArgument, InvalidType, NoSuchColumn
from loaderd.spec.base import (
    Cache,
    ColorMode,
    DataFormat,
    Decode,
    Interpolation,
    LabelMode,
    OnError,
)
from loaderd_client.core import arguments
from loaderd_client.core.batch import Batch
from loaderd_client.core.user_warnings import warn
from loaderd_client.keras import adapter
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.files import NUMBERED, FilesIterator

_UNLABELLED = ("input", "multi_output", "raw", None)
_SHOWN = 20
"""Columns that an error names."""
_DEPRECATED = {
    "has_ext": "has_ext is deprecated, filenames in the dataframe have to match the exact "
    "filenames in disk.",
    "sort": "sort is deprecated, batches will be created in the same order than the filenames "
    "provided if `shuffle` is set to `False`.",
    "drop_duplicates": "drop_duplicates is deprecated, you can drop duplicates by using the "
    "pandas.DataFrame.drop_duplicates method.",
}


def warn_deprecated(given: Iterable[str], class_mode: str | None) -> str | None:
    """Warns of deprecated arguments; returns the present name of the class mode."""
    for name, text in _DEPRECATED.items():
        if name in given:
            warn(text, DeprecationWarning)
    if class_mode == "other":
        warn(
            '`class_mode="other"` is deprecated, please use `class_mode="raw"`.',
            DeprecationWarning,
        )
        return "raw"
    return class_mode


class DataFrameIterator(FilesIterator):
    """Batches of the images that a DataFrame names.

    Arguments and attributes are Keras's; see ``ImageDataGenerator.flow_from_dataframe``.
    """

    allowed_class_modes: ClassVar[set[str | None]] = {*NUMBERED, *_UNLABELLED}

    def __init__(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        image_data_generator: Augmentation | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: str | None = None,
        target_size: Sequence[int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: DataFormat | None = "channels_last",
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: Interpolation = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = "float32",
        validate_filenames: bool = True,
        *,
        cache: Cache = "none",
        decode: Decode = "exact",
        on_error: OnError = "raise",
        substitute_weight: float | None = None,
        exif: bool = False,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
    ) -> None:
        del workers, use_multiprocessing
        self.set_loading(cache, decode, on_error, substitute_weight, exif)
        self.set_processing_attrs(
            image_data_generator,
            target_size,
            color_mode,
            data_format or adapter.image_data_format(),
            save_to_dir,
            save_prefix,
            save_format,
            subset,
            interpolation,
            keep_aspect_ratio,
        )
        self.class_mode = class_mode = arguments.plain(class_mode)
        self.dtype = dtype or adapter.floatx()
        root = arguments.plain(os.fspath(directory or ""))
        if not hasattr(dataframe, "iloc"):
            raise InvalidType(f"`dataframe` should be a pandas DataFrame. Received: {dataframe!r}")
        frame = dataframe.copy()
        if classes is not None:  # an array or a column has no truth value
            classes = [arguments.plain(one) for one in classes]
        self._check_class_mode()
        _check(frame, class_mode, x_col, y_col, weight_col, classes)
        if validate_filenames:
            frame = _existing(frame, root, x_col, self.white_list_formats)
        names: Sequence[str] = ()
        if class_mode not in _UNLABELLED:
            frame, names = _of_classes(frame, y_col, classes)
        if self.split:
            start, stop = (int(share * len(frame)) for share in self.split)
            frame = frame.iloc[start:stop, :]
        self._read_mode = class_mode
        self._read_labels(frame, y_col, names)
        self._sample_weight = frame[weight_col].to_numpy() if weight_col else None
        self.filenames = frame[x_col].tolist()
        self._names = names
        if not self.filenames:
            raise EmptyDataset(
                f'no image is left of x_col="{x_col}": the files must exist below `directory`, '
                "and their rows must have a label of `classes`"
            )
        self._shown_paths = [os.path.join(root, name) for name in self.filenames]
        self.directory = root
        self._load(batch_size, shuffle, seed, max_queue_size)
        self.directory = root
        self.class_indices = {name: index for index, name in enumerate(names)}
        how = "validated" if validate_filenames else "non-validated"
        of_classes = "" if class_mode in _UNLABELLED else f" belonging to {len(names)} classes"
        print(f"Found {self.samples} {how} image filenames{of_classes}.")

    def _read_labels(self, frame: Any, y_col: Any, names: Sequence[str]) -> None:
        """Sets ``classes``, or the targets for ``raw`` and ``multi_output``."""
        if self.class_mode == "multi_output":
            self._targets: Any = [np.array(frame[column].tolist()) for column in y_col]
        elif self.class_mode == "raw":
            self._targets = frame[y_col].to_numpy()
        elif self.class_mode not in _UNLABELLED:
            number = {name: index for index, name in enumerate(names)}
            self._shown_classes = [_numbers(label, number) for label in frame[y_col]]

    def _check_class_mode(self) -> None:
        """Also checks that its labels were read, if it was set later."""
        super()._check_class_mode()
        wanted = arguments.plain(self.class_mode)
        read = getattr(self, "_read_mode", wanted)
        if wanted not in ("input", None, read) and {wanted, read} & {*_UNLABELLED}:
            raise InvalidArgument(
                f'`class_mode="{wanted}"` needs labels, and those of "{read}" were read: make '
                "another iterator"
            )

    def _label_mode(self) -> LabelMode:
        """Those of one number a sample; others are made in the trainer."""
        if self.class_mode == "input":
            return "input"
        if self.class_mode in _UNLABELLED or self._has_lists:
            return "none"
        return "categorical" if self.class_mode == "categorical" else "sparse"

    @property
    def _has_lists(self) -> bool:
        shown = self._shown_classes
        return shown is not None and any(isinstance(label, list) for label in shown)

    def _class_names(self) -> Sequence[str]:
        return self._names

    def _labels(self, count: int) -> NDArray[np.int32]:
        labels = np.zeros(count, np.int32)
        if self._shown_classes is not None and not self._has_lists:
            known = np.asarray(self._shown_classes)
            if len(known) == count and known.dtype.kind == "i":
                labels[:] = known
        return labels

    @property
    def classes(self) -> Any:
        """The class of every sample; a list where a sample has several.

        Raises:
            AttributeError: the samples have no classes by their ``class_mode``.
        """
        if self._shown_classes is None:
            name = type(self).__name__
            raise AttributeError(f"'{name}' object has no attribute 'classes'", obj=self)
        return self._shown_classes

    @classes.setter
    def classes(self, value: Any) -> None:
        self._shown_classes = value

    @property
    def labels(self) -> Any:
        """The classes, or the targets for ``raw`` and ``multi_output``."""
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    def _origin(self) -> str:
        return f", {len(self._names)} classes" if self._names else ""

    @property
    def sample_weight(self) -> NDArray[Any] | None:
        """The weight of every sample, or None."""
        return self._sample_weight

    def _assembled(self, batch: Batch) -> Any:
        labels: Any = batch.labels
        match self.class_mode:
            case "multi_output":
                labels = [output[batch.ids] for output in self.labels]
            case "raw":
                labels = self.labels[batch.ids]
            case None:
                return batch.images
            case "input":
                pass
            case _:
                labels = self._labels_of(batch)
        weights = self._weights_of(batch)
        return (batch.images, labels) if weights is None else (batch.images, labels, weights)

    def _labels_of(self, batch: Batch) -> Any:
        ids = batch.ids.tolist()
        shown = [self.classes[one] for one in ids]
        assert self._packed is not None
        if batch.labels is not None and shown == self._packed.labels[ids].tolist():
            return batch.labels
        return self._labelled(shown)

    def _weights_of(self, batch: Batch) -> NDArray[Any] | None:
        """The weights of the column, multiplied by those of substitutes."""
        if self.sample_weight is None:
            return batch.weights
        own: NDArray[Any] = self.sample_weight[batch.ids]
        return own if batch.weights is None else own * batch.weights


def _numbers(label: Any, number: dict[str, int]) -> int | list[int]:
    if isinstance(label, (list, tuple)):
        return [number[name] for name in label]
    return number[label]


# -- selection of rows -----------------------------------------------------------------


def _existing(frame: Any, root: str, x_col: str, extensions: tuple[str, ...]) -> Any:
    def exists(name: str) -> bool:
        return name.lower().endswith(extensions) and os.path.isfile(os.path.join(root, name))

    kept = np.array([exists(name) for name in frame[x_col]], bool)
    invalid = int((~kept).sum())
    if invalid:
        warn(
            f'Found {invalid} invalid image filename(s) in x_col="{x_col}". '
            "These filename(s) will be ignored.",
        )
    return frame[kept]


def _of_classes(frame: Any, y_col: Any, classes: Sequence[str] | None) -> tuple[Any, list[str]]:
    """The rows with a label of these classes, and the class names."""

    def keep(label: Any) -> Any:
        if isinstance(label, (list, tuple)):
            return [name for name in label if name in wanted] or None
        if isinstance(label, str):
            return label if label in wanted else None
        raise InvalidType(
            f"Expect string, list or tuple but found {type(label)} in {y_col} column "
        )

    if classes:
        wanted = dict.fromkeys(classes)
        frame = frame.copy()
        column = frame[y_col].astype(object)
        # Of this dtype: pandas else makes strings of pyarrow, which lack file names' odd bytes.
        kept = [keep(label) for label in column]
        frame[y_col] = type(column)(kept, index=column.index, dtype=object)
    else:
        found: set[str] = set()
        for label in frame[y_col]:
            found.update(label if isinstance(label, (list, tuple)) else [label])
        wanted = dict.fromkeys(sorted(found))
    return frame.dropna(subset=[y_col]), [*wanted]


# -- checks, with Keras's messages -----------------------------------------------------


def _check(
    frame: Any,
    mode: str | None,
    x_col: str,
    y_col: Any,
    weight_col: str | None,
    classes: Sequence[str] | None,
) -> None:
    if mode == "multi_output" and not isinstance(y_col, list):
        raise InvalidType(
            f'If class_mode="{mode}", y_col must be a list. Received {type(y_col).__name__}.'
        )
    _check_column(frame, "x_col", x_col)
    if mode not in ("input", None):
        _check_column(frame, "y_col", y_col)
    if weight_col:
        _check_column(frame, "weight_col", weight_col)
    if not _all(frame, x_col, str):
        raise InvalidType(f"All values in column x_col={x_col} must be strings.")
    if mode in ("binary", "sparse") and not _all(frame, y_col, str):
        raise InvalidType(f'If class_mode="{mode}", y_col="{y_col}" column values must be strings.')
    if mode == "binary":
        count = len(set(classes)) if classes else frame[y_col].nunique()
        if count != 2:
            found = f"{count} class/es were given." if classes else f"Found {count} classes."
            raise InvalidArgument(f'If class_mode="binary" there must be 2 classes. {found}')
    if mode == "categorical" and not _all(frame, y_col, (str, list, tuple)):
        raise InvalidType(
            f'If class_mode="{mode}", y_col="{y_col}" column values must be type string, '
            "list or tuple."
        )
    if classes and mode in _UNLABELLED:
        warn(f'`classes` will be ignored given the class_mode="{mode}"')
    if weight_col and not np.issubdtype(frame[weight_col].to_numpy().dtype, np.number):
        raise InvalidType(f"Column weight_col={weight_col} must be numeric.")


def _check_column(frame: Any, name: str, column: Any) -> None:
    """Checks that there is a column, or that there are all of a list of them."""
    try:
        frame[column]
    except KeyError as error:
        some = ", ".join(repr(one) for one in frame.columns[:_SHOWN])
        more = ", …" if len(frame.columns) > _SHOWN else ""
        raise NoSuchColumn(
            f"{name}={column!r} is no column of the table, which has: {some}{more}"
        ) from error


def _all(frame: Any, column: Any, types: Any) -> bool:
    return all(isinstance(value, types) for value in frame[column])
