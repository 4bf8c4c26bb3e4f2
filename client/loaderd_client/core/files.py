"""Files that are replaced as a whole."""

from __future__ import annotations

import os


def replace(new: str, path: str) -> None:
    """Puts a finished file in the place of another; a crash leaves one of them, whole."""
    with open(new, "rb") as file:
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(os.path.dirname(os.path.abspath(path)), os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
