"""Checks the parts of a bundle that annotations refer to; pure.

Clients may be wrong: a worker reads these arrays by numbers that are in them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import ProtocolError
from loaderd.ipc.bundle import Parts
from loaderd.ipc.manifest import Manifest
from loaderd.spec.annotations import Annotations


def check(wanted: Annotations, parts: Parts, samples: int, size: tuple[int, int]) -> None:
    """Checks that all parts are there, of their dtypes and shapes, and fit one another.

    Args:
        wanted: what the spec says.
        parts: of the bundle.
        samples: of the dataset.
        size: (height, width) of images in arrays.

    Raises:
        ProtocolError: a part is missing, or does not fit.
    """
    for number in range(len(wanted.further)):
        _manifest(parts, manifest_name(number), samples)
    if wanted.masks == "files":
        _manifest(parts, "mask_manifest", samples)
    if wanted.masks == "arrays":
        _rows(parts, "masks", "u1", size, samples)
    if not wanted.has_instances:
        return
    total = _bounds(parts, "instances", samples)
    if wanted.boxes:
        _rows(parts, "boxes", "f4", (4,), total)
        _rows(parts, "box_labels", "i4", (), total)
    if wanted.keypoints:
        _rows(parts, "keypoints", "f4", (wanted.keypoints, 3), total)
    if wanted.masks == "shapes":
        _rows(parts, "mask_values", "u1", (), total)
        rings = _bounds(parts, "rings", total)
        points = _bounds(parts, "ring_points", rings)
        _rows(parts, "points", "f4", (2,), points)
        _rows(parts, "run_lengths", "i8", (), _bounds(parts, "runs", total))


def manifest_name(number: int) -> str:
    """The name of the part with the files of a further image; the first is number 0."""
    return f"image_manifest_{number + 1}"


def _manifest(parts: Parts, name: str, samples: int) -> None:
    listed = len(Manifest.view(_part(parts, name, "u1", ()).data.cast("B")))
    if listed != samples:
        raise ProtocolError(f"{name!r} of the bundle has {listed} files for {samples} samples")


def _part(parts: Parts, name: str, dtype: str, inner: tuple[int, ...]) -> NDArray[Any]:
    if name not in parts:
        raise ProtocolError(f"the bundle lacks {name!r}")
    part = parts[name]
    if part.dtype != np.dtype(dtype) or part.shape[1:] != inner or part.ndim != 1 + len(inner):
        raise ProtocolError(f"{name!r} of the bundle is {part.dtype} of shape {part.shape}")
    return part


def _rows(parts: Parts, name: str, dtype: str, inner: tuple[int, ...], rows: int) -> None:
    if len(_part(parts, name, dtype, inner)) != rows:
        raise ProtocolError(f"{name!r} of the bundle has {len(parts[name])} rows, not {rows}")


def _bounds(parts: Parts, name: str, count: int) -> int:
    """The end of the last of ``count`` ranges, whose bounds a part holds."""
    bounds = _part(parts, name, "i8", ())
    if len(bounds) != count + 1 or bounds[0] != 0 or (np.diff(bounds) < 0).any():
        raise ProtocolError(f"{name!r} of the bundle are no bounds of {count} ranges")
    return int(bounds[-1])
