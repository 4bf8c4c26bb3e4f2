"""What the bytes of a worker depend on: versions, and what becomes of a fixed picture."""

from __future__ import annotations

import base64
import hashlib
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import get_args

import numpy as np

from loaderd import __version__
from loaderd.ipc.messages import PROTOCOL
from loaderd.render.renderer import Renderer, StageTimes
from loaderd.render.versions import decoders
from loaderd.spec.base import Interpolation
from loaderd.spec.load import Load
from loaderd.spec.operations import GeneratorFlip, GeneratorRescaling, RandomAffine
from loaderd.spec.output import Batching, Order, Output
from loaderd.spec.source import Files
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Transform

_MOVED = Transform(theta=10.0, tx=1.5, zx=0.9, flip_horizontal=True)

_PICTURE = """\
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywt
QFdBRkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09P
T09PT09PT09PT09PT09PT09PT0//wAARCAAoADgDASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcI
CQoL/8QAtRAAAgEDAwIEAwUFBAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRol
JicoKSo0NTY3ODk6Q0RFRkdISUpTVFVWV1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ip
qrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAAAA
AAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAECAxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAVYnLR
ChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVmZ2hpanN0dXZ3eHl6goOEhYaHiImKkpOUlZaX
mJmaoqOkpaanqKmqsrO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq8vP09fb3+Pn6/9oADAMBAAIRAxEA
PwC4WG33FNMi+oqk1wAvWqNzfBBw3sK7YR5WfJ4ag+Y2TKme1LuBzjHP4Vyw1Y7x8w/OtaxuvNAp1cVGmtT7TAV40I+8
WZ0NZN0hyTg10Qh8xOn6VSubTvivKq11WdkduIzWnKNkcyyN+VFazWfPSisfYTPJ+uQGvKdnesXUXcggGtXHGBUE1p5m
c8/hXsxqqbsjlwtCMp2ObXzPMyCea6nRA2VyDVWHS8vnFb2n2hiI4rmxmCnON0dOY4eVKndG9b4EYz3ptxEGGR6UREBf
pSSyD0ry6GHlSl7x8pSnUnOxWMA9BRTvMor0/bRPTWHmc2vUd6sRKDj0ooqMD8Z7eXr94Xoo044FXYwB3oor6V7Hq5yl
7AmBqKQnvzRRXg4xJN2Pg8H/ABSHnPNFFFeM9T6ZLQ//2Q==
"""
"""A JPEG of 56 by 40 pixels with halved colours, in Base64."""


def take() -> dict[str, str]:
    """The facts, by what they are called in messages. Loads the decoders."""
    return {
        "loaderd": __version__,
        "protocol": str(PROTOCOL),
        "Python": "{}.{}".format(*sys.version_info[:2]),
        "NumPy": np.__version__,
        "SciPy": _version("scipy"),
        "decoders": decoders(),
        "pixels of a test picture": _pixels(),
    }


def differences(here: dict[str, str], there: dict[str, str]) -> str:
    """What differs between two machines, as text; empty for nothing."""
    names = dict.fromkeys([*here, *there])
    return "; ".join(
        f"{name}: {there.get(name, 'none')} there, {here.get(name, 'none')} here"
        for name in names
        if here.get(name) != there.get(name)
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _pixels() -> str:
    """A digest of the picture, decoded, resized by every filter, warped and normalized."""
    digest = hashlib.sha256()
    data = memoryview(base64.b64decode(_PICTURE))
    for spec in _specs():
        renderer = Renderer(spec, StageTimes())
        row = np.empty(spec.image_shape, spec.output.dtype)
        drawn = np.array([_MOVED], np.float64)
        renderer.finish(renderer.load(data), renderer.prepare(drawn), 0, row)
        digest.update(row.tobytes())
    return digest.hexdigest()[:16]


def _specs() -> Iterator[Spec]:
    affine = RandomAffine(rotation_range=20.0, zoom_range=(0.8, 1.2), width_shift_range=0.1)
    fast = RandomAffine(rotation_range=20.0, precision="fast")
    flip, rescale = GeneratorFlip(horizontal=True), GeneratorRescaling(scale=1 / 255)
    for filter_ in get_args(Interpolation):
        for moved in (affine, fast):
            yield Spec(
                source=Files(),
                load=Load(target_size=(24, 31), interpolation=filter_),
                transforms=(moved, flip, rescale),
                output=Output(),
                batch=Batching(batch_size=1),
                order=Order(seed=0),
            )
