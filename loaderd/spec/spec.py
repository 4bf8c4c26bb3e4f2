"""What a client asks for: everything that decides what a stream's bytes are.

A spec is frozen and holds plain values only, so that it travels as JSON and is
checked (types and allowed values) wherever it is decoded. What is too large for JSON, or
no plain value, travels beside it in a :mod:`bundle <loaderd.ipc.bundle>`. Two streams with
equal specs and bundles over equal files give equal bytes, whoever renders them.
"""

from __future__ import annotations

import json
from typing import Literal

import msgspec

from loaderd.errors import InvalidArgument

ColorMode = Literal["rgb", "rgba", "grayscale"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"]
FillMode = Literal["nearest", "constant", "reflect", "wrap"]
DType = Literal[
    "float16",
    "float32",
    "float64",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]
DataFormat = Literal["channels_last", "channels_first"]
Preprocessing = Literal["caffe", "tf", "torch"]
Draws = Literal["sample", "batch"]
Cache = Literal["none", "memory", "disk"]
Decode = Literal["exact", "scaled"]
Compat = Literal["keras", "fixed"]
Reading = Literal["load_img", "decode_image"]
OnError = Literal["raise", "substitute", "skip"]
Aspect = Literal["stretch", "crop", "pad"]
LabelMode = Literal["categorical", "sparse", "int", "binary", "input", "none"]

PILS_PIXELS = 178_956_970
"""Of a picture, beyond which PIL refuses it of its own accord."""

MOST_PIXELS = 2**40
"""What stands for no limit."""

CHANNELS: dict[ColorMode, int] = {"grayscale": 1, "rgb": 3, "rgba": 4}


class _Frozen(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of the parts of a spec."""


class Dataset(_Frozen, frozen=True, tag="directory"):
    """A directory: which files make up the dataset, and in which order they are numbered.

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


class Files(_Frozen, frozen=True, tag="files"):
    """Files that the client has listed itself: the bundle's ``manifest`` names them.

    Attributes:
        directory: where they lie, for people to read; the manifest decides.
    """

    directory: str = ""


class Arrays(_Frozen, frozen=True, tag="arrays"):
    """Images that the client has in memory: the bundle's ``images``, one a sample."""

    @property
    def directory(self) -> str:
        """What people read where a folder stands for other datasets."""
        return "(arrays)"


class Keras(_Frozen, frozen=True):
    """The trainer's Keras, for code of the user's that calls it.

    Attributes:
        floatx: the dtype that it computes in.
        data_format: where it looks for the channels.
        backend: what it computes with: ``tensorflow``, ``jax`` or ``torch``.
        legacy: whether it is Keras 2.
        itself: whether the code calls more of it, or of TensorFlow, than workers have functions
            of their own for: then they load it at once.
        preprocess: modules of ``keras.applications`` whose ``preprocess_input`` is known, and
            what that does: (module, arithmetic, data format).
    """

    floatx: str = "float32"
    data_format: DataFormat = "channels_last"
    backend: str = "tensorflow"
    legacy: bool = False
    itself: bool = False
    preprocess: tuple[tuple[str, Preprocessing | None, DataFormat], ...] = ()


class Function(_Frozen, frozen=True):
    """Code of the user's, which workers run on each image.

    Attributes:
        module: where the function is found by its name; empty if the bundle's
            ``function`` holds it as cloudpickle wrote it.
        name: the function's qualified name.
        file: of the module, if it belongs to no installed package.
        path: folders in which the trainer looks for modules.
        folder: the trainer's working directory, at which relative paths begin.
        python: version of the Python that pickled it, or its modules' state: ``(3, 11)``.
        keras: the trainer's Keras; None leaves it to the modules to load one.
    """

    module: str
    name: str
    file: str = ""
    path: tuple[str, ...] = ()
    folder: str = ""
    python: tuple[int, int] = (0, 0)
    keras: Keras | None = None


class Save(_Frozen, frozen=True):
    """Where finished samples are kept as pictures, for people to look at.

    Attributes:
        directory: an existing folder (absolute).
        prefix: what the names begin with.
        format: ending of the names, which is the pictures' format.
        most: Keras numbers the pictures at random, below this.
    """

    directory: str
    prefix: str
    format: str
    most: int


class Plugin(_Frozen, frozen=True):
    """A format that the trainer's PIL reads by a package that is none of PIL's own.

    Attributes:
        format: what the package calls it.
        module: where the two are found.
        factory: the qualified name of what opens an image.
        accept: that of what looks at a file's first bytes; empty for none.
    """

    format: str
    module: str
    factory: str
    accept: str = ""


class Pil(_Frozen, frozen=True, omit_defaults=True):
    """PIL's own switches as the trainer has set them, where they decide what is read and how.

    Attributes:
        max_pixels: of a picture, beyond which PIL refuses it: twice ``Image.MAX_IMAGE_PIXELS``.
        max_text_chunk: bytes, ``PngImagePlugin.MAX_TEXT_CHUNK``.
        max_text_memory: bytes, ``PngImagePlugin.MAX_TEXT_MEMORY``.
        gif_loading: ``GifImagePlugin.LOADING_STRATEGY``, as a number.
        bmp_alpha: ``BmpImagePlugin.USE_RAW_ALPHA``.
        libtiff: ``TiffImagePlugin.READ_LIBTIFF``.
        plugins: formats of other packages.
    """

    max_pixels: int = PILS_PIXELS
    max_text_chunk: int = 2**20
    max_text_memory: int = 2**26
    gif_loading: Literal[0, 1, 2] = 0
    bmp_alpha: bool = False
    libtiff: bool = False
    plugins: tuple[Plugin, ...] = ()

    def __post_init__(self) -> None:
        """Raises InvalidArgument for numbers that are none of pixels or bytes."""
        if not 0 <= self.max_pixels <= MOST_PIXELS:
            raise InvalidArgument(f"PIL's limit must be from 0 to {MOST_PIXELS} pixels")
        if min(self.max_text_chunk, self.max_text_memory) < 0:
            raise InvalidArgument("PIL's MAX_TEXT_CHUNK and MAX_TEXT_MEMORY must not be negative")


class Pipeline(_Frozen, frozen=True):
    """How one image becomes finished pixels. Argument names and units are Keras's.

    The bundle may hold ``mean``, ``std`` and ``zca`` (Keras's featurewise statistics and
    whitening matrix), which are applied if they are there.

    Attributes:
        target_size: (height, width) in pixels.
        channels: of images that come as arrays; None is what ``color_mode`` says.
        aspect: what happens to images of another aspect ratio: ``stretch`` them,
            ``crop`` the centre (Keras's ``keep_aspect_ratio``), or ``pad`` with black.
        truncated: whether pictures whose end is missing are taken, as with PIL's
            ``LOAD_TRUNCATED_IMAGES``.
        pil: the other switches of PIL.
        reading: which of Keras's two ways gives the pixels: ``load_img`` is PIL's, of
            ``ImageDataGenerator``. With ``decode_image``, TensorFlow's, of
            ``image_dataset_from_directory``, grey images of 16 bits keep their upper 8,
            transparent pixels of GIFs are black, and BMPs of 32 bits have an alpha channel.
        decode: ``exact``, or ``scaled``: JPEGs are decoded at 1/2, 1/4 or 1/8 of their
            size where that stays at least twice the target for antialiased filters, at
            least the target for ``nearest``.
        exif: whether pictures are turned as their EXIF orientation says. Keras turns none
            but TIFFs, which PIL turns as it loads them.
        rotation_range: degrees.
        width_shift_range: a fraction of the width if below 1, else pixels; an int or
            a list is a choice of whole pixels, as in Keras.
        height_shift_range: the same for the height.
        shear_range: degrees.
        zoom_range: (lower, upper) factors.
        brightness_range: (lower, upper) factors; None leaves the brightness.
        channel_shift_range: grey levels.
        cval: the grey level outside the image for ``fill_mode="constant"``.
        interpolation_order: of the spline that the warp interpolates with: 0 to 5.
        preprocessing: arithmetic of ``keras.applications``, before ``rescale``.
        preprocessing_format: where that looks for the channels.
        function: code of the user's, in the same place.
        rescale: a factor; None or 0 leaves the values.
        samplewise_center: takes each image's mean away.
        samplewise_std_normalization: divides each image by its standard deviation.
        compat: ``keras`` keeps Keras's swapped shift axes, its off-centre rotation of
            non-square images and 16 bit greys that saturate; ``fixed`` mends them.
        floatx: what Keras computes in: ``keras.config.floatx()``.
        dtype: of the batch.
        save: keeps every finished image as a file as well.
    """

    target_size: tuple[int, int]
    color_mode: ColorMode = "rgb"
    channels: int | None = None
    data_format: DataFormat = "channels_last"
    interpolation: Interpolation = "nearest"
    aspect: Aspect = "stretch"
    truncated: bool = False
    pil: Pil = Pil()
    reading: Reading = "load_img"
    decode: Decode = "exact"
    exif: bool = False
    rotation_range: float = 0.0
    width_shift_range: int | float | tuple[float, ...] = 0.0
    height_shift_range: int | float | tuple[float, ...] = 0.0
    shear_range: float = 0.0
    zoom_range: tuple[float, float] = (1.0, 1.0)
    horizontal_flip: bool = False
    vertical_flip: bool = False
    brightness_range: tuple[float, float] | None = None
    channel_shift_range: float = 0.0
    fill_mode: FillMode = "nearest"
    cval: float = 0.0
    interpolation_order: int = 1
    preprocessing: Preprocessing | None = None
    preprocessing_format: DataFormat = "channels_last"
    function: Function | None = None
    rescale: float | None = None
    samplewise_center: bool = False
    samplewise_std_normalization: bool = False
    compat: Compat = "keras"
    floatx: DType = "float32"
    dtype: DType = "float32"
    save: Save | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument where the values cannot be rendered."""
        if min(*self.target_size, self.channels or 1) < 1:
            raise InvalidArgument(f"target_size must be positive, got {self.target_size}")
        if not 0 <= self.interpolation_order <= 5:
            raise InvalidArgument(
                f"interpolation_order must be from 0 to 5, got {self.interpolation_order}"
            )

    @property
    def array_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one sample, whatever the data format."""
        return (*self.target_size, self.channels or CHANNELS[self.color_mode])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """The shape of one finished sample in its data format."""
        height, width, channels = self.array_shape
        if self.data_format == "channels_first":
            return (channels, height, width)
        return (height, width, channels)

    @property
    def is_random(self) -> bool:
        """Whether any parameter of a sample is drawn."""
        return bool(
            self.rotation_range
            or self.height_shift_range
            or self.width_shift_range
            or self.shear_range
            or tuple(self.zoom_range) != (1, 1)
            or self.horizontal_flip
            or self.vertical_flip
            or self.channel_shift_range
            or self.brightness_range
        )


class Batch(_Frozen, frozen=True):
    """How samples are put together.

    Attributes:
        batch_size: samples in a batch; the last batch of an epoch may be smaller.
        label_mode: ``categorical`` one-hot rows, ``sparse`` one number each, both of
            the pipeline's dtype; ``int`` one int32 each; ``binary`` float32 of shape
            (batch, 1); ``input`` the images again; ``none`` no labels.
        substitute_weight: the sample weight of a substitute for a bad image, where all
            others have 1; None for batches without weights.
    """

    batch_size: int
    label_mode: LabelMode = "categorical"
    substitute_weight: float | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument for an empty batch."""
        if self.batch_size < 1:
            raise InvalidArgument(f"batch_size must be at least 1, got {self.batch_size}")


class Order(_Frozen, frozen=True):
    """In which order the samples come, and what the random draws come from.

    Attributes:
        shuffle: a new order for every epoch.
        seed: any whole number from 0; None lets the daemon pick one, and tell it.
        draws: ``sample``: an epoch's order is drawn from (seed, epoch), a sample's
            parameters from (seed, epoch, sample). ``batch``: both as Keras's iterators
            draw them, batch number k of the stream from seed + k; seeds are below 2**32.
        given: whether every epoch has the order of the bundle's ``order``: sample numbers, of
            which some may be missing or come several times.
        count: samples of which an epoch consists: the first so many; None for all.
    """

    shuffle: bool = True
    seed: int | None = None
    draws: Draws = "sample"
    given: bool = False
    count: int | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument for a seed that the generators cannot take."""
        bits = 32 if self.draws == "batch" else 63
        if self.seed is not None and not 0 <= self.seed < 2**bits:
            raise InvalidArgument(f"seed must be between 0 and 2**{bits} - 1, got {self.seed}")
        if self.count is not None and self.count < 1:
            raise InvalidArgument(f"an epoch must have at least 1 sample, got {self.count}")


class Spec(_Frozen, frozen=True):
    """All of it.

    Attributes:
        dataset: which samples there are.
        pipeline: how they are rendered.
        batch: how they are put together.
        order: in which order, and with which draws.
        cache: where decoded images are kept, before they are augmented; it changes no byte.
        on_error: what becomes of an image that cannot be read: ``raise`` tells the trainer,
            ``substitute`` takes another of its class, drawn from (seed, epoch, sample),
            ``skip`` leaves its row out of the batch.
        survey: whether images that this installation cannot decode are passed over like bad ones,
            by whoever wants to hear of them all; others get the error.
    """

    dataset: Dataset | Files | Arrays
    pipeline: Pipeline
    batch: Batch
    order: Order
    cache: Cache = "none"
    on_error: OnError = "raise"
    survey: bool = False


def encode(spec: Spec) -> bytes:
    """The spec as JSON. Names that are no UTF-8 are in it as Python has them, by surrogates."""
    try:
        return msgspec.json.encode(spec)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(spec)).encode("ascii")


def decode(data: bytes) -> Spec:
    """The spec from JSON.

    Raises:
        InvalidArgument: a field is missing, unknown, of the wrong type or not allowed.
    """
    try:
        if _SURROGATE in data:
            return msgspec.convert(json.loads(data, parse_constant=_no_number), Spec)
        return msgspec.json.decode(data, type=Spec)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the spec is not valid: {error}") from error


def _no_number(_: str) -> None:
    """NaN and the infinities, which are no JSON: null, as msgspec writes them."""


_SURROGATE = b"\\ud"
"""What the slow way alone writes: msgspec escapes nothing but controls, and has no surrogates."""


def unseeded(spec: Spec) -> Spec:
    """The same for all seeds."""
    return msgspec.structs.replace(spec, order=msgspec.structs.replace(spec.order, seed=None))


def for_workers(spec: Spec) -> Spec:
    """What a worker must know: the manifest that goes along says which files there are."""
    return msgspec.structs.replace(spec, dataset=Files())
