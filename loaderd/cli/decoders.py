"""Whether the decoders are installed, which ``loaderd[daemon]`` brings."""

from __future__ import annotations

from importlib.util import find_spec

from loaderd.errors import MissingDependency

DECODERS = {"PIL": "pillow-simd", "simplejpeg": "simplejpeg", "cv2": "opencv-python-headless"}
"""Modules and the packages that ``loaderd[daemon]`` takes them from."""

OPTIONAL = {"scipy": "warps with interpolation_order other than 1", "cloudpickle": "lambdas"}
"""Modules that workers load on first use, and what for."""


def require() -> None:
    """Check that the decoders are installed, without importing them.

    Raises:
        MissingDependency: one is missing; the text says how to install it.
    """
    missing = [package for module, package in DECODERS.items() if find_spec(module) is None]
    if missing:
        raise MissingDependency(
            f"the daemon needs {', '.join(missing)}, which this Python lacks: "
            'pip install "loaderd[daemon]"'
        )
