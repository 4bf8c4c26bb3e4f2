"""Specs for tests, from flat arguments under Keras's names."""

from __future__ import annotations

from typing import Any

import msgspec

from loaderd.render.load.resize import Resizer
from loaderd.spec.base import Aspect, Interpolation
from loaderd.spec.load import Load
from loaderd.spec.operations import (
    GeneratorBrightness,
    GeneratorFlip,
    GeneratorRescaling,
    ImagenetPreprocessing,
    Operation,
    RandomAffine,
    RandomChannelShift,
    SamplewiseNormalization,
    UserCode,
)
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Files
from loaderd.spec.spec import Spec


def stages(**arguments: Any) -> dict[str, Any]:
    """``load``, ``transforms`` and ``output`` of a spec.

    Args:
        **arguments: fields of these and of the operations, and ``preprocessing``, ``function``,
            ``rescale``, ``horizontal_flip``, ``samplewise_center`` and so on, as Keras has them.
            A field of the affine operation that moves nothing makes one all the same.
    """
    load = Load(**_taken(arguments, Load))
    output = Output(**_taken(arguments, Output))
    transforms = tuple(one for one in _operations(arguments, load) if one is not None)
    assert not arguments, f"what is {arguments}?"
    return {"load": load, "transforms": transforms, "output": output}


def rendering(**arguments: Any) -> Spec:
    """A spec of which only the stages are of interest; see :func:`stages`."""
    return Spec(
        source=Files(),
        **stages(**arguments),
        batch=Batching(batch_size=1),
        order=Order(seed=0),
    )


def resizer(target_size: tuple[int, int], interpolation: Interpolation, aspect: Aspect) -> Resizer:
    """A resizer of the default limit."""
    return Resizer(Load(target_size=target_size, interpolation=interpolation, aspect=aspect))


def moving(**arguments: Any) -> Spec:
    """As :func:`rendering`, with a random warp and flips, whose parameters a test gives."""
    flips: dict[str, Any] = {"horizontal_flip": True, "vertical_flip": True}
    return rendering(**({"rotation_range": 1.0} | flips | arguments))


def with_transform(spec: Spec, operation: Operation) -> Spec:
    """The same with one more operation."""
    return msgspec.structs.replace(spec, transforms=(*spec.transforms, operation))


def with_output(spec: Spec, **fields: Any) -> Spec:
    """The same with other fields of ``output``."""
    return msgspec.structs.replace(spec, output=msgspec.structs.replace(spec.output, **fields))


def with_load(spec: Spec, **fields: Any) -> Spec:
    """The same with other fields of ``load``."""
    return msgspec.structs.replace(spec, load=msgspec.structs.replace(spec.load, **fields))


def _operations(arguments: dict[str, Any], load: Load) -> list[Operation | None]:
    def pop(name: str, default: Any = None) -> Any:
        return arguments.pop(name, default)

    affine = _taken(arguments, RandomAffine)
    center, std = pop("samplewise_center", False), pop("samplewise_std_normalization", False)
    flips = pop("horizontal_flip", False), pop("vertical_flip", False)
    channels, brightness = pop("channel_shift_range"), pop("brightness_range")
    mode, data_format = pop("preprocessing"), pop("preprocessing_format", "channels_last")
    function: UserCode | None = pop("function")
    rescale = pop("rescale")
    return [
        RandomAffine(**affine, compat=load.compat) if affine else None,
        RandomChannelShift(channel_shift_range=channels) if channels else None,
        GeneratorFlip(horizontal=flips[0], vertical=flips[1]) if any(flips) else None,
        GeneratorBrightness(brightness_range=brightness) if brightness else None,
        ImagenetPreprocessing(mode=mode, data_format=data_format) if mode else None,
        function,
        GeneratorRescaling(scale=rescale) if rescale else None,
        SamplewiseNormalization(center=center, std_normalization=std) if center or std else None,
    ]


def _taken(arguments: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {name: arguments.pop(name) for name in kind.__struct_fields__ if name in arguments}
