"""The generator's flows from files: of a directory, of a DataFrame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loaderd.spec.base import Cache, ColorMode, Decode, Interpolation, OnError
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
        """Makes batches of the images below ``directory``, whose subfolders are the classes.

        Args:
            directory: folder with one subfolder for each class; the daemon reads it at the same
                path.
            target_size: (height, width) in pixels.
            color_mode: ``rgb``, ``rgba`` or ``grayscale``.
            classes: names of the subfolders in label order; None takes all, sorted.
            class_mode: ``categorical`` (one-hot), ``binary`` or ``sparse`` (a number), ``input``
                (the images again), or None (no labels).
            batch_size: samples in a batch; the last batch of an epoch may have fewer.
            shuffle: whether every epoch has a new order.
            seed: whole number from 0 to 2³² - 1 that decides order and augmentation; None picks one
                from NumPy's global generator, which the iterator's ``seed`` then shows.
            save_to_dir: existing folder in which every finished image is also saved as a picture;
                batches are then made when they are asked for, and not ahead.
            save_prefix: what the pictures' names begin with.
            save_format: file extension of the pictures: ``png``, ``jpg``, ….
            follow_links: whether symbolic links to folders are followed.
            subset: ``"training"`` or ``"validation"``, split by ``validation_split``; None takes
                all.
            interpolation: ``nearest``, ``bilinear``, ``bicubic``, ``hamming``, ``box`` or
                ``lanczos``.
            keep_aspect_ratio: whether pictures are cropped to the target's shape, about their
                centre, instead of stretched.
            cache: where decoded images are kept, so that each is decoded once: ``"none"``,
                ``"memory"`` (of the daemon, until it ends) or ``"disk"`` (until it is removed).
                Changes no byte of a batch.
            decode: ``"exact"``, or ``"scaled"``: decodes large JPEGs at a half, a quarter or an
                eighth of their size, which is faster and does not give Keras's pixels.
            on_error: what happens to an image that cannot be read: ``"raise"`` raises ``BadImage``
                for its batch, ``"substitute"`` takes another image of its class, ``"skip"`` leaves
                the row out, so that the batch is smaller.
            substitute_weight: sample weight of substitutes, 0 or more, where all other samples
                weigh 1; batches are then (images, labels, weights), with float32 weights. Needs
                ``on_error="substitute"`` and labels. None makes no weights.
            exif: whether pictures are turned as their EXIF orientation says; Keras turns TIFFs
                only.
            max_queue_size: batches that the daemon keeps ready.
            workers: accepted for old programs, without effect: the daemon's workers run in parallel
                anyway (``loaderd serve --workers`` sets their number).
            use_multiprocessing: accepted for old programs, without effect.

        Returns:
            An iterator over (images, labels), or images alone for ``class_mode=None``. Images are
            of shape (rows, height, width, channels), or as ``data_format`` says, and of the
            generator's dtype; labels are float32.

        Raises:
            InvalidArgument: a value is not allowed (also a ``ValueError``).
            DatasetNotFound: the directory is missing or cannot be read (also a
                ``FileNotFoundError``).
            EmptyDataset: it holds no image (also a ``ValueError``).
            NoRoom: the ring does not fit in shared memory (also a ``MemoryError``).
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
        """Makes batches of the images that a pandas DataFrame names.

        Args:
            dataframe: one row for each image.
            directory: folder that relative file names begin at; None is the working directory.
            x_col: column with the file names.
            y_col: column with the labels, or a list of columns.
            weight_col: column with the sample weights; they are multiplied by ``substitute_weight``
                where it applies. None for no weights.
            target_size: (height, width) in pixels.
            color_mode: ``rgb``, ``rgba`` or ``grayscale``.
            classes: names of the classes in label order; rows of other classes are left out. None
                takes all, sorted.
            class_mode: ``categorical`` (labels are texts, or lists of them), ``binary`` or
                ``sparse`` (texts), ``input`` (the images again), ``raw`` (the values of the column
                or columns; ``other`` is Keras's deprecated name for it), ``multi_output`` (a list
                of columns), or None (no labels).
            batch_size: samples in a batch; the last batch of an epoch may have fewer.
            shuffle: whether every epoch has a new order.
            seed: as for ``flow_from_directory``.
            save_to_dir: as for ``flow_from_directory``.
            save_prefix: what the pictures' names begin with.
            save_format: file extension of the pictures: ``png``, ``jpg``, ….
            subset: as for ``flow_from_directory``.
            interpolation: as for ``flow_from_directory``.
            validate_filenames: whether rows are left out, with a warning, whose file does not exist
                or has no image's file extension.
            keep_aspect_ratio: as for ``flow_from_directory``; keyword-only.
            cache: as for ``flow_from_directory``.
            decode: as for ``flow_from_directory``.
            on_error: as for ``flow_from_directory``; with ``class_mode`` ``raw`` and
                ``multi_output`` any image may be a substitute.
            substitute_weight: as for ``flow_from_directory``.
            exif: as for ``flow_from_directory``.
            max_queue_size: batches that the daemon keeps ready.
            workers: accepted for old programs, without effect.
            use_multiprocessing: the same.
            **kwargs: Keras's deprecated ``has_ext``, ``sort`` and ``drop_duplicates`` are ignored
                with Keras's warnings, any others without one, as by Keras.

        Returns:
            An iterator, as for ``flow_from_directory``; with weights where ``weight_col`` or
            ``substitute_weight`` is given.

        Raises:
            InvalidArgument: a value is not allowed (also a ``ValueError``).
            InvalidType: a column holds values of a type that is not allowed (also a ``TypeError``).
            EmptyDataset: no image is left (also a ``ValueError``).
            NoRoom: the ring does not fit in shared memory (also a ``MemoryError``).
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
