"""Whether the extra ``daemon`` is installed: the decoders."""

from __future__ import annotations

from importlib.util import find_spec

from loaderd.errors import MissingDependency

DECODERS = {"PIL": "pillow-simd", "simplejpeg": "simplejpeg", "cv2": "opencv-python-headless"}
"""Modules and the packages that the extra takes them from."""

SOMETIMES = {"scipy": "warps with interpolation_order other than 1", "cloudpickle": "lambdas"}
"""Modules that workers load when they are needed first, and what for."""


def require() -> None:
    """Looks for the decoders without importing them, which only workers do.

    Raises:
        MissingDependency: one is not there; the text says how to install it.
    """
    missing = [package for module, package in DECODERS.items() if find_spec(module) is None]
    if missing:
        raise MissingDependency(
            f"the daemon needs {', '.join(missing)}, which this Python lacks: "
            'pip install "loaderd[daemon]"'
        )
