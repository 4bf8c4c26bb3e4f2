"""Which libraries decode and resize: other versions may give other bytes."""

from __future__ import annotations

import cv2
import PIL
import simplejpeg


def decoders() -> str:
    """Their names and versions."""
    jpeg = getattr(simplejpeg, "__version__", "?")
    return f"Pillow {PIL.__version__}, simplejpeg {jpeg}, OpenCV {cv2.__version__}"
