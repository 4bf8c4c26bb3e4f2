"""What a client asks for: everything that decides what a stream's bytes are.

A spec is frozen and holds plain values only, so that it travels as JSON and is
checked (types and allowed values) wherever it is decoded. Two streams with equal
specs over equal files give equal bytes, whoever renders them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from loaderd.errors import InvalidArgument

ColorMode = Literal["rgb", "rgba", "grayscale"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"]
FillMode = Literal["nearest", "constant", "reflect", "wrap"]
DType = Literal["float32", "uint8"]
Compat = Literal["keras", "fixed"]
Aspect = Literal["stretch", "crop", "pad"]
LabelMode = Literal["categorical", "sparse", "int", "binary", "input", "none"]

CHANNELS: dict[ColorMode, int] = {"grayscale": 1, "rgb": 3, "rgba": 4}


class _Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of the parts of a spec."""


class Dataset(_Frozen, frozen=True):
    """Which files make up the dataset, and in which order they are numbered.

    Attributes:
        directory: the folder whose subfolders are the classes (absolute).
        extensions: endings of the lower-cased file name that count as images.
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
        labels: labels given by the user in file order, instead of the folders'.
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


class Pipeline(_Frozen, frozen=True):
    """How one file becomes finished pixels. Argument names and units are Keras's.

    Attributes:
        target_size: (height, width) in pixels.
        aspect: what happens to images of another aspect ratio: ``stretch`` them,
            ``crop`` the centre (Keras's ``keep_aspect_ratio``), or ``pad`` with black.
        rotation_range: degrees.
        width_shift_range: a fraction of the width if below 1, else pixels; an int or
            a list is a choice of whole pixels, as in Keras.
        height_shift_range: the same for the height.
        shear_range: degrees.
        zoom_range: (lower, upper) factors.
        cval: the grey level outside the image for ``fill_mode="constant"``.
        rescale: a factor applied last; None or 0 leaves the values.
        compat: ``keras`` keeps Keras's swapped shift axes and off-centre rotation of
            non-square images, ``fixed`` does what the names promise.
    """

    target_size: tuple[int, int]
    color_mode: ColorMode = "rgb"
    interpolation: Interpolation = "nearest"
    aspect: Aspect = "stretch"
    rotation_range: float = 0.0
    width_shift_range: int | float | tuple[float, ...] = 0.0
    height_shift_range: int | float | tuple[float, ...] = 0.0
    shear_range: float = 0.0
    zoom_range: tuple[float, float] = (1.0, 1.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    fill_mode: FillMode = "nearest"
    cval: float = 0.0
    rescale: float | None = None
    dtype: DType = "float32"
    compat: Compat = "keras"

    def __post_init__(self) -> None:
        """Raises InvalidArgument where the values cannot be rendered."""
        if min(self.target_size) < 1:
            raise InvalidArgument(f"target_size must be positive, got {self.target_size}")
        if self.dtype == "uint8" and self.rescale:
            raise InvalidArgument(
                "rescale makes fractions, which dtype='uint8' cannot hold: "
                "leave rescale out, or use dtype='float32'"
            )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one finished sample."""
        return (*self.target_size, CHANNELS[self.color_mode])


class Batch(_Frozen, frozen=True):
    """How samples are put together.

    Attributes:
        batch_size: samples in a batch; the last batch of an epoch may be smaller.
        label_mode: ``categorical`` one-hot rows, ``sparse`` one number each, both of
            the pipeline's dtype; ``int`` one int32 each; ``binary`` float32 of shape
            (batch, 1); ``input`` the images again; ``none`` no labels.
    """

    batch_size: int
    label_mode: LabelMode = "categorical"

    def __post_init__(self) -> None:
        """Raises InvalidArgument for an empty batch."""
        if self.batch_size < 1:
            raise InvalidArgument(f"batch_size must be at least 1, got {self.batch_size}")


class Order(_Frozen, frozen=True):
    """In which order the samples come, and what the random draws come from.

    Attributes:
        shuffle: a new order for every epoch, from (seed, epoch).
        seed: any whole number from 0; None lets the daemon pick one, and tell it.
    """

    shuffle: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a seed that the generators cannot take."""
        if self.seed is not None and not 0 <= self.seed < 2**63:
            raise InvalidArgument(f"seed must be between 0 and 2**63 - 1, got {self.seed}")


class Spec(_Frozen, frozen=True):
    """All of it."""

    dataset: Dataset
    pipeline: Pipeline
    batch: Batch
    order: Order


def encode(spec: Spec) -> bytes:
    """The spec as JSON.

    Raises:
        InvalidArgument: a name in it cannot be written as UTF-8.
    """
    try:
        return msgspec.json.encode(spec)
    except UnicodeEncodeError as error:
        raise InvalidArgument(
            f"the dataset's path or a class name is not UTF-8: {error.object!a}"
        ) from error


def decode(data: bytes) -> Spec:
    """The spec from JSON.

    Raises:
        InvalidArgument: a field is missing, unknown, of the wrong type or not allowed.
    """
    try:
        return msgspec.json.decode(data, type=Spec)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"the spec is not valid: {error}") from error
