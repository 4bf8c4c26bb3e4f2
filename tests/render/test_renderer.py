"""A renderer does one sample after the other, in a row of a slot, and tells its times."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from loaderd.augment.canvas import Canvas
from loaderd.augment.crops import CenterCrop
from loaderd.errors import BadImage
from loaderd.render.augmented import KERNELS
from loaderd.render.renderer import StageTimes
from loaderd.spec.base import DataFormat, DType
from loaderd.spec.load import Load
from loaderd.spec.operations import GeneratorFlip, GeneratorRescaling, SamplewiseNormalization
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import moving, rendering

Pixels = NDArray[Any]
Noisy = Callable[..., Image.Image]

TURNED = Transform(theta=10.0, flip_horizontal=True)


@pytest.fixture
def file(tmp_path: Path, noisy: Noisy) -> str:
    noisy(40, 50).save(tmp_path / "a.jpg")
    return str(tmp_path / "a.jpg")


def slot_for(pipeline: Spec) -> Pixels:
    return np.full((3, *pipeline.image_shape), 77, pipeline.output.dtype)


@pytest.mark.parametrize("transform", [Transform(), TURNED])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_sample_is_written_in_its_own_row_only(
    file: str, dtype: DType, transform: Transform
) -> None:
    pipeline = moving(target_size=(20, 25), dtype=dtype)
    slot = slot_for(pipeline)
    FileRenderer(pipeline).render(file, transform, slot[1])
    assert (slot[[0, 2]] == 77).all()
    assert (slot[1] != 77).any()


@pytest.mark.parametrize("transform", [Transform(), TURNED])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_kept_copy_of_a_loaded_picture_finishes_as_the_file_renders(
    file: str, dtype: DType, transform: Transform
) -> None:
    pipeline = moving(target_size=(20, 25), dtype=dtype)
    renderer, slot = FileRenderer(pipeline), slot_for(pipeline)
    kept = renderer.load_file(file).copy()
    assert kept.shape == (20, 25, 3)
    assert kept.dtype == np.uint8
    renderer.finish_one(kept, transform, slot[0])
    renderer.render(file, transform, slot[1])
    np.testing.assert_array_equal(slot[0], slot[1])


PIPELINES = {
    "plain": moving(target_size=(20, 25), rescale=1 / 255),
    "bytes": moving(target_size=(20, 25), dtype="uint8"),
    "channels first": moving(target_size=(20, 25), data_format="channels_first"),
    "grey": moving(target_size=(20, 25), color_mode="grayscale", rescale=1 / 255),
    "rgba": moving(target_size=(20, 25), color_mode="rgba", dtype="uint8"),
    "general path": moving(target_size=(20, 25), samplewise_center=True),
}
TRANSFORMS = [
    Transform(flip_horizontal=h, flip_vertical=v, theta=theta)
    for h in (False, True)
    for v in (False, True)
    for theta in (0.0, 10.0)
]


@pytest.mark.parametrize("name", PIPELINES)
def test_a_picture_in_a_mapped_file_finishes_as_the_file_renders(
    file: str, tmp_path: Path, name: str
) -> None:
    pipeline = PIPELINES[name]
    renderer, slot = FileRenderer(pipeline), slot_for(pipeline)
    kept = renderer.load_file(file)
    (tmp_path / "kept").write_bytes(kept.tobytes())
    mapped = np.memmap(tmp_path / "kept", np.uint8, "r", shape=(1, *kept.shape))
    for transform in TRANSFORMS:
        renderer.render(file, transform, slot[0])
        renderer.finish_one(mapped[0], transform, slot[1])
        np.testing.assert_array_equal(slot[1], slot[0])
    assert (slot[2] == slot_for(pipeline)[2]).all()


def test_a_sample_does_not_depend_on_those_before_it(
    file: str, tmp_path: Path, noisy: Noisy
) -> None:
    noisy(90, 30).save(tmp_path / "b.png")
    pipeline = moving(target_size=(20, 25), interpolation="lanczos")
    slot, renderer = slot_for(pipeline), FileRenderer(pipeline)
    FileRenderer(pipeline).render(file, TURNED, slot[0])
    renderer.render(str(tmp_path / "b.png"), TURNED, slot[1])
    with pytest.raises(BadImage):
        renderer.render("/nowhere", TURNED, slot[1])
    renderer.render(file, TURNED, slot[1])
    np.testing.assert_array_equal(slot[0], slot[1])


def test_paths_may_be_bytes(file: str) -> None:
    pipeline = moving(target_size=(20, 25))
    slot = slot_for(pipeline)
    FileRenderer(pipeline).render(file, Transform(), slot[0])
    FileRenderer(pipeline).render(file.encode(), Transform(), slot[1])
    np.testing.assert_array_equal(slot[0], slot[1])


def test_times_are_told_once(file: str) -> None:
    pipeline = moving(target_size=(20, 25))
    renderer, slot = FileRenderer(pipeline), slot_for(pipeline)
    renderer.render(file, TURNED, slot[0])
    times = renderer.times.take()
    assert min(times.decode, times.resize, times.augment) > 0
    assert renderer.times == StageTimes()


def test_a_finished_copy_takes_no_time_to_read(file: str) -> None:
    pipeline = moving(target_size=(20, 25))
    renderer, slot = FileRenderer(pipeline), slot_for(pipeline)
    kept = renderer.load_file(file).copy()
    renderer.times.take()
    renderer.finish_one(kept, TURNED, slot[0])
    times = renderer.times.take()
    assert times.augment > 0
    assert times == StageTimes(augment=times.augment)


def test_rendering_imports_neither_keras_nor_tensorflow() -> None:
    code = (
        "import sys, loaderd.render.renderer, loaderd.sampling.draws;"
        "print(sorted({'keras', 'tensorflow', 'scipy', 'multiprocessing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("size", [(400, 300), (20, 90)])
def test_a_crop_of_a_jpeg_has_the_pixels_of_the_whole_picture(
    tmp_path: Path, noisy: Noisy, size: tuple[int, int]
) -> None:
    """Large and small ones: there is no resize that could leave pixels out."""
    noisy(*size).save(tmp_path / "a.jpg")
    load = Load(target_size=(24, 32), interpolation="nearest", aspect="keep")
    base = rendering(dtype="uint8", target_size=(24, 32))
    output = msgspec.structs.replace(base.output, image_size=(24, 32))
    spec = msgspec.structs.replace(base, load=load, output=output, augment=(CenterCrop(24, 32),))
    renderer = FileRenderer(spec)
    picture, row = renderer.load_file(str(tmp_path / "a.jpg")), np.empty((24, 32, 3), np.uint8)
    assert isinstance(picture, np.ndarray)
    renderer.finish_one(picture, (0, 0, 0), row)
    canvas = Canvas(KERNELS)
    canvas.begin(Image.open(tmp_path / "a.jpg"))
    CenterCrop(24, 32).apply(canvas, None)
    assert (row == canvas.image).all()


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_operations_are_applied_in_the_order_of_the_spec(data_format: DataFormat) -> None:
    """Also a random one behind one of values: each finds the channels where it looks for them."""
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    center, flip = SamplewiseNormalization(center=True), GeneratorFlip(horizontal=True)
    plain = rendering(target_size=(4, 5), data_format=data_format)
    spec = msgspec.structs.replace(plain, transforms=(center, flip, GeneratorRescaling(scale=0.5)))
    row = np.empty(spec.image_shape, np.float32)
    FileRenderer(spec).finish_one(image, Transform(flip_horizontal=True), row)
    values = image.astype(np.float32)
    expected = (values - values.mean())[:, ::-1] * np.float32(0.5)
    last = row.transpose(1, 2, 0) if data_format == "channels_first" else row
    np.testing.assert_allclose(last, expected, rtol=1e-5)
