"""Prints a SHA-256 of the batches of each of a fixed set of streams.

Two versions of loaderd that print the same lines give the same bytes: compare them before
and after a change that must not alter any. Libraries of other versions, and other CPUs, may
give other lines; so run both versions on one machine, each with its own Python, and the
same script::

    .venv/bin/python scripts/digests.py > before.txt
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

EPOCHS = 2
EXIF_ORIENTATION = 0x0112
AUGMENTED: dict[str, Any] = {
    "rotation_range": 20,
    "width_shift_range": 0.2,
    "height_shift_range": 0.1,
    "shear_range": 15,
    "zoom_range": 0.2,
    "horizontal_flip": True,
    "vertical_flip": True,
}
IMAGES: dict[str, Any] = {"target_size": (48, 40), "batch_size": 8, "seed": 7}


def pixels(number: int, height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth noise, the same for the same number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (height // 8, width // 8, channels), np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(height, width, channels)


def make_files(folder: Path) -> None:
    """JPEGs of several sizes in three classes, among them a large one and a turned one."""
    for number in range(36):
        size = (1200, 900) if number % 9 == 0 else (120 + number * 8, 160 + number % 5 * 16)
        path = folder / f"class{number % 3}" / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if number % 7 == 0:
            exif[EXIF_ORIENTATION] = 6
        image = Image.fromarray(pixels(number, *size))
        image.save(path, quality=90, exif=exif, progressive=number % 5 == 0)


def make_formats(folder: Path) -> None:
    """Files of many formats and modes."""
    folder.mkdir()
    rgb = Image.fromarray(pixels(1, 64, 96))
    rgba = Image.fromarray(pixels(2, 64, 96, 4), "RGBA")
    deep = Image.fromarray((pixels(3, 64, 96, 1)[..., 0].astype(np.uint16) << 8) + 77)
    for name, image in {
        "rgb.png": rgb,
        "rgba.png": rgba,
        "deep.png": deep,
        "grey.png": rgb.convert("L"),
        "palette.png": rgb.quantize(32),
        "cmyk.jpg": rgb.convert("CMYK"),
        "grey.jpg": rgb.convert("L"),
        "plain.bmp": rgb,
        "plain.gif": rgb,
        "plain.tif": rgb,
        "plain.ppm": rgb,
    }.items():
        image.save(folder / name)


def negative(image: np.ndarray) -> np.ndarray:
    """A function of the user's."""
    return 255.0 - image


def noisy(image: np.ndarray) -> np.ndarray:
    """A function of the user's that draws from NumPy's global generator."""
    return image + np.random.normal(0, 5, image.shape)


Streams = Iterator[tuple[str, Callable[[], Any]]]


def of_directory(root: Path) -> Streams:
    """``flow_from_directory`` in its variants."""
    from loaderd_client import ImageDataGenerator

    files = root / "files"

    def flow(options: dict[str, Any], **more: Any) -> Callable[[], Any]:
        return lambda: ImageDataGenerator(**options).flow_from_directory(files, **(IMAGES | more))

    yield "plain", flow({})
    yield "unshuffled", flow({}, shuffle=False)
    yield "rescaled", flow({"rescale": 1 / 255})
    yield "uint8", flow({"dtype": "uint8"})
    yield "uint8 flipped", flow({"dtype": "uint8", "horizontal_flip": True})
    yield "float16", flow({"dtype": "float16", "rescale": 1 / 255, **AUGMENTED})
    yield "augmented", flow(AUGMENTED)
    yield "augmented and rescaled", flow({**AUGMENTED, "rescale": 1 / 255})
    for mode in ("constant", "reflect", "wrap"):
        yield f"fill_mode {mode}", flow({**AUGMENTED, "fill_mode": mode, "cval": 30.0})
    yield "pixels to shift by", flow({"width_shift_range": 5, "height_shift_range": [-3, 2]})
    yield "cubic warp", flow({**AUGMENTED, "interpolation_order": 3})
    yield "brightness", flow({"brightness_range": (0.5, 1.5), "channel_shift_range": 30.0})
    yield "samplewise", flow({"samplewise_std_normalization": True, **AUGMENTED})
    yield "compat fixed", flow({**AUGMENTED, "compat": "fixed"})
    yield "channels_first", flow({"data_format": "channels_first", **AUGMENTED})
    for color in ("rgba", "grayscale"):
        yield f"color_mode {color}", flow(AUGMENTED, color_mode=color)
    for way in ("bilinear", "bicubic", "hamming", "box", "lanczos"):
        yield f"interpolation {way}", flow({}, interpolation=way)
    yield "keep_aspect_ratio", flow({}, keep_aspect_ratio=True)
    yield "scaled decode", flow({}, decode="scaled", interpolation="bilinear")
    yield "scaled decode, nearest", flow({}, decode="scaled")
    yield "exif", flow({}, exif=True)
    for cache in ("memory", "disk"):
        yield f"cache {cache}", flow(AUGMENTED, cache=cache)
    for labels in ("binary", "sparse", "input", None):
        yield f"class_mode {labels}", flow({}, class_mode=labels, classes=["class0", "class2"])
    for subset in ("training", "validation"):
        yield f"subset {subset}", flow({"validation_split": 0.3, **AUGMENTED}, subset=subset)
    yield "function", flow({"preprocessing_function": negative, "rescale": 1 / 255})
    yield "random function", flow({"preprocessing_function": noisy, **AUGMENTED})


def of_bad_files(root: Path) -> Streams:
    """Images that cannot be read."""
    from loaderd_client import ImageDataGenerator

    for way in ("substitute", "skip"):
        yield (
            f"on_error {way}",
            partial(
                ImageDataGenerator(**AUGMENTED).flow_from_directory,
                root / "bad",
                on_error=way,
                **IMAGES,
            ),
        )
    yield (
        "substitute_weight",
        lambda: ImageDataGenerator().flow_from_directory(
            root / "bad", on_error="substitute", substitute_weight=0.0, **IMAGES
        ),
    )


def of_applications(root: Path) -> Streams:
    """``preprocess_input`` of ``keras.applications``."""
    from keras.applications import mobilenet_v2, resnet, vgg16

    from loaderd_client import ImageDataGenerator

    for module in (mobilenet_v2, resnet, vgg16):
        yield (
            module.__name__.rpartition(".")[2],
            partial(
                ImageDataGenerator(
                    preprocessing_function=module.preprocess_input, zoom_range=0.2
                ).flow_from_directory,
                root / "files",
                **IMAGES,
            ),
        )


def of_table(root: Path) -> Streams:
    """``flow_from_dataframe``."""
    from loaderd_client import ImageDataGenerator

    paths = sorted(str(path) for path in (root / "files").rglob("*.jpg"))
    table = pd.DataFrame(
        {
            "filename": paths,
            "class": [f"c{number % 4}" for number in range(len(paths))],
            "value": np.linspace(0, 1, len(paths)),
            "weight": np.linspace(1, 2, len(paths)),
        }
    )

    def flow(**more: Any) -> Callable[[], Any]:
        return lambda: ImageDataGenerator(**AUGMENTED).flow_from_dataframe(table, **(IMAGES | more))

    yield "dataframe", flow()
    yield "dataframe, weights", flow(weight_col="weight", class_mode="sparse")
    yield "dataframe, raw", flow(class_mode="raw", y_col=["value", "weight"])
    yield "dataframe, multi_output", flow(class_mode="multi_output", y_col=["value", "weight"])


def of_arrays(root: Path) -> Streams:
    """``flow``, also with what ``fit`` has computed."""
    from loaderd_client import ImageDataGenerator

    images = np.stack([pixels(number, 32, 40) for number in range(30)])
    labels = np.arange(30) % 5
    floats = (images / 255).astype("float32")

    def flow(options: dict[str, Any], x: Any, fit: bool = False, **more: Any) -> Callable[[], Any]:
        def make() -> Any:
            generator = ImageDataGenerator(**options)
            if fit:
                generator.fit(x)
            return generator.flow(x, labels, batch_size=8, seed=3, **more)

        return make

    yield "arrays", flow({}, images)
    yield "arrays, uint8", flow({"dtype": "uint8"}, images)
    yield "arrays, augmented", flow(AUGMENTED, images)
    yield "arrays, floats", flow(AUGMENTED, floats, sample_weight=np.linspace(0, 1, 30))
    yield "arrays, one channel", flow(AUGMENTED, images[..., :1])
    yield "arrays, float64", flow({**AUGMENTED, "dtype": "float64"}, floats)
    yield "arrays, further inputs", flow({}, (images, [labels]))
    yield "arrays, function", flow({"preprocessing_function": negative}, images)
    yield "featurewise", flow({"featurewise_std_normalization": True}, floats, fit=True)
    yield "zca", flow({"zca_whitening": True}, floats[:, :8, :8], fit=True)
    yield "given order", _reordered(flow({}, images))


def _reordered(make: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        iterator = make()
        iterator.index_array = np.arange(30)[::-1]
        return iterator

    return made


def of_datasets(root: Path) -> Streams:
    """``image_dataset_from_directory``."""
    from loaderd_client import image_dataset_from_directory

    def dataset(folder: str, **more: Any) -> Callable[[], Any]:
        options: dict[str, Any] = {"image_size": (40, 48), "batch_size": 8, "seed": 5}
        return lambda: image_dataset_from_directory(root / folder, **(options | more))

    yield "dataset", dataset("files")
    yield "dataset, categorical", dataset("files", label_mode="categorical")
    yield "dataset, crop", dataset("files", crop_to_aspect_ratio=True)
    yield "dataset, pad", dataset("files", pad_to_aspect_ratio=True)
    yield "dataset, grayscale", dataset("files", color_mode="grayscale", interpolation="area")
    split: dict[str, Any] = {"validation_split": 0.25, "subset": "validation"}
    yield "dataset, validation", dataset("files", **split)
    yield "dataset, formats", dataset("formats", labels=None, shuffle=False)
    yield (
        "dataset, formats, rgba",
        dataset("formats", labels=None, shuffle=False, color_mode="rgba"),
    )


def of_formats(root: Path) -> Streams:
    """Many formats as Keras's iterators load them."""
    from loaderd_client import ImageDataGenerator

    for color in ("rgb", "rgba", "grayscale"):
        yield (
            f"formats {color}",
            partial(
                ImageDataGenerator().flow_from_directory,
                root,
                classes=["formats"],
                color_mode=color,
                shuffle=False,
                **IMAGES,
            ),
        )


def digest(sequence: Any) -> str:
    """Of all batches of some epochs, by index."""
    sha = hashlib.sha256()
    for _ in range(EPOCHS):
        for index in range(len(sequence)):
            _add(sha, sequence[index])
        sequence.on_epoch_end()
    return sha.hexdigest()


def _add(sha: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        sha.update(f"{value.dtype}{value.shape}".encode())
        sha.update(np.ascontiguousarray(value).tobytes())
    elif value is not None:
        for part in value.values() if isinstance(value, dict) else value:
            _add(sha, part)


def main() -> None:
    """Makes the files and prints the digests."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="of streams; none for all")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="loaderd-digests-") as folder:
        os.environ["XDG_RUNTIME_DIR"] = os.environ["LOADERD_CACHE_DIR"] = folder
        root = Path(folder)
        make_files(root / "files")
        make_files(root / "bad")
        (root / "bad" / "class0" / "000.jpg").write_bytes(b"none")
        make_formats(root / "formats")
        import loaderd_client

        kinds = (of_directory, of_bad_files, of_applications, of_table, of_arrays, of_datasets)
        with loaderd_client.connect():
            for kind in (*kinds, of_formats):
                for name, make in kind(root):
                    if not names or name in names:
                        with contextlib.redirect_stdout(None):  # what Keras prints of the folder
                            found = digest(make())
                        print(f"{found}  {name}", flush=True)


if __name__ == "__main__":
    main()
