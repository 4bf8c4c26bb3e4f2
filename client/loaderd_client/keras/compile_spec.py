"""Translates a generator's attributes into the stages of a spec, and the arrays of its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.spec.base import DataFormat, FillMode, Statistic, compute_dtype
from loaderd.spec.load import Load
from loaderd.spec.operations import (
    FeaturewiseNormalization,
    GeneratorBrightness,
    GeneratorFlip,
    GeneratorRescaling,
    Operation,
    RandomAffine,
    RandomChannelShift,
    SamplewiseNormalization,
)
from loaderd.spec.output import Output, Save
from loaderd_client.core import arguments, dtypes
from loaderd_client.core.user_warnings import warn
from loaderd_client.keras import adapter, functions
from loaderd_client.keras.augmentation import Augmentation
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


def load_of(iterator: Any, target_size: Any, **fields: Any) -> Load:
    """How the images of an iterator are loaded, at (height, width).

    Raises:
        InvalidArgument: a value is not allowed.
    """
    generator = iterator.image_data_generator
    return Load(
        target_size=arguments.size(target_size),
        compat="keras" if generator is None else generator.compat,
        truncated=takes_truncated(),
        pil=pils_switches(),
        **fields,
    )


def stages_of(
    iterator: Any, most: int, before: functions.PackedFunction | None
) -> tuple[tuple[Operation, ...], Output, Arrays]:
    """The operations and the output of a spec, and the arrays of its bundle.

    Args:
        iterator: its attributes decide the output, and those of its generator the operations.
        most: the limit of the numbers of saved pictures.
        before: the same function as it was sent before, if it was; see ``functions.pack``.

    Raises:
        InvalidArgument: a value is not allowed, or the generator's methods are overridden.
    """
    output = Output(
        data_format=arguments.one_of("data_format", iterator.data_format, get_args(DataFormat)),
        floatx=compute_dtype(dtypes.checked(adapter.floatx())),
        dtype=dtypes.checked(iterator.dtype),
        save=_save(iterator, most),
    )
    generator: Augmentation | None = iterator.image_data_generator
    if generator is None:
        return (), output, {}
    overridden = generator.overridden()
    if overridden is not None:  # workers only read the generator's attributes
        raise InvalidArgument(
            f"{type(generator).__name__} overrides {overridden}, which workers do not call: "
            "give the code as preprocessing_function"
        )
    still = iterator.subset == "validation" and generator.compat == "fixed"
    augmenting = () if still else tuple(_augmenting(generator))
    packed = functions.pack(generator.preprocessing_function, output.floatx, before)
    # Copies, as the originals may be changed in place.
    fitted = {name: np.array(value) for name, value in statistics(generator)}
    transforms = [*augmenting, packed.operation, *_normalizing(generator, output.dtype)]
    if fitted:
        transforms.append(FeaturewiseNormalization(statistics=tuple(fitted)))
    operations = tuple(one for one in transforms if one is not None)
    return operations, output, fitted | dict(packed.parts)


def _save(iterator: Any, most: int) -> Save | None:
    """Where pictures are saved; None for nowhere."""
    if not iterator.save_to_dir:
        return None
    folder = arguments.folder("save_to_dir", iterator.save_to_dir)
    prefix, format = arguments.plain(iterator.save_prefix), arguments.plain(iterator.save_format)
    return Save(folder, str(prefix), str(format), most)


def _augmenting(generator: Augmentation) -> Iterator[Operation]:
    """The random operations that have an effect, in Keras's order."""
    flip = GeneratorFlip(
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
        yield GeneratorBrightness(brightness_range=brightness)


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
        precision=generator.precision,
    )


def _normalizing(generator: Augmentation, dtype: str) -> Iterator[Operation]:
    scale = arguments.number("rescale", _or_zero(generator.rescale))
    center = arguments.flag("samplewise_center", generator.samplewise_center)
    std = arguments.flag("samplewise_std_normalization", generator.samplewise_std_normalization)
    if scale % 1 and "float" not in dtype:
        warn(
            f"rescale={scale} makes fractions, which dtype={dtype!r} truncates: leave rescale out, "
            'or use dtype="float32"',
        )
    if scale:
        yield GeneratorRescaling(scale=scale)
    if center or std:
        yield SamplewiseNormalization(center=center, std_normalization=std)


def _or_zero(value: Any) -> Any:
    """0 for None, which Keras treats the same."""
    return 0.0 if value is None else value


def statistics(generator: Augmentation) -> Iterator[tuple[Statistic, NDArray[Any]]]:
    """The statistics that the flags ask for; warns of those that ``fit`` has not computed."""
    for flag, attribute, part in _STATISTICS:
        value = getattr(generator, attribute)
        if not getattr(generator, flag):
            continue
        if value is not None:
            yield part, value
            continue
        warn(
            f"This ImageDataGenerator specifies `{flag}`, but it hasn't been fit on any training "
            "data. Fit it first by calling `.fit(numpy_data)`.",
        )
