"""The kernels in C, which finish loaded images: warp, flips, arithmetic, layout and dtype.

Tables and changes of colours are those that ``loaderd.augment.canvas`` asks for.

One row of pixels goes through all of it, then the next, so that an image is read and written
once. Exact values are those of scipy, NumPy and Keras to the last bit, and the same on every
processor. Processors with AVX2, or AVX-512 with VBMI, have faster code; ``KERNELS`` names what this
one uses.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from loaderd.errors import MissingDependency

_ADVICE = (
    "install loaderd again where there are a C compiler and Python's headers: pip install "
    "--force-reinstall --no-deps --no-cache-dir --no-binary loaderd loaderd (in a checkout: "
    "scripts/setup)"
)

try:
    from loaderd.render.native import _kernels
    from loaderd.render.native._kernels import (
        ALL_KERNELS,
        KERNELS,
        MAX_CHANNELS,
        MAX_SIDE,
        MAX_STEPS,
        MAX_VALUES,
        Finish,
        change_colors,
        look_up,
        to_bfloat16,
    )
except ImportError as error:
    raise MissingDependency(
        "the daemon needs loaderd's kernels in C, which are not built for this Python: "
        f"{_ADVICE}: {error}"
    ) from error

__all__ = [
    "ALL_KERNELS",
    "KERNELS",
    "MAX_CHANNELS",
    "MAX_SIDE",
    "MAX_STEPS",
    "MAX_VALUES",
    "Finish",
    "change_colors",
    "look_up",
    "to_bfloat16",
]


def _check_age() -> None:
    """Refuses kernels that were built from other sources than those that lie beside them."""
    sources = sorted(Path(__file__).parent.glob("*.[ch]"))  # none where a wheel is installed
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    if sources and digest != _kernels.SOURCES:
        raise MissingDependency(
            f"loaderd's kernels in C are older than their sources in {sources[0].parent}: {_ADVICE}"
        )


_check_age()
