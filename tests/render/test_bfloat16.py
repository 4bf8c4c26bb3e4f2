"""Rows of bfloat16 hold what float32 gives, rounded once, on both paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from loaderd.render.fast import is_fast
from loaderd.render.save import save_picture
from loaderd.render.values import writer
from loaderd.spec.output import Output, Save
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform
from scripts.benchmarks.file_renderer import FileRenderer
from tests.render.conftest import noise
from tests.support.specs import moving, with_output

MOVED = Transform(theta=20, zx=0.9, flip_horizontal=True)


def finished(spec: Spec, dtype: str) -> Any:
    row = np.full(spec.image_shape, 77, dtype)
    FileRenderer(spec).finish_one(noise(20, 30), MOVED, row)
    return row


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("operations", "fast"),
    [({"rescale": 1 / 255}, True), ({"samplewise_center": True, "rescale": 1 / 255}, False)],
)
def test_a_row_is_that_of_float32_rounded_once(
    operations: dict[str, Any], fast: bool, data_format: str
) -> None:
    spec = moving(target_size=(20, 30), data_format=data_format, **operations)
    short = with_output(spec, dtype="bfloat16")
    assert is_fast(short, "float32", {}) == fast
    expected = finished(spec, "float32").astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(finished(short, "uint16"), expected.view(np.uint16))


def test_other_values_are_converted_and_broadcast() -> None:
    row = np.empty((2, 3), np.uint16)
    writer("bfloat16")(np.array([1, 2.004, 300]), row)
    expected = np.array([[1, 2, 300]] * 2, ml_dtypes.bfloat16)
    np.testing.assert_array_equal(row, expected.view(np.uint16))


def test_an_image_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="broadcast"):
        writer("bfloat16")(np.zeros((3, 2)), np.empty((2, 3), np.uint16))


def test_a_saved_picture_shows_the_values(tmp_path: Path) -> None:
    save = Save(directory=str(tmp_path), prefix="p", format="png", most=10)
    floats = noise(6, 5).astype(np.float32)
    row = np.empty(floats.shape, np.uint16)
    writer("bfloat16")(floats, row)
    save_picture(floats, Output(save=save), 1, 1)
    save_picture(row, Output(dtype="bfloat16", save=save), 2, 2)
    one, other = (np.asarray(Image.open(tmp_path / f"p_{i}_{i}.png")) for i in (1, 2))
    np.testing.assert_array_equal(one, other)  # whole numbers up to 256 are exact
