"""Iterators over image files: the base class, and that of a directory.

Names, arguments, checks and messages follow ``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, get_args

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
from loaderd.spec.load import Load
from loaderd.spec.source import Arrays, Directory, Files
from loaderd.spec.spec import Spec
from loaderd_client.core import arguments, dtypes
from loaderd_client.core.batch import Batch
from loaderd_client.core.user_warnings import warn
from loaderd_client.keras import adapter
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.compile_spec import SAVED_FILES, load_of, stages_of
from loaderd_client.keras.iterators import EXTENSIONS, LoadedIterator
from loaderd_client.keras.loading import Loading

_LABEL_MODES: dict[str | None, LabelMode] = {
    "categorical": "categorical",
    "binary": "sparse",  # Keras gives both as one number for each sample
    "sparse": "sparse",
    "input": "input",
    None: "none",
}
NUMBERED = ("categorical", "binary", "sparse")
"""The class modes with class numbers."""


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
    _library_paths: ClassVar[tuple[Any, ...]]
    """The functions behind ``filepaths`` of the bases that are not the program's."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        cls._library_paths = _paths_of_library(cls)

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
        self.cache: Cache = arguments.one_of("cache", cache, get_args(Cache))
        self.decode: Decode = arguments.one_of("decode", decode, get_args(Decode))
        # Those below are checked together with attributes that may be set later.
        self.on_error, self.substitute_weight, self.exif = on_error, substitute_weight, exif

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

    def _label_mode(self) -> LabelMode:
        """The labels that workers make."""
        return _LABEL_MODES[arguments.plain(self.class_mode)]

    def _load_stage(self, loading: Loading) -> Load:
        self._check_colors()  # again, as the attributes may have been set since
        if not arguments.is_one_of(self.interpolation, get_args(Interpolation)):
            raise InvalidArgument(
                f"Invalid interpolation method {self.interpolation} specified. Supported methods "
                f"are {', '.join(get_args(Interpolation))}"
            )
        return load_of(
            self,
            self.target_size,
            color_mode=arguments.plain(self.color_mode),
            interpolation=arguments.plain(self.interpolation),
            aspect="crop" if self.keep_aspect_ratio else "stretch",
            decode=loading.decode,
            exif=loading.exif,
        )

    def _spec(self) -> tuple[Spec, Parts]:
        self._check_class_mode()
        loading = Loading.of(self).checked(labelled=self.class_mode is not None)
        load = self._load_stage(loading)
        transforms, output, parts = stages_of(self, SAVED_FILES, self._before)
        source, table = self._files()
        spec = Spec(
            source=source,
            load=load,
            transforms=transforms,
            output=output,
            batch=self._batch(self._label_mode(), loading.substitute_weight),
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
        """Whether the program may have changed the files, or overrides ``filepaths``."""
        if self._shown_paths is not None:
            return True
        return getattr(type(self).filepaths, "fget", None) not in self._library_paths

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
        if self.class_mode not in NUMBERED or (self._shown_classes is None and as_many):
            return super()._assembled(batch)
        ids = batch.ids.tolist()
        shown = [self.classes[one] for one in ids]
        labels = self._supply.manifest.labels if self._packed is None else self._packed.labels
        if as_many and shown == labels[ids].tolist():
            return super()._assembled(batch)
        return super()._assembled(batch._replace(labels=self._labelled(shown)))

    def _labelled(self, shown: list[Any]) -> NDArray[Any]:
        """Label rows of the given classes, as Keras makes them."""
        dtype = dtypes.numpy_dtype(self.dtype)
        if self.class_mode == "categorical":
            labels = np.zeros((len(shown), len(self.class_indices)), dtype)
            for row, label in enumerate(shown):
                labels[row, label] = 1.0
            return labels
        labels = np.empty(len(shown), dtype)
        for row, label in enumerate(shown):
            labels[row] = label
        return labels


def _paths_of_library(kind: type) -> tuple[Any, ...]:
    package = __name__.partition(".")[0] + "."
    library = [one for one in kind.__mro__ if one.__module__.startswith(package)]
    return tuple(getattr(getattr(one, "filepaths", None), "fget", None) for one in library)


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
            warn(
                'Using ".tiff" files with multiple bands will cause distortion. '
                "Please verify your output.",
            )
        print(f"Found {self.samples} images belonging to {self.num_classes} classes.")

    def _warn_missing(self, classes: Sequence[str]) -> None:
        """Warns of classes without images, often misspelt names; Keras does not."""
        counts = np.bincount(self._supply.manifest.labels, minlength=self.num_classes)
        missing = [name for name in classes if not counts[self.class_indices[name]]]
        if missing:
            warn(
                f"{os.fspath(self.directory)} has no images of {', '.join(map(repr, missing))}",
            )

    @property
    def sample_weight(self) -> None:
        """None: directories have no weights."""
        return None
