"""The fast path of the last step: warp, flips and arithmetic in one pass of the kernels.

The values are Keras's, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from loaderd.render.native.kernels import MAX_STEPS
from loaderd.render.transforms.geometry import fits, matrices, needs_scipy, warp_kernel
from loaderd.render.transforms.normalize import IMAGENET_MEAN, IMAGENET_MEAN_BGR, IMAGENET_STD
from loaderd.render.transforms.operation import Array, Parts
from loaderd.spec.operations import (
    FeaturewiseNormalization,
    GeneratorFlip,
    GeneratorRescaling,
    ImagenetPreprocessing,
    Operation,
    RandomAffine,
)
from loaderd.spec.spec import Spec
from loaderd.spec.transform import FLIPS, Transforms

Step = tuple[str, Array | None]
"""An operation on all pixels: its name, and a float32 for each channel."""

_DTYPES = ("float32", "float16", "bfloat16", "uint8")
_PIXELS = (np.dtype(np.uint8), np.dtype(np.float32))


class ChunkParameters(NamedTuple):
    """The random parameters of the rows of a chunk, as the kernels have them.

    Attributes:
        matrices: see ``geometry.matrices``; None for no warps.
        flips: (rows,) uint8: 1 for mirrored left to right, plus 2 for upside down; None for no
            flips.
    """

    matrices: Array | None
    flips: Array | None


def steps_of(spec: Spec, bundle: Parts) -> list[Step] | None:
    """The arithmetic of a spec, after its warp and flips.

    Args:
        spec: the stream's.
        bundle: the stream's.

    Returns:
        None if the kernels lack an operation.
    """
    steps: list[Step] = []
    for operation in spec.transforms:
        if isinstance(operation, RandomAffine | GeneratorFlip):
            continue
        more = list(_steps(operation, spec, bundle))
        if not more:
            return None
        steps += more
    return steps if len(steps) <= MAX_STEPS else None


def _steps(operation: Operation, spec: Spec, bundle: Parts) -> Iterator[Step]:
    """The steps of one operation; none if the kernels lack it."""
    channels = spec.load.array_shape[2]
    match operation:
        case GeneratorRescaling(scale=scale):
            yield "multiply", _each(scale, channels)
        case ImagenetPreprocessing(mode=mode, data_format=data_format):
            if channels == 3 and data_format == spec.output.data_format:
                yield from _imagenet(mode)
        case FeaturewiseNormalization(statistics=names):
            found = [_statistic(name, spec, bundle) for name in names]
            if all(step is not None for step in found):
                yield from (step for step in found if step is not None)


def _imagenet(mode: str) -> Iterator[Step]:
    """The steps of ``normalize.imagenet``."""
    if mode == "tf":
        yield "divide", _each(127.5, 3)
        yield "subtract", _each(1.0, 3)
    elif mode == "torch":
        yield "divide", _each(255.0, 3)
        yield "subtract", np.array(IMAGENET_MEAN, np.float32)
        yield "divide", np.array(IMAGENET_STD, np.float32)
    else:
        yield "reverse_channels", None
        yield "subtract", np.array(IMAGENET_MEAN_BGR, np.float32)


def _statistic(name: str, spec: Spec, bundle: Parts) -> Step | None:
    """The step of a statistic; None unless it is a float32 for each channel."""
    value, channels = bundle.get(name), spec.load.array_shape[2]
    last = spec.output.data_format == "channels_last"
    shape = (1, 1, channels) if last else (channels, 1, 1)
    if value is None or name == "zca" or value.dtype != np.float32 or value.shape != shape:
        return None
    if name == "std":
        return "divide", (value + 1e-6).ravel()
    return "subtract", value.ravel()


def _each(value: float, channels: int) -> Array:
    return np.full(channels, value, np.float32)


def is_fast(spec: Spec, compute: str, bundle: Parts) -> bool:
    """Whether this path covers all operations of a spec.

    Args:
        spec: the stream's.
        compute: the dtype to compute in.
        bundle: the stream's.
    """
    kinds = [type(operation) for operation in spec.transforms]
    random = [kind for kind in kinds if kind in (RandomAffine, GeneratorFlip)]
    shape, affine = spec.load.array_shape, spec.first(RandomAffine)
    return (
        random in ([], [RandomAffine], [GeneratorFlip], [RandomAffine, GeneratorFlip])
        and kinds[: len(random)] == random
        and compute == "float32"
        and spec.output.dtype in _DTYPES
        and fits(shape)
        and (affine is None or not needs_scipy(affine, shape, compute))
        and steps_of(spec, bundle) is not None
    )


class FastFinish:
    """Finishes loaded images. Owns buffers: one for each thread.

    Args:
        spec: what to do; ``is_fast``.
        bundle: the stream's.

    Attributes:
        copies: whether finishing a uint8 image only copies it.
    """

    def __init__(self, spec: Spec, bundle: Parts) -> None:
        affine, flip, output = spec.first(RandomAffine), spec.first(GeneratorFlip), spec.output
        self._warps, self._flips = affine is not None, flip is not None
        self._size = spec.load.target_size
        self._compat = (affine or RandomAffine()).compat
        planar = output.data_format == "channels_first"
        self._kernel = warp_kernel(
            affine or RandomAffine(),
            spec.load.array_shape,
            steps=steps_of(spec, bundle) or (),
            dtype=output.dtype,
            planar=planar,
        )
        self.copies = output.dtype == "uint8" and not planar and not spec.transforms

    def prepare(self, drawn: Transforms) -> ChunkParameters:
        """The parameters of the rows of a chunk as the kernels have them."""
        warps = matrices(drawn, self._size, self._compat) if self._warps else None
        across, down = drawn[:, FLIPS].T
        flips = (across + 2 * down).astype(np.uint8) if self._flips else None
        return ChunkParameters(warps, flips)

    def __call__(self, image: Array, drawn: Any, at: int, row: Array) -> None:
        """See ``Renderer.finish``."""
        dtype = image.dtype if image.dtype in _PIXELS else np.float32
        image = np.require(image, dtype, ["C", "A"])  # which copies only what is not so
        self._kernel.one(image, drawn.matrices, drawn.flips, at, row)

    def many(self, images: Array, places: Array, drawn: ChunkParameters, rows: Array) -> None:
        """Writes the finished images of a chunk.

        Args:
            images: (images, height, width, channels), uint8 or float32, C-contiguous.
            places: int64: the image of each row.
            drawn: of the chunk.
            rows: the destinations, as for one image.
        """
        self._kernel.many(images, places, drawn.matrices, drawn.flips, rows)
