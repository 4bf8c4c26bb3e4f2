"""Iterators over image files: the base class, and that of a directory.

Names, arguments, checks and messages follow ``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.ipc import manifest
from loaderd.ipc.bundle import Parts
from loaderd.spec.base import (
    CHANNELS,
    Cache,
    ColorMode,
    DataFormat,
    Decode,
    Interpolation,
    LabelMode,
    OnError,
)
from loaderd.spec.source import Arrays, Directory, Files
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments
from loaderd_client.core.batch import Batch
from loaderd_client.keras import adapter
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.compile_spec import SAVED_FILES, ImageOptions, save_of, stages_of
from loaderd_client.keras.iterators import EXTENSIONS, LoadedIterator
from loaderd_client.keras.loading import Loading

_LABEL_MODES: dict[str | None, LabelMode] = {
    "categorical": "categorical",
    "binary": "sparse",  # Keras gives both as one number for each sample
    "sparse": "sparse",
    "input": "input",
    None: "none",
}


class FilesIterator(LoadedIterator):
    """The base of the iterators over files.

    Programs may replace the files and the labels of Keras's iterators, or change them in place. The
    lists are made on first access, before which they cannot be changed; after it every batch is
    compared with them.
    """

    allowed_class_modes: ClassVar[set[str | None]]
    class_mode: str | None
    _listed: Directory | None = None
    """The directory that the daemon lists; None if the iterator names the files."""
    _shown_names: Any = None
    _shown_paths: Any = None
    _shown_classes: Any = None
    _packed: FileTable | None = None
    """The files and labels that the workers have, if the shown ones may differ."""

    def set_loading(
        self,
        cache: Cache,
        decode: Decode,
        on_error: OnError = "raise",
        substitute_weight: float | None = None,
        exif: bool = False,
    ) -> None:
        """Sets the options for reading files; see ``ImageDataGenerator.flow_from_directory``.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
        """
        loading = Loading(cache, decode, on_error, substitute_weight, exif)
        loading.check()
        loading.set_on(self)

    def set_processing_attrs(
        self,
        image_data_generator: Augmentation | None,
        target_size: Sequence[int],
        color_mode: ColorMode,
        data_format: DataFormat,
        save_to_dir: Any,
        save_prefix: str,
        save_format: str,
        subset: str | None,
        interpolation: Interpolation,
        keep_aspect_ratio: bool,
    ) -> None:
        """Sets the image options; see ``ImageDataGenerator.flow_from_directory``.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
        """
        self.color_mode = color_mode
        self._check_colors()
        self.image_data_generator = image_data_generator
        self.target_size = arguments.size(target_size)
        self.data_format = data_format
        self.save_to_dir = save_to_dir
        self.save_prefix = save_prefix
        self.save_format = save_format
        self.interpolation = interpolation
        self.keep_aspect_ratio = keep_aspect_ratio
        self.split = _split_of(image_data_generator, subset)
        self.subset = subset

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image, in its data format."""
        height, width = arguments.size(self.target_size)
        channels = CHANNELS[arguments.plain(self.color_mode)]
        if self.data_format == "channels_first":
            return (channels, height, width)
        return (height, width, channels)

    @image_shape.setter
    def image_shape(self, value: Any) -> None:
        if tuple(value) != self.image_shape:
            raise InvalidArgument(
                f"image_shape is {self.image_shape}, as target_size, color_mode and data_format "
                f"say: set those, and not image_shape to {tuple(value)}"
            )

    def _check_colors(self) -> None:
        if not arguments.is_one_of(self.color_mode, get_args(ColorMode)):
            raise InvalidArgument(
                f'Invalid color mode: {self.color_mode}; expected "rgb", "rgba", or "grayscale".'
            )

    def _check_class_mode(self) -> None:
        if not arguments.is_one_of(self.class_mode, self.allowed_class_modes):
            raise InvalidArgument(
                f"Invalid class_mode: {self.class_mode}; "
                f"expected one of: {self.allowed_class_modes}"
            )

    def _image_options(self) -> ImageOptions:
        self._check_colors()  # again, as the attributes may have been set since
        self._check_class_mode()
        return ImageOptions(
            target_size=self.target_size,
            data_format=self.data_format,
            dtype=self.dtype,
            color_mode=self.color_mode,
            interpolation=self.interpolation,
            keep_aspect_ratio=self.keep_aspect_ratio,
            loading=Loading.of(self).checked(labelled=self.class_mode is not None),
            validation=self.subset == "validation",
            save=save_of(self.save_to_dir, self.save_prefix, self.save_format, SAVED_FILES),
        )

    def _files_spec(self, label_mode: LabelMode) -> tuple[Spec, Parts]:
        options = self._image_options()
        stages, parts = stages_of(self.image_data_generator, options, self._before)
        source, table = self._files()
        loading, batch = options.loading, self._batch(label_mode)
        spec = Spec(
            source=source,
            **stages._asdict(),
            batch=msgspec.structs.replace(batch, substitute_weight=loading.substitute_weight),
            order=self._order(),
            cache=loading.cache,
            on_error=loading.on_error,
        )
        return spec, {**parts, **table}

    # -- files and labels, which programs may change ---------------------------------

    def _files(self) -> tuple[Directory | Files | Arrays, Parts]:
        """The dataset as it was listed, or as its shown files."""
        if not self._is_open and self._listed is not None:
            return self._listed, {}
        if not self._shows_paths:
            return self._supply.spec.source, {"manifest": self._supply.parts["manifest"]}
        paths = list(self.filepaths)
        if self._packed is None or paths != self._packed.paths:
            self._packed = FileTable.of(paths, self._class_names(), self._labels(len(paths)))
        return self._packed.dataset, self._packed.part

    @property
    def _shows_paths(self) -> bool:
        """Whether the program may have changed the files."""
        return self._shown_paths is not None or self._overrides_property("filepaths")

    def _overrides_property(self, name: str) -> bool:
        found = getattr(type(self), name)
        ours = [getattr(getattr(one, name, None), "fget", None) for one in _library(type(self))]
        return getattr(found, "fget", None) not in ours

    def _class_names(self) -> Sequence[str]:
        return self._supply.manifest.class_names

    def _labels(self, count: int) -> NDArray[np.int32]:
        """The labels that workers write; changed ones are written in the trainer."""
        labels = self._supply.manifest.labels
        return labels if len(labels) == count else np.zeros(count, np.int32)

    def _total(self) -> int:
        return len(self.filepaths) if self._shows_paths else super()._total()

    @property
    def filenames(self) -> Any:
        """Every sample's path below ``directory``, in the order of ``classes``."""
        if self._shown_names is None:
            self._shown_names = self._supply.manifest.filenames()
        return self._shown_names

    @filenames.setter
    def filenames(self, value: Any) -> None:
        self._shown_names = value

    @property
    def _filepaths(self) -> Any:
        if self._shown_paths is None:
            folder = os.fsdecode(self.directory)
            names = self._supply.manifest.filenames()
            self._shown_paths = [os.path.join(folder, name) for name in names]
            table = self._supply.parts["manifest"]
            labels = self._supply.manifest.labels
            dataset = self._supply.spec.source
            self._packed = FileTable(list(self._shown_paths), labels, dataset, {"manifest": table})
        return self._shown_paths

    @_filepaths.setter
    def _filepaths(self, value: Any) -> None:
        _ = self._filepaths  # sets _packed: what the workers have
        self._shown_paths = value

    @property
    def filepaths(self) -> Any:
        """Every sample's file."""
        return self._filepaths

    @property
    def classes(self) -> Any:
        """The class of every sample, int32 (n,); changes take effect."""
        if self._shown_classes is None:
            self._shown_classes = np.array(self._supply.manifest.labels)
        return self._shown_classes

    @classes.setter
    def classes(self, value: Any) -> None:
        self._shown_classes = value

    def _is_as_shown(self, batch: Batch) -> bool:
        if not self._shows_paths:
            return True
        shown = self.filepaths
        if self._packed is None or len(shown) != len(self._packed.paths):
            return False
        known = self._packed.paths
        return all(shown[one] == known[one] for one in batch.ids.tolist())

    def _assembled(self, batch: Batch) -> Any:
        as_many = len(self.class_indices) == self.num_classes
        if self.class_mode not in _NUMBERED or (self._shown_classes is None and as_many):
            return super()._assembled(batch)
        ids = batch.ids.tolist()
        shown = [self.classes[one] for one in ids]
        labels = self._supply.manifest.labels if self._packed is None else self._packed.labels
        if as_many and shown == labels[ids].tolist():
            return super()._assembled(batch)
        return super()._assembled(batch._replace(labels=self._labelled(shown)))

    def _labelled(self, shown: list[Any]) -> NDArray[Any]:
        """Label rows of the given classes, as Keras makes them."""
        if self.class_mode == "categorical":
            labels = np.zeros((len(shown), len(self.class_indices)), self.dtype)
            for row, label in enumerate(shown):
                labels[row, label] = 1.0
            return labels
        labels = np.empty(len(shown), self.dtype)
        for row, label in enumerate(shown):
            labels[row] = label
        return labels


def _split_of(generator: Augmentation | None, subset: str | None) -> tuple[float, float] | None:
    """The range of a subset, as fractions (start, end) of the samples; None for all."""
    if subset is None:
        return None
    if not arguments.is_one_of(subset, ("training", "validation")):
        raise InvalidArgument(f'Invalid subset name: {subset};expected "training" or "validation"')
    split = getattr(generator, "_validation_split", 0.0)
    if subset == "training":
        return (split, 1.0)
    if not split:
        raise InvalidArgument(
            'subset="validation" needs `validation_split`: '
            "ImageDataGenerator(validation_split=0.2) keeps a fifth of each class"
        )
    return (0.0, split)


_NUMBERED = ("categorical", "binary", "sparse")


class FileTable(NamedTuple):
    """Files in the form that is sent to the workers.

    Attributes:
        paths: of all samples.
        labels: of all samples.
        dataset: the same for a spec.
        part: the same for a bundle.
    """

    paths: list[str]
    labels: NDArray[np.int32]
    dataset: Directory | Files | Arrays
    part: Parts

    @classmethod
    def of(cls, paths: list[str], names: Sequence[str], labels: NDArray[np.int32]) -> FileTable:
        """Packs paths and labels; ``names`` are those of the classes."""
        whole = [os.path.abspath(path) for path in paths]
        shown = os.path.commonpath([min(whole), max(whole)])
        table = manifest.pack("", names, [os.fsencode(path) for path in whole], labels)
        part = {"manifest": np.frombuffer(table, np.uint8)}
        return cls(paths, labels, Files(shown), part)


def _library(kind: type) -> list[type]:
    """The base classes of a class that belong to this package."""
    package = __name__.partition(".")[0] + "."
    return [one for one in kind.__mro__ if one.__module__.startswith(package)]


class DirectoryIterator(FilesIterator):
    """Batches of the images below a directory.

    Arguments and attributes are Keras's; see ``ImageDataGenerator.flow_from_directory``.
    """

    allowed_class_modes: ClassVar[set[str | None]] = set(_LABEL_MODES)

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_data_generator: Augmentation | None,
        target_size: Sequence[int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: DataFormat | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: Interpolation = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: Any = None,
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
        self.class_mode = class_mode
        self._check_class_mode()
        self.dtype = dtype or adapter.floatx()
        self.directory: Any = directory
        self._listed = Directory(
            directory=arguments.folder("directory", directory),
            extensions=EXTENSIONS,
            classes=arguments.names("classes", classes) or None,
            follow_links=arguments.flag("follow_links", follow_links),
            split_per_class=self.split,
        )
        self._load(batch_size, shuffle, seed, max_queue_size)
        self.directory = directory
        self._warn_missing(self._listed.classes or ())
        if self._supply.manifest.has_extension(b".tiff"):
            warnings.warn(
                'Using ".tiff" files with multiple bands will cause distortion. '
                "Please verify your output.",
                stacklevel=3,
            )
        print(f"Found {self.samples} images belonging to {self.num_classes} classes.")

    def _warn_missing(self, classes: Sequence[str]) -> None:
        """Warns of classes without images, often misspelt names; Keras does not."""
        counts = np.bincount(self._supply.manifest.labels, minlength=self.num_classes)
        missing = [name for name in classes if not counts[self.class_indices[name]]]
        if missing:
            warnings.warn(
                f"{os.fspath(self.directory)} has no images of {', '.join(map(repr, missing))}",
                stacklevel=4,
            )

    def _spec(self) -> tuple[Spec, Parts]:
        self._check_class_mode()
        return self._files_spec(_LABEL_MODES[arguments.plain(self.class_mode)])

    @property
    def labels(self) -> Any:
        """The same as ``classes``."""
        return self.classes

    @property
    def sample_weight(self) -> None:
        """None: directories have no weights."""
        return None
