"""Translates a generator's attributes into the stages of a spec, and the arrays of its bundle."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.spec.base import (
    ColorMode,
    Compat,
    DataFormat,
    FillMode,
    Interpolation,
    Statistic,
)
from loaderd.spec.load import Load
from loaderd.spec.operations import (
    FeaturewiseNormalization,
    Operation,
    RandomAffine,
    RandomBrightness,
    RandomChannelShift,
    RandomFlip,
    Rescaling,
    SamplewiseNormalization,
)
from loaderd.spec.output import Output, Save
from loaderd_client.core import arguments
from loaderd_client.keras import adapter, functions
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.loading import Loading
from loaderd_client.keras.pil_settings import pils_switches, takes_truncated

Arrays = dict[str, NDArray[Any]]

SAVED_FILES = 10**7
SAVED_ARRAYS = 10**4
"""Keras numbers saved pictures at random, below these limits."""

_STATISTICS: tuple[tuple[str, str, Statistic], ...] = (
    ("featurewise_center", "mean", "mean"),
    ("featurewise_std_normalization", "std", "std"),
    ("zca_whitening", "zca_whitening_matrix", "zca"),
)


_LOADING = Loading()


@dataclass(frozen=True)
class ImageOptions:
    """The options of an iterator, as opposed to its generator's.

    Attributes:
        target_size: (height, width) in pixels.
        data_format: Keras's.
        dtype: of the batch.
        color_mode: of files.
        channels: of arrays.
        interpolation: of files.
        keep_aspect_ratio: of files.
        loading: of files, checked.
        validation: whether they are the validation subset.
        save: where finished images are saved.
    """

    target_size: tuple[int, int]
    data_format: DataFormat
    dtype: Any
    color_mode: ColorMode = "rgb"
    channels: int | None = None
    interpolation: Interpolation = "nearest"
    keep_aspect_ratio: bool = False
    loading: Loading = _LOADING
    validation: bool = False
    save: Save | None = None


def save_of(directory: Any, prefix: str, format: str, most: int) -> Save | None:
    """Where pictures are saved; None for nowhere."""
    if not directory:
        return None
    folder = arguments.folder("save_to_dir", directory)
    return Save(folder, str(arguments.plain(prefix)), str(arguments.plain(format)), most)


class Stages(NamedTuple):
    """The fields of a spec that do not depend on its source."""

    load: Load
    transforms: tuple[Operation, ...]
    output: Output


def stages_of(
    generator: Augmentation | None,
    options: ImageOptions,
    before: functions.PackedFunction | None = None,
) -> tuple[Stages, Arrays]:
    """The stages of a spec, and the arrays of its bundle.

    Args:
        generator: decides the transforms; None for none.
        options: decides how images are loaded.
        before: the same function as it was sent before, if it was; see ``functions.pack``.

    Raises:
        InvalidArgument: a value is not allowed, or the generator's methods are overridden.
    """
    load = _load(options, "keras" if generator is None else generator.compat)
    output = Output(
        data_format=arguments.one_of("data_format", options.data_format, get_args(DataFormat)),
        floatx=arguments.dtype(adapter.floatx()),
        dtype=arguments.dtype(options.dtype),
        save=options.save,
    )
    if generator is None:
        return Stages(load, (), output), {}
    _check_methods(generator)
    still = options.validation and generator.compat == "fixed"
    augmenting = () if still else tuple(_augmenting(generator))
    packed = functions.pack(generator.preprocessing_function, output.floatx, before)
    statistics = dict(_statistics(generator))
    normalizing = _normalizing(generator, output.dtype)
    transforms = [*augmenting, packed.operation, *normalizing]
    if statistics:
        transforms.append(FeaturewiseNormalization(statistics=tuple(statistics)))
    operations = tuple(one for one in transforms if one is not None)
    return Stages(load, operations, output), {**statistics, **packed.parts}


def _load(options: ImageOptions, compat: Compat) -> Load:
    if not arguments.is_one_of(options.interpolation, get_args(Interpolation)):
        raise InvalidArgument(
            f"Invalid interpolation method {options.interpolation} specified. Supported methods "
            f"are {', '.join(get_args(Interpolation))}"
        )
    return Load(
        target_size=arguments.size(options.target_size),
        color_mode=arguments.one_of("color_mode", options.color_mode, get_args(ColorMode)),
        channels=options.channels,
        interpolation=arguments.plain(options.interpolation),
        aspect="crop" if options.keep_aspect_ratio else "stretch",
        decode=options.loading.decode,
        exif=options.loading.exif,
        compat=compat,
        truncated=takes_truncated(),
        pil=pils_switches(),
    )


def _augmenting(generator: Augmentation) -> Iterator[Operation]:
    """The random operations that have an effect, in Keras's order."""
    flip = RandomFlip(
        horizontal=arguments.flag("horizontal_flip", generator.horizontal_flip),
        vertical=arguments.flag("vertical_flip", generator.vertical_flip),
    )
    affine = _affine(generator)
    channels = arguments.number("channel_shift_range", generator.channel_shift_range)
    brightness = arguments.pair("brightness_range", generator.brightness_range)
    if affine.moves:
        yield affine
    if channels:
        yield RandomChannelShift(channel_shift_range=channels)
    if flip.horizontal or flip.vertical:
        yield flip
    if brightness:
        yield RandomBrightness(brightness_range=brightness)


def _affine(generator: Augmentation) -> RandomAffine:
    return RandomAffine(
        rotation_range=arguments.number("rotation_range", _or_zero(generator.rotation_range)),
        width_shift_range=arguments.shift("width_shift_range", generator.width_shift_range),
        height_shift_range=arguments.shift("height_shift_range", generator.height_shift_range),
        shear_range=arguments.number("shear_range", _or_zero(generator.shear_range)),
        zoom_range=arguments.pair("zoom_range", generator.zoom_range) or (1.0, 1.0),
        fill_mode=arguments.one_of("fill_mode", generator.fill_mode, get_args(FillMode)),
        cval=arguments.number("cval", generator.cval),
        interpolation_order=arguments.whole("interpolation_order", generator.interpolation_order),
        compat=generator.compat,
    )


def _normalizing(generator: Augmentation, dtype: str) -> Iterator[Operation]:
    scale = arguments.number("rescale", _or_zero(generator.rescale))
    center = arguments.flag("samplewise_center", generator.samplewise_center)
    std = arguments.flag("samplewise_std_normalization", generator.samplewise_std_normalization)
    _warn_dropped_fractions(scale, dtype)
    if scale:
        yield Rescaling(scale=scale)
    if center or std:
        yield SamplewiseNormalization(center=center, std_normalization=std)


def _or_zero(value: Any) -> Any:
    """0 for None, which Keras treats the same."""
    return 0.0 if value is None else value


def _statistics(generator: Augmentation) -> Iterator[tuple[Statistic, NDArray[Any]]]:
    for flag, attribute, part in _STATISTICS:
        value = getattr(generator, attribute)
        if not getattr(generator, flag):
            continue
        if value is None:
            warn_unfit(flag)
        else:
            yield part, np.array(value)  # a copy, as the original may be changed in place


def _warn_dropped_fractions(rescale: float, dtype: str) -> None:
    if rescale and rescale % 1 and not dtype.startswith("float"):
        warnings.warn(
            f"rescale={rescale} makes fractions, which dtype={dtype!r} truncates: leave rescale "
            'out, or use dtype="float32"',
            stacklevel=2,
        )


def warn_unfit(flag: str) -> None:
    """Keras's warning that ``fit`` has not computed the statistics of a flag."""
    warnings.warn(
        f"This Augmentation specifies `{flag}`, but it hasn't been fit on any training "
        "data. Fit it first by calling `.fit(numpy_data)`.",
        stacklevel=2,
    )


def _check_methods(generator: Augmentation) -> None:
    """Refuses overridden methods: workers only read the generator's attributes."""
    name = generator.overridden()
    if name is not None:
        raise InvalidArgument(
            f"{type(generator).__name__} overrides {name}, which workers do not call: "
            "give the code as preprocessing_function"
        )
