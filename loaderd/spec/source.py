"""The part of a spec that selects the samples."""

from __future__ import annotations

import re
from typing import Literal

from loaderd.errors import InvalidArgument
from loaderd.spec.base import Frozen


class Directory(Frozen, frozen=True, tag="directory"):
    """A directory: the files of the dataset, and their numbering.

    Attributes:
        directory: the folder whose subfolders are the classes (absolute).
        extensions: file extensions of images, compared in lower case.
        classes: class names (subfolders) in label order; None takes all subfolders,
            sorted.
        hidden: whether subfolders that begin with a dot are classes too.
        flat: the folder itself is the only class, whatever subfolders it has.
        follow_links: whether symbolic links to folders are followed.
        split_per_class: fractions (start, stop) of each class's files that are kept,
            by Keras's ``ImageDataGenerator`` rule: ``files[int(start*n):int(stop*n)]``.
        shuffle_seed: shuffles the whole list with ``RandomState(seed)`` before
            ``split_overall``, as Keras's ``index_directory`` does.
        split_overall: ``(fraction, subset)``: Keras's ``validation_split`` rule of
            ``image_dataset_from_directory``.
        labels: the user's labels in file order, instead of the folders'.
    """

    directory: str
    extensions: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    hidden: bool = True
    flat: bool = False
    follow_links: bool = False
    split_per_class: tuple[float, float] | None = None
    shuffle_seed: int | None = None
    split_overall: tuple[float, Literal["training", "validation"]] | None = None
    labels: tuple[int, ...] | None = None


Layout = Literal["auto", "webdataset", "folders", "parquet", "tfrecord", "mds"]
"""How an archive holds samples."""

_LABEL = re.compile(r"auto|cls|txt|json(:.+)?", re.DOTALL)


def check_label(label: str | None) -> None:
    """Raises InvalidArgument for a label that no archive of tar or zip can have."""
    if label is not None and not _LABEL.fullmatch(label):
        raise InvalidArgument(
            'of tar and zip archives, `label` should be "auto", "cls", "txt", "json", '
            f'"json:FIELD", or None. Received: label={label!r}'
        )


class Archives(Directory, frozen=True, tag="archives"):
    """Members of tar and zip archives, or rows of files, numbered as the files of a directory are.

    ``directory`` is for display, and ``extensions`` are those of the members that are images.

    Attributes:
        paths: of the archives (absolute), in the order of their samples.
        layout: ``webdataset``: members with one key, the name up to its first dot, are a sample;
            ``folders``: class folders; the name of another format: its rows or records; ``auto``:
            what is found.
        label: for ``webdataset``, the extension of the members with the labels, with ``:FIELD``
            behind ``json``; for rows, their column; ``auto`` takes what is found, None reads none.
        columns: those that may hold the images of rows; empty for the usual ones.
        folder: for ``folders``, the one that holds the class folders; empty if they are at the top.
        masks: for ``webdataset``, extensions of the members that are masks, of which each image has
            one; empty for no masks.
    """

    paths: tuple[str, ...] = ()
    layout: Layout = "auto"
    label: str | None = "auto"
    columns: tuple[str, ...] = ()
    folder: str = ""
    masks: tuple[str, ...] = ()


class Rows(Directory, frozen=True, tag="rows"):
    """Rows that the client has listed, in the bundle's ``listing``.

    ``directory`` and ``extensions`` are for display.
    """


class Download(Frozen, frozen=True):
    """Where the bytes that were read from an object store are kept.

    Attributes:
        folder: of the files (absolute).
        limit: bytes of all of them; None for half of what is free.
    """

    folder: str
    limit: int | None = None


class Files(Frozen, frozen=True, tag="files"):
    """Files that the client has listed, in the bundle's ``manifest``.

    Attributes:
        directory: of the files, for display only.
    """

    directory: str = ""


class Arrays(Frozen, frozen=True, tag="arrays"):
    """Images in the client's memory: the bundle's ``images``, one per sample."""

    @property
    def directory(self) -> str:
        """The text displayed in place of a folder."""
        return "(arrays)"
