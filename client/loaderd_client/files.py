"""Iterators over image files: those of a directory.

Names, arguments, checks and words follow ``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, get_args

import msgspec
import numpy as np

from loaderd.errors import InvalidArgument
from loaderd.wire import spec as specs
from loaderd.wire.bundle import Parts
from loaderd.wire.spec import (
    Cache,
    ColorMode,
    DataFormat,
    Dataset,
    Decode,
    Interpolation,
    LabelMode,
    OnError,
    Pipeline,
    Spec,
)
from loaderd_client import arguments, bases
from loaderd_client.iterators import EXTENSIONS, LoadedIterator
from loaderd_client.translate import SAVED_FILES, Pictures, pipeline_of, save_of

if TYPE_CHECKING:
    from loaderd_client.generator import ImageDataGenerator

_LABEL_MODES: dict[str | None, LabelMode] = {
    "categorical": "categorical",
    "binary": "sparse",  # Keras gives both as one number for each sample
    "sparse": "sparse",
    "input": "input",
    None: "none",
}


class FilesIterator(LoadedIterator):
    """What the iterators over files have in common."""

    _dataset: specs.Dataset | specs.Files
    allowed_class_modes: ClassVar[set[str | None]]
    class_mode: str | None

    def set_loading(
        self,
        cache: Cache,
        decode: Decode,
        on_error: OnError = "raise",
        substitute_weight: float | None = None,
        exif: bool = False,
    ) -> None:
        """Sets how the daemon reads files; see ``ImageDataGenerator.flow_from_directory``.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
        """
        self.cache: Cache = cache
        self.decode: Decode = decode
        self._check_loading()
        self.on_error: OnError = on_error
        self.substitute_weight = substitute_weight
        self.exif = exif

    def set_processing_attrs(
        self,
        image_data_generator: ImageDataGenerator | None,
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
        """Sets how files become images; see ``ImageDataGenerator.flow_from_directory``.

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
        self.split = self._split_of(subset)
        self.subset = subset

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one image, in its data format."""
        height, width = arguments.size(self.target_size)
        channels = specs.CHANNELS[arguments.plain(self.color_mode)]
        if self.data_format == "channels_first":
            return (channels, height, width)
        return (height, width, channels)

    def _check_loading(self) -> None:
        arguments.one_of("cache", self.cache, get_args(Cache))
        arguments.one_of("decode", self.decode, get_args(Decode))

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

    def _split_of(self, subset: str | None) -> tuple[float, float] | None:
        if subset is None:
            return None
        if not arguments.is_one_of(subset, ("training", "validation")):
            raise InvalidArgument(
                f'Invalid subset name: {subset};expected "training" or "validation"'
            )
        split = getattr(self.image_data_generator, "_validation_split", 0.0)
        if subset == "training":
            return (split, 1.0)
        if not split:
            raise InvalidArgument(
                'subset="validation" needs `validation_split`: '
                "ImageDataGenerator(validation_split=0.2) keeps a fifth of each class"
            )
        return (0.0, split)

    def _pictures(self) -> Pictures:
        self._check_loading()  # again, as the attributes may have been set since
        self._check_colors()
        self._check_class_mode()
        return Pictures(
            target_size=self.target_size,
            data_format=self.data_format,
            dtype=self.dtype,
            color_mode=self.color_mode,
            interpolation=self.interpolation,
            keep_aspect_ratio=self.keep_aspect_ratio,
            decode=self.decode,
            exif=arguments.flag("exif", self.exif),
            validation=self.subset == "validation",
            save=save_of(self.save_to_dir, self.save_prefix, self.save_format, SAVED_FILES),
        )

    def _files_spec(self, pipeline: Pipeline, label_mode: LabelMode) -> Spec:
        labelled = self.class_mode is not None
        weight = arguments.substitute_weight(self.on_error, self.substitute_weight, labelled)
        return Spec(
            dataset=self._dataset,
            pipeline=pipeline,
            batch=msgspec.structs.replace(self._batch(label_mode), substitute_weight=weight),
            order=self._order(),
            cache=arguments.one_of("cache", self.cache, get_args(Cache)),
            on_error=arguments.one_of("on_error", self.on_error, get_args(OnError)),
        )


class DirectoryIterator(FilesIterator):
    """Batches of the images below a directory.

    Arguments and attributes are Keras's; see ``ImageDataGenerator.flow_from_directory``.
    """

    allowed_class_modes: ClassVar[set[str | None]] = set(_LABEL_MODES)

    def __init__(
        self,
        directory: str | os.PathLike[str],
        image_data_generator: ImageDataGenerator | None,
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
            data_format or bases.image_data_format(),
            save_to_dir,
            save_prefix,
            save_format,
            subset,
            interpolation,
            keep_aspect_ratio,
        )
        self.class_mode = class_mode
        self._check_class_mode()
        self.dtype = dtype or bases.floatx()
        self._dataset = Dataset(
            directory=arguments.folder("directory", directory),
            extensions=EXTENSIONS,
            classes=arguments.names("classes", classes) or None,
            follow_links=arguments.flag("follow_links", follow_links),
            split_per_class=self.split,
        )
        self._load(batch_size, shuffle, seed, max_queue_size)
        self.directory = directory
        self._warn_missing(self._dataset.classes or ())
        if self._stream.manifest.has_ending(b".tiff"):
            warnings.warn(
                'Using ".tiff" files with multiple bands will cause distortion. '
                "Please verify your output.",
                stacklevel=3,
            )
        print(f"Found {self.samples} images belonging to {self.num_classes} classes.")

    def _warn_missing(self, classes: Sequence[str]) -> None:
        """Keras trains without them and says nothing; most often a name is misspelt."""
        counts = np.bincount(self.classes, minlength=self.num_classes)
        missing = [name for name in classes if not counts[self.class_indices[name]]]
        if missing:
            warnings.warn(
                f"{os.fspath(self.directory)} has no images of {', '.join(map(repr, missing))}",
                stacklevel=4,
            )

    def _spec(self) -> tuple[Spec, Parts]:
        pipeline, parts = pipeline_of(self.image_data_generator, self._pictures(), self._before)
        return self._files_spec(pipeline, _LABEL_MODES[arguments.plain(self.class_mode)]), parts

    @property
    def sample_weight(self) -> None:
        """None: directories have no weights."""
        return None
