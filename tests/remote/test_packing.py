"""Values that are bytes in disguise cross as bytes, and come out with the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from loaderd.remote.packing import MAX_FAILURES, Packer, unpack
from tests.support.specs import rendering

BYTES = np.random.default_rng(3).integers(0, 256, (3, 8, 9, 3)).astype(np.uint8)


def crossed(rows: NDArray[Any], packer: Packer) -> tuple[NDArray[Any], bool]:
    """What comes out at the other end, and whether it was packed."""
    packed, factor = packer.pack(rows)
    assert packed.nbytes == rows.nbytes // (1 if factor is None else 4)
    out = np.empty_like(rows)
    unpack(packed, factor, out)
    return out, factor is not None


def packer(**stages: Any) -> Packer:
    return Packer(rendering(target_size=(8, 9), **stages))


@pytest.mark.parametrize("rescale", [None, 1 / 255, 1 / 127.5, 0.1, 3.0])
def test_what_is_converted_or_multiplied_is_packed(rescale: float | None) -> None:
    rows = BYTES.astype(np.float32)
    if rescale:
        rows *= np.float32(rescale)
    out, is_packed = crossed(rows, packer(rescale=rescale))
    assert is_packed
    assert out.tobytes() == rows.tobytes()


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, -0.0, np.nan, np.inf, 1e-45])
def test_whatever_is_no_byte_crosses_as_it_is(value: float) -> None:
    for rescale in (None, 1 / 255):
        rows = BYTES.astype(np.float32) * np.float32(rescale or 1)
        rows[2, 7, 8, 2] = value
        out, is_packed = crossed(rows, packer(rescale=rescale))
        assert not is_packed
        assert out.tobytes() == rows.tobytes()


def test_other_dtypes_cross_as_they_are() -> None:
    for rows in (BYTES, np.arange(3, dtype=np.int32), BYTES.astype(np.float64)):
        out, is_packed = crossed(rows, packer())
        assert not is_packed
        assert out.tobytes() == rows.tobytes()


def test_a_stream_that_is_never_packed_is_no_longer_looked_at() -> None:
    ours, rows = packer(), BYTES.astype(np.float32)
    for _ in range(MAX_FAILURES):
        assert crossed(rows + np.float32(0.5), ours)[1] is False
    assert crossed(rows, ours)[1] is False


def test_rows_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="rows of uint8"):
        unpack(BYTES[:2], 1.0, np.empty(BYTES.shape, np.float32))
    with pytest.raises(ValueError, match="rows of uint8"):
        unpack(BYTES, None, np.empty(BYTES.shape, np.float32))
