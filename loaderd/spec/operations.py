"""Operations on one loaded image: frozen values, which a spec lists in the order of application.

Their implementations are in :mod:`loaderd.render.transforms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from loaderd.errors import InvalidArgument
from loaderd.spec.base import (
    Compat,
    DataFormat,
    FillMode,
    Frozen,
    Precision,
    Preprocessing,
    Statistic,
)

GivenAs = Literal["preprocessing_function", "A.Function"]
"""What a user gives a function as: that of ``ImageDataGenerator``, or in a list of operations."""


class RandomAffine(Frozen, frozen=True, tag="random_affine"):
    """Random rotation, shift, shear and zoom, as one warp. Names and units are Keras's.

    Attributes:
        rotation_range: degrees.
        width_shift_range: a fraction of the width if below 1, else pixels; an int or
            a list is a choice of whole pixels, as in Keras.
        height_shift_range: the same for the height.
        shear_range: degrees.
        zoom_range: (lower, upper) factors.
        fill_mode: how to fill points outside the image.
        cval: the grey level there for ``fill_mode="constant"``.
        interpolation_order: of the spline that the warp interpolates with: 0 to 5.
        compat: ``keras`` keeps Keras's swapped shift axes and its off-centre rotation of
            images that are not square; ``fixed`` fixes both.
        precision: ``exact`` gives scipy's values to the last bit; ``fast`` interpolates in
            float32, within 0.01 grey levels of that.
    """

    rotation_range: float = 0.0
    width_shift_range: int | float | tuple[float, ...] = 0.0
    height_shift_range: int | float | tuple[float, ...] = 0.0
    shear_range: float = 0.0
    zoom_range: tuple[float, float] = (1.0, 1.0)
    fill_mode: FillMode = "nearest"
    cval: float = 0.0
    interpolation_order: int = 1
    compat: Compat = "keras"
    precision: Precision = "exact"

    def __post_init__(self) -> None:
        """Raises InvalidArgument for an unsupported spline order."""
        if not 0 <= self.interpolation_order <= 5:
            raise InvalidArgument(
                f"interpolation_order must be from 0 to 5, got {self.interpolation_order}"
            )

    @property
    def moves(self) -> bool:
        """Whether it changes any image."""
        return bool(
            self.rotation_range
            or self.height_shift_range
            or self.width_shift_range
            or self.shear_range
            or tuple(self.zoom_range) != (1, 1)
        )


class RandomChannelShift(Frozen, frozen=True, tag="random_channel_shift"):
    """Adds a random number of grey levels, clipped to the image's own range.

    Attributes:
        channel_shift_range: the largest number, either way.
    """

    channel_shift_range: float


class GeneratorFlip(Frozen, frozen=True, tag="random_flip"):
    """Mirrors each image with probability 1/2.

    Attributes:
        horizontal: left to right.
        vertical: upside down.
    """

    horizontal: bool = False
    vertical: bool = False


class GeneratorBrightness(Frozen, frozen=True, tag="random_brightness"):
    """Multiplies the brightness by a random factor.

    Attributes:
        brightness_range: (lower, upper) factors.
    """

    brightness_range: tuple[float, float]


class ImagenetPreprocessing(Frozen, frozen=True, tag="imagenet_preprocessing"):
    """The arithmetic of ``keras.applications.*.preprocess_input``.

    Attributes:
        mode: ``caffe``, ``tf`` or ``torch``.
        data_format: that it assumes.
    """

    mode: Preprocessing
    data_format: DataFormat = "channels_last"


class Keras(Frozen, frozen=True):
    """The settings of the trainer's Keras, for user code that calls it.

    Attributes:
        floatx: the dtype that it computes in.
        data_format: its default.
        backend: ``tensorflow``, ``jax`` or ``torch``.
        legacy: whether it is Keras 2.
        itself: whether the code calls functions of it, or of TensorFlow, that workers do not
            replace: then they import it at once.
        preprocess: modules of ``keras.applications`` whose ``preprocess_input`` workers replace:
            (module, arithmetic, data format).
    """

    floatx: str = "float32"
    data_format: DataFormat = "channels_last"
    backend: str = "tensorflow"
    legacy: bool = False
    itself: bool = False
    preprocess: tuple[tuple[str, Preprocessing | None, DataFormat], ...] = ()


class NamedFunction(Frozen, frozen=True):
    """Where workers find one function of the user's.

    Attributes:
        module: that holds the function; empty if it is pickled by value in the bundle's
            ``function``.
        name: the function's qualified name.
        file: of the module, if it belongs to no installed package.
    """

    module: str
    name: str
    file: str = ""


class UserCode(Frozen, frozen=True, tag="function"):
    """A function of the user's, which workers apply to each image; or those of a list.

    Attributes:
        functions: where they are, at least one.
        path: folders of the trainer's module search path.
        folder: the trainer's working directory, for relative paths.
        python: version of the Python that pickled them, or their modules' state: ``(3, 11)``.
        keras: the trainer's Keras; None for no stand-ins.
        given_as: what the user gave them as.
    """

    functions: tuple[NamedFunction, ...]
    path: tuple[str, ...] = ()
    folder: str = ""
    python: tuple[int, int] = (0, 0)
    keras: Keras | None = None
    given_as: GivenAs = "preprocessing_function"

    def __post_init__(self) -> None:
        """Raises InvalidArgument if there is no function."""
        if not self.functions:
            raise InvalidArgument("`functions` must hold at least one")

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return labelled(self.given_as, [one.name for one in self.functions])


def labelled(given_as: GivenAs, names: Sequence[str]) -> str:
    """What functions of these names are called in messages."""
    return f"{given_as} {', '.join(names)}"


class GeneratorRescaling(Frozen, frozen=True, tag="rescaling"):
    """Multiplies all values.

    Attributes:
        scale: the factor.
    """

    scale: float


class SamplewiseNormalization(Frozen, frozen=True, tag="samplewise_normalization"):
    """Normalizes each image by itself.

    Attributes:
        center: subtracts the mean of its values.
        std_normalization: divides by their standard deviation.
    """

    center: bool = False
    std_normalization: bool = False


class FeaturewiseNormalization(Frozen, frozen=True, tag="featurewise_normalization"):
    """Normalizes by statistics of the dataset, from the bundle.

    Attributes:
        statistics: ``mean`` is subtracted, ``std`` divides, ``zca`` whitens.
    """

    statistics: tuple[Statistic, ...]


Random = RandomAffine | RandomChannelShift | GeneratorFlip | GeneratorBrightness
"""The operations with parameters that are drawn for each sample."""

Normalization = GeneratorRescaling | SamplewiseNormalization | FeaturewiseNormalization
Operation = Random | ImagenetPreprocessing | UserCode | Normalization
