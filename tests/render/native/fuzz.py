"""Calls the kernels with random sizes, matrices, pixels, tables and arithmetic; also a program.

::

    python -m tests.render.native.fuzz [EXAMPLES] [PATH OF AN EXTENSION]

Every array ends with its allocation, so that a sanitizer finds a byte that is read or written
beyond it; all sets of kernels that the processor has must give the same bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from loaderd.render.values import readable
from tests.render.native.extension import load, try_examples

Array = NDArray[Any]

MODULE = "loaderd.render.native._kernels"
NUMBERS = st.floats(-3, 3) | st.floats() | st.sampled_from([0.0, 1.0, -1.0, 1e15, -1e300])
SHIFTS = st.floats(-100, 100) | st.floats()


class Example(NamedTuple):
    """The arguments of a ``Finish``, of its ``many``, of ``look_up`` and ``change_colors``."""

    options: dict[str, Any]
    images: Array
    places: Array | None
    matrices: Array | None
    flips: Array | None
    table: Array
    colors: tuple[float, float, float, float]

    @property
    def rows(self) -> Array:
        """Where the results go; filled, as kernels may leave nothing unwritten."""
        height, width, channels = self.options["shape"]
        count = len(self.images) if self.places is None else len(self.places)
        shape = (height, width, channels)
        if self.options["planar"]:
            shape = (channels, height, width)
        return np.full((count, *shape), 77, stored_as(self.options["dtype"]))


def stored_as(dtype: str) -> str:
    """The dtype of rows: NumPy lacks bfloat16, of which they hold the bits."""
    return "uint16" if dtype == "bfloat16" else dtype


@st.composite
def examples(draw: st.DrawFn) -> Example:
    """Small images of all kinds."""
    shape = (draw(st.integers(1, 20)), draw(st.integers(1, 20)), draw(st.integers(1, 4)))
    seed = draw(st.integers(0, 2**32 - 1))
    count, rows = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    places = None
    if draw(st.booleans()):
        places = np.array(draw(st.lists(st.integers(0, count - 1), max_size=4)), np.int64)
        rows = len(places)
    else:
        rows = count
    matrices = flips = None
    if draw(st.booleans()):
        matrices = np.array([draw(_matrix()) for _ in range(rows)], np.float64).reshape(rows, 6)
    if draw(st.booleans()):
        flips = np.array([draw(st.integers(0, 3)) for _ in range(rows)], np.uint8)
    return Example(
        {
            "shape": shape,
            "fill_mode": draw(st.sampled_from(["nearest", "constant", "reflect", "wrap"])),
            "cval": draw(st.floats(-300, 300) | st.floats()),
            "order": draw(st.integers(0, 1)),
            "fast": draw(st.booleans()),
            "steps": list(draw(_steps(shape[2]))),
            "dtype": draw(st.sampled_from(["float32", "float16", "bfloat16", "uint8"])),
            "planar": draw(st.booleans()),
        },
        _pixels(seed, (count, *shape), draw(st.booleans())),
        places,
        matrices,
        flips,
        _pixels(seed, draw(st.sampled_from([(256,), (256, shape[2])])), False),
        (draw(NUMBERS), draw(NUMBERS), draw(NUMBERS), draw(st.floats(0, 6))),
    )


def _matrix() -> st.SearchStrategy[list[float]]:
    row = st.tuples(NUMBERS, NUMBERS, SHIFTS)
    return st.tuples(row, row).map(lambda rows: [*rows[0], *rows[1]])


@st.composite
def _steps(draw: st.DrawFn, channels: int) -> Iterator[tuple[str, Array | None]]:
    kinds = st.sampled_from(["multiply", "subtract", "divide", "reverse_channels"])
    steps: list[tuple[str, Array | None]] = []
    for kind in draw(st.lists(kinds, max_size=8)):
        values = [draw(st.floats(width=32)) for _ in range(channels)]
        steps.append((kind, None if kind == "reverse_channels" else np.array(values, np.float32)))
    return iter(steps)


def _pixels(seed: int, shape: tuple[int, ...], is_float: bool) -> Array:
    rng = np.random.default_rng(seed)
    if not is_float:
        return rng.integers(0, 256, shape, np.uint8)
    pixels = (rng.standard_normal(shape) * 200).astype(np.float32)
    pixels[rng.random(shape) < 0.02] = rng.choice([np.nan, np.inf, -np.inf, -0.0, 1e38])
    return pixels


def check(module: Any, example: Example) -> None:
    """Fails unless all kernels give the same, image by image and all at once.

    Args:
        module: has the kernels.
        example: the arguments of a ``Finish``.
    """
    _check_rows(module, example)
    if example.images.dtype == np.uint8:
        _check_tables(module, example)
        if example.images.shape[3] != 2:
            _check_colors(module, example)


def _check_colors(module: Any, example: Example) -> None:
    image = example.images[0]
    expected = b""
    for name in module.ALL_KERNELS:
        changed = np.full_like(image, 77)
        module.change_colors(image.copy(), changed, example.colors, name)
        expected = expected or changed.tobytes()
        assert changed.tobytes() == expected, f"{name}: other colours"


def _check_rows(module: Any, example: Example) -> None:
    rest = example.matrices, example.flips
    expected = b""
    for name in reversed(module.ALL_KERNELS):  # plain C is the first
        finish = module.Finish(**example.options, kernels=name)
        rows, singles = example.rows, example.rows
        finish.many(example.images, example.places, *rest, rows)
        count = range(len(example.images))
        for at, place in enumerate(count if example.places is None else example.places):
            finish.one(example.images[place].copy(), *rest, at, singles[at])
        found = _without_nan(rows).tobytes()  # which has many bits
        expected = expected or found
        assert found == expected, f"{name} and plain C differ"
        assert found == _without_nan(singles).tobytes(), "one and many differ"


def _check_tables(module: Any, example: Example) -> None:
    image, table = example.images[0], example.table
    mapped = np.empty_like(image)
    flips = np.array([len(example.images)], np.uint8)  # 1 to 3
    shape = (1, *example.rows.shape[1:])
    expected, row = (np.full(shape, 77, example.rows.dtype)[0] for _ in range(2))
    for name in module.ALL_KERNELS:
        module.look_up(image.copy(), table, mapped, name)
        assert (mapped == by_numpy(image, table)).all(), f"{name} and NumPy differ"
        finish = module.Finish(**example.options, kernels=name)
        for flip in (None, flips):
            finish.one(mapped, None, flip, 0, expected)
            finish.one(image.copy(), None, flip, 0, row, table)
            assert row.tobytes() == expected.tobytes(), f"{name}: another row with a table"
            apart = np.concatenate([image, image], 1)[:, -image.shape[1] :]
            finish.one(apart, None, flip, 0, row, table)
            assert row.tobytes() == expected.tobytes(), f"{name}: another row of a part"


def by_numpy(image: Array, table: Array) -> Array:
    """The values in a table (256,) or (256, channels)."""
    if table.ndim == 1:
        return np.asarray(table[image])
    return np.stack([table[image[..., k], k] for k in range(image.shape[-1])], -1)


def _without_nan(result: Array) -> Array:
    values = readable(result, "bfloat16") if result.dtype == np.uint16 else result
    return np.nan_to_num(values, nan=-1.0)


def main(count: int, path: str) -> None:
    """Runs so many examples with the extension of a file."""
    module = load(MODULE, path)
    with np.errstate(all="ignore"):
        try_examples(count, examples(), lambda example: check(module, example))
    print(f"{count} examples: {', '.join(module.ALL_KERNELS)} give the same")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
