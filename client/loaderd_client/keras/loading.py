"""The options for reading image files that Keras does not have."""

from __future__ import annotations

from typing import Any, NamedTuple, get_args

from loaderd.spec.base import Cache, Decode, OnError
from loaderd_client.core import arguments


class Loading(NamedTuple):
    """The options of ``flow_from_directory`` for reading files, unchecked.

    Attributes:
        cache: where decoded images are kept.
        decode: ``exact`` or ``scaled``.
        on_error: what happens to an image that cannot be read.
        substitute_weight: the sample weight of substitutes; None for no weights.
        exif: whether images are turned as their EXIF orientation says.
    """

    cache: Cache = "none"
    decode: Decode = "exact"
    on_error: OnError = "raise"
    substitute_weight: float | None = None
    exif: bool = False

    def checked(self, labelled: bool) -> Loading:
        """The same as plain values that a spec can hold.

        Args:
            labelled: whether the batches have labels.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
        """
        return Loading(
            arguments.one_of("cache", self.cache, get_args(Cache)),
            arguments.one_of("decode", self.decode, get_args(Decode)),
            arguments.one_of("on_error", self.on_error, get_args(OnError)),
            arguments.substitute_weight(self.on_error, self.substitute_weight, labelled),
            arguments.flag("exif", self.exif),
        )

    @classmethod
    def of(cls, iterator: Any) -> Loading:
        """The options from the present attributes of an iterator."""
        return cls(*(getattr(iterator, name) for name in cls._fields))
