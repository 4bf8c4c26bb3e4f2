"""What Keras itself makes of a file, and pictures to try it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from loaderd.spec.operations import GeneratorRescaling, RandomAffine
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform
from scripts.benchmarks.file_renderer import FileRenderer

Pixels = NDArray[Any]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng((height, width, channels, seed))
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture(scope="session")
def noisy() -> Callable[..., Image.Image]:
    """A picture of random noise of (height, width)."""
    return lambda height, width: Image.fromarray(noise(height, width))


@pytest.fixture(scope="session")
def ours() -> Callable[..., Pixels]:
    def render(path: Path, pipeline: Spec, transform: Transform | None = None) -> Pixels:
        row = np.full(pipeline.image_shape, 77, pipeline.output.dtype)
        parameters = transform or Transform()
        FileRenderer(pipeline).render(str(path), parameters, row)
        return row

    return render


@pytest.fixture(scope="session")
def keras_pixels() -> Callable[..., Pixels]:
    """As ``BatchFromFilesMixin._get_batches_of_transformed_samples`` calls Keras's parts."""
    from keras.src.legacy.preprocessing.image import ImageDataGenerator
    from keras.src.utils.image_utils import img_to_array, load_img

    def render(path: Path, pipeline: Spec, transform: Transform | None = None) -> Pixels:
        image = load_img(
            str(path),
            color_mode=pipeline.load.color_mode,
            target_size=pipeline.load.target_size,
            interpolation=pipeline.load.interpolation,
            keep_aspect_ratio=pipeline.load.aspect == "crop",
        )
        rescaling, affine = pipeline.first(GeneratorRescaling), pipeline.first(RandomAffine)
        affine = affine or RandomAffine()
        generator = ImageDataGenerator(
            rescale=None if rescaling is None else rescaling.scale,
            fill_mode=affine.fill_mode,
            cval=affine.cval,
        )
        x = img_to_array(image)
        x = generator.apply_transform(x, (transform or Transform())._asdict())
        batch: Pixels = np.zeros((1, *pipeline.image_shape), pipeline.output.dtype)
        batch[0] = generator.standardize(x)
        row: Pixels = batch[0]
        return row

    return render
