"""The kernels in C, which finish loaded images: warp, flips, arithmetic, layout and dtype.

One row of pixels goes through all of it, then the next, so that an image is read and written
once. Exact values are those of scipy, NumPy and Keras to the last bit, and the same on every
processor. Processors with AVX2 have faster code; ``KERNELS`` names what this one uses.
"""

from __future__ import annotations

from loaderd.errors import MissingDependency

try:
    from loaderd.render.native._kernels import KERNELS, Finish
except ImportError as error:
    raise MissingDependency(
        "loaderd's kernels in C are not built for this Python, or not for this version: install "
        "it again, with a C compiler: pip install --force-reinstall --no-deps loaderd "
        f"(in a checkout: scripts/setup): {error}"
    ) from error

__all__ = ["KERNELS", "Finish"]
