"""PIL's global settings, as the program has set them.

They are read only if PIL is loaded already: a trainer need not have it installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Literal

from loaderd.spec.load import MAX_PIXELS, Pil, Plugin

_DEFAULT = Pil()
_MAX_BYTES = 2**62
_PLACES = (
    ("PIL.Image", "MAX_IMAGE_PIXELS"),
    ("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"),
    ("PIL.PngImagePlugin", "MAX_TEXT_CHUNK"),
    ("PIL.PngImagePlugin", "MAX_TEXT_MEMORY"),
    ("PIL.GifImagePlugin", "LOADING_STRATEGY"),
    ("PIL.BmpImagePlugin", "USE_RAW_ALPHA"),
    ("PIL.TiffImagePlugin", "READ_LIBTIFF"),
)


def current_values() -> list[Any]:
    """The present values of the settings, to detect changes; takes some microseconds."""
    modules = sys.modules
    values = [getattr(modules.get(module), name, None) for module, name in _PLACES]
    return [*values, len(_switch("Image", "OPEN", ()))]


def pils_switches() -> Pil:
    """The settings with which the workers' PIL reads images as the program's does."""
    image = sys.modules.get("PIL.Image")
    if image is None:
        return _DEFAULT
    return Pil(
        max_pixels=_pixels(image.MAX_IMAGE_PIXELS),
        max_text_chunk=_bytes("PngImagePlugin", "MAX_TEXT_CHUNK", _DEFAULT.max_text_chunk),
        max_text_memory=_bytes("PngImagePlugin", "MAX_TEXT_MEMORY", _DEFAULT.max_text_memory),
        gif_loading=_gif_loading(),
        bmp_alpha=bool(_switch("BmpImagePlugin", "USE_RAW_ALPHA", False)),
        libtiff=bool(_switch("TiffImagePlugin", "READ_LIBTIFF", False)),
        plugins=tuple(_plugins(image)),
    )


def takes_truncated() -> bool:
    """Whether the program has set PIL to accept truncated images."""
    return bool(_switch("ImageFile", "LOAD_TRUNCATED_IMAGES", False))


def _switch(module: str, name: str, default: Any) -> Any:
    return getattr(sys.modules.get(f"PIL.{module}"), name, default)


def _pixels(limit: float | None) -> int:
    """Twice PIL's limit: it warns beyond the limit, and refuses beyond twice as much."""
    return MAX_PIXELS if limit is None else int(max(0, min(2 * limit, MAX_PIXELS)))


def _bytes(module: str, name: str, default: int) -> int:
    return int(max(0, min(_switch(module, name, default), _MAX_BYTES)))


def _gif_loading() -> Literal[0, 1, 2]:
    """The number of the strategy; PIL uses its default for any other value."""
    number = getattr(_switch("GifImagePlugin", "LOADING_STRATEGY", None), "value", 0)
    return 1 if number == 1 else 2 if number == 2 else 0


def _plugins(image: Any) -> Iterator[Plugin]:
    """Formats registered by other packages."""
    for name, (factory, accept) in image.OPEN.items():
        module = str(getattr(factory, "__module__", ""))
        if not module.startswith("PIL."):
            yield Plugin(name, module, _name(factory), _name(accept) if accept else "")


def _name(thing: Any) -> str:
    return str(getattr(thing, "__qualname__", type(thing).__qualname__))
