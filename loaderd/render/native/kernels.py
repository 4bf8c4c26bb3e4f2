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
        "the daemon needs loaderd's kernels in C, which are not built for this Python: install "
        "loaderd again where there is a C compiler: pip install --force-reinstall --no-deps "
        f"loaderd (in a checkout: scripts/setup): {error}"
    ) from error

__all__ = ["KERNELS", "Finish"]
