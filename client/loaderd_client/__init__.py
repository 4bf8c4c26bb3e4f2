"""The trainer's side of loaderd: images for Keras from a daemon over shared memory.

Importing this loads neither Keras nor a decoder; the names below load what they need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from loaderd import __version__
from loaderd.launch import cpus as _cpus

if TYPE_CHECKING:
    from loaderd_client.core.session import Session, connect
    from loaderd_client.keras.archive import image_dataset_from_archive
    from loaderd_client.keras.array_dataset import image_dataset_from_arrays
    from loaderd_client.keras.coco import image_dataset_from_coco
    from loaderd_client.keras.dataset import image_dataset_from_directory
    from loaderd_client.keras.generator import ImageDataGenerator
    from loaderd_client.keras.huggingface import image_dataset_from_huggingface
    from loaderd_client.keras.parquet import image_dataset_from_parquet
    from loaderd_client.keras.segmentation import (
        segmentation_dataset_from_archive,
        segmentation_dataset_from_directory,
    )
    from loaderd_client.keras.sequence import LoaderSequence
    from loaderd_client.keras.table import image_dataset_from_dataframe

_HOMES = {
    "ImageDataGenerator": "keras.generator",
    "image_dataset_from_archive": "keras.archive",
    "image_dataset_from_arrays": "keras.array_dataset",
    "image_dataset_from_coco": "keras.coco",
    "image_dataset_from_dataframe": "keras.table",
    "image_dataset_from_directory": "keras.dataset",
    "image_dataset_from_huggingface": "keras.huggingface",
    "image_dataset_from_parquet": "keras.parquet",
    "segmentation_dataset_from_archive": "keras.segmentation",
    "segmentation_dataset_from_directory": "keras.segmentation",
    "LoaderSequence": "keras.sequence",
    "Session": "core.session",
    "connect": "core.session",
}

__all__ = [
    "ImageDataGenerator",
    "LoaderSequence",
    "Session",
    "__version__",
    "connect",
    "image_dataset_from_archive",
    "image_dataset_from_arrays",
    "image_dataset_from_coco",
    "image_dataset_from_dataframe",
    "image_dataset_from_directory",
    "image_dataset_from_huggingface",
    "image_dataset_from_parquet",
    "segmentation_dataset_from_archive",
    "segmentation_dataset_from_directory",
]


_cpus.note()  # before the program binds this thread to some of them


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
