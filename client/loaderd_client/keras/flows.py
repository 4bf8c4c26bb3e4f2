"""The generator's ways to batches of files: a directory, a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loaderd.spec.spec import Cache, ColorMode, Decode, Interpolation, OnError
from loaderd_client.keras.augmentation import Augmentation

if TYPE_CHECKING:
    from loaderd_client.keras.dataframe import DataFrameIterator
    from loaderd_client.keras.files import DirectoryIterator


class FileFlows(Augmentation):
    """Makes iterators over image files."""

    def flow_from_directory(
        self,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: Interpolation = "nearest",
        keep_aspect_ratio: bool = False,
        *,
        cache: Cache = "none",
        decode: Decode = "exact",
        on_error: OnError = "raise",
        substitute_weight: float | None = None,
        exif: bool = False,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
    ) -> DirectoryIterator:
        """Batches of the images below ``directory``, whose subfolders are the classes.

        Args:
            directory: the folder.
            target_size: (height, width) in pixels.
            color_mode: ``rgb``, ``rgba`` or ``grayscale``.
            classes: names of the subfolders in label order; None takes all, sorted.
            class_mode: ``categorical`` (one-hot), ``binary`` or ``sparse`` (a number),
                ``input`` (the images again), or None (no labels).
            batch_size: samples in a batch; the last of an epoch may be smaller.
            shuffle: a new order for every epoch.
            seed: decides order and augmentation; None picks one.
            save_to_dir: a folder in which the finished images are kept too.
            save_prefix: what their names begin with.
            save_format: ``png``, ``jpg``, …
            follow_links: whether symbolic links to folders are followed.
            subset: ``training`` or ``validation``, by ``validation_split``.
            interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``hamming``, ``box`` or
                ``lanczos``.
            keep_aspect_ratio: crops the centre instead of stretching.
            cache: where decoded images are kept, so that they are decoded once: ``none``,
                ``memory`` as long as the daemon lives, ``disk`` for ever; no value changes by it.
            decode: ``exact``, or ``scaled``, which decodes large JPEGs at a half, a quarter or an
                eighth of their size, and is faster, but not Keras's to the bit.
            on_error: what becomes of an image that cannot be read: ``raise`` an error,
                ``substitute`` another image of its class, or ``skip`` it, so that its batch is
                smaller.
            substitute_weight: the sample weight of substitutes, where all others have 1; batches
                are (images, labels, weights) then. None for no weights.
            exif: whether images are turned as their EXIF orientation says, which Keras does not.
            max_queue_size: batches that the daemon keeps ready.
            workers: accepted and not needed: the daemon has workers of its own (``loaderd serve
                --workers``), which run in parallel whatever this is.
            use_multiprocessing: likewise.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
            DatasetNotFound: the directory is missing (also a ``FileNotFoundError``).
            EmptyDataset: it holds no image.
            NoRoom: the ring does not fit in shared memory.
        """
        from loaderd_client.keras.files import DirectoryIterator

        del workers, use_multiprocessing
        return DirectoryIterator(
            directory,
            self,
            target_size=target_size,
            color_mode=color_mode,
            keep_aspect_ratio=keep_aspect_ratio,
            classes=classes,
            class_mode=class_mode,
            data_format=self.data_format,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            dtype=self.dtype,
            cache=cache,
            decode=decode,
            on_error=on_error,
            substitute_weight=substitute_weight,
            exif=exif,
            max_queue_size=max_queue_size,
        )

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | os.PathLike[str] | None = None,
        x_col: str = "filename",
        y_col: str | Sequence[str] = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: ColorMode = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: Interpolation = "nearest",
        validate_filenames: bool = True,
        *,
        keep_aspect_ratio: bool = False,
        cache: Cache = "none",
        decode: Decode = "exact",
        on_error: OnError = "raise",
        substitute_weight: float | None = None,
        exif: bool = False,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
        **kwargs: Any,
    ) -> DataFrameIterator:
        """Batches of the images that a pandas DataFrame names.

        Args:
            dataframe: one row for each image.
            directory: what relative file names begin at.
            x_col: the column with the file names.
            y_col: the column with the labels, or a list of columns.
            weight_col: the column with the sample weights.
            target_size: (height, width) in pixels.
            color_mode: ``rgb``, ``rgba`` or ``grayscale``.
            classes: names of the classes in label order; None takes all, sorted.
            class_mode: ``binary``, ``categorical`` (labels may be lists), ``sparse``,
                ``input``, ``multi_output``, ``raw`` or None.
            batch_size: samples in a batch; the last of an epoch may be smaller.
            shuffle: a new order for every epoch.
            seed: decides order and augmentation; None picks one.
            save_to_dir: a folder in which the finished images are kept too.
            save_prefix: what their names begin with.
            save_format: ``png``, ``jpg``, …
            subset: ``training`` or ``validation``, by ``validation_split``.
            interpolation: as for ``flow_from_directory``.
            validate_filenames: leaves out files that are not there or are no images.
            keep_aspect_ratio: crops the centre instead of stretching.
            cache: as for ``flow_from_directory``.
            decode: as for ``flow_from_directory``.
            on_error: as for ``flow_from_directory``; samples of several classes, ``raw`` and
                ``multi_output`` are of one class.
            substitute_weight: as for ``flow_from_directory``; multiplied with ``weight_col``.
            exif: as for ``flow_from_directory``.
            max_queue_size: batches that the daemon keeps ready.
            workers: accepted and not needed.
            use_multiprocessing: accepted and not needed.
            **kwargs: ``has_ext``, ``sort`` and ``drop_duplicates`` are passed over with a warning,
                any others without one, as by Keras.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
            InvalidType: a column holds what it must not (also a ``TypeError``).
            EmptyDataset: no image is left.
            NoRoom: the ring does not fit in shared memory.
        """
        from loaderd_client.keras.dataframe import DataFrameIterator, warn_deprecated

        del workers, use_multiprocessing
        class_mode = warn_deprecated(kwargs, class_mode)
        return DataFrameIterator(
            dataframe,
            directory,
            self,
            x_col=x_col,
            y_col=y_col,
            weight_col=weight_col,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            data_format=self.data_format,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            validate_filenames=validate_filenames,
            keep_aspect_ratio=keep_aspect_ratio,
            dtype=self.dtype,
            cache=cache,
            decode=decode,
            on_error=on_error,
            substitute_weight=substitute_weight,
            exif=exif,
            max_queue_size=max_queue_size,
        )
