"""Warnings that name the line of the program that they are about."""

from __future__ import annotations

import sys
import threading
import warnings
from types import FrameType

_KERAS = ("keras", "tf_keras", "tensorflow")
_BETWEEN = {"loaderd_client", *_KERAS, "threading", "concurrent", "multiprocessing"}
"""Packages that may stand between the program and the place of a warning."""


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warns, as from the innermost line that is neither loaderd's nor Keras's.

    In a thread of Keras's that is where the main thread is, such as in ``fit``.
    """
    main = sys._current_frames().get(threading.main_thread().ident or 0)
    here = sys._getframe(1)
    frame = _programs(here) or _programs(main) or here
    warnings.warn_explicit(
        text,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        _module(frame),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def _programs(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the program, from this one outwards; None if there is none."""
    while frame is not None and _module(frame).partition(".")[0] in _BETWEEN:
        frame = frame.f_back
    return frame


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
