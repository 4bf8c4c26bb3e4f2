"""The libraries that decode and resize: other versions may give other bytes."""

from __future__ import annotations

import cv2
import PIL
import simplejpeg


def decoders() -> str:
    """Their names and versions."""
    jpeg = getattr(simplejpeg, "__version__", "?")
    return f"Pillow {PIL.__version__}, simplejpeg {jpeg}, OpenCV {cv2.__version__}"


def pils_name() -> str:
    """The name and version of the loaded PIL, with a remark if it is the slower one."""
    if ".post" in PIL.__version__:  # in all versions of pillow-simd, in none of Pillow
        return f"pillow-simd {PIL.__version__}"
    return (
        f"stock Pillow {PIL.__version__}, which resizes several times slower than pillow-simd "
        "(see `loaderd doctor`)"
    )
