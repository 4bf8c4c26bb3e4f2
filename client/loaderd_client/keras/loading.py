"""How the daemon reads image files, where Keras has no argument for it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args

from loaderd.spec.base import Cache, Decode, OnError
from loaderd_client.core import arguments


@dataclass(frozen=True)
class Loading:
    """The options of ``flow_from_directory`` that say how files are read, as they were given.

    Attributes:
        cache: where decoded images are kept.
        decode: ``exact`` or ``scaled``.
        on_error: what becomes of an image that cannot be read.
        substitute_weight: the sample weight of substitutes; None for no weights.
        exif: whether images are turned as their EXIF orientation says.
    """

    cache: Cache = "none"
    decode: Decode = "exact"
    on_error: OnError = "raise"
    substitute_weight: float | None = None
    exif: bool = False

    def check(self) -> None:
        """Checks what does not depend on other arguments.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
        """
        arguments.one_of("cache", self.cache, get_args(Cache))
        arguments.one_of("decode", self.decode, get_args(Decode))

    def set_on(self, iterator: Any) -> None:
        """Sets the options as attributes, which programs may set anew."""
        for name in NAMES:
            setattr(iterator, name, getattr(self, name))

    @classmethod
    def of(cls, iterator: Any) -> Loading:
        """The options as an iterator's attributes have them now."""
        return cls(*(getattr(iterator, name) for name in NAMES))


NAMES = tuple(field.name for field in fields(Loading))
