"""The images of arrays as workers see them: one copy for all flows of the same array.

Programs make flow after flow of one array, and TensorFlow keeps all that it has read. In Keras
those flows hold the caller's array; here they hold one copy of it together.
"""

from __future__ import annotations

import weakref
from typing import Any

from numpy.typing import NDArray

from loaderd.ipc.bundle import Bundle, same_bytes

LARGE = 2**22
"""Bytes of images that stay in shared memory while no stream of them is open."""

_Where = tuple[int, tuple[int, ...], tuple[int, ...], str]


class _Copy:
    """The copy of an array: in a bundle while anybody needs one, else in memory of our own."""

    def __init__(self, bundle: Bundle) -> None:
        self.large = bundle.nbytes > LARGE
        self._bundle = weakref.ref(bundle)
        self._own: NDArray[Any] | None = None

    def bundle_of(self, array: NDArray[Any]) -> Bundle | None:
        """The bundle, if this is the copy of an array as it is now."""
        bundle = self._bundle()
        images = self._own if bundle is None else bundle.parts["images"]
        if images is None or not same_bytes(images, array):
            return None
        return bundle or self.bundle()

    def bundle(self) -> Bundle:
        """To be called by those who have called ``own``."""
        bundle = self._bundle()
        if bundle is None:
            assert self._own is not None
            bundle = Bundle({"images": self._own})
            self._bundle = weakref.ref(bundle)
        return bundle

    def own(self, bundle: Bundle) -> NDArray[Any]:
        """In memory of our own from now on, whatever becomes of the bundle."""
        if self._own is None:
            own = bundle.parts["images"].copy()
            own.flags.writeable = False
            self._own = own
        return self._own


_copies: weakref.WeakValueDictionary[_Where, _Copy] = weakref.WeakValueDictionary()
"""By where the caller's array lies; whether it is still the same is looked at."""


class ImageBundle:
    """What one flow has of its images.

    Args:
        array: the images as they are now.

    Raises:
        InvalidArgument: they are no numbers.
        NoRoom: there is not enough memory.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        address = array.__array_interface__["data"][0]
        where = (address, array.shape, array.strides, array.dtype.str)
        copy = _copies.get(where)
        bundle = None if copy is None else copy.bundle_of(array)
        if copy is None or bundle is None:
            bundle = Bundle({"images": array})
            copy = _copies[where] = _Copy(bundle)
        self._copy = copy
        self._bundle: Bundle | None = bundle

    def bundle(self) -> Bundle:
        """What is sent to the daemon."""
        bundle = self._bundle = self._bundle or self._copy.bundle()
        return bundle

    def rest(self, images: NDArray[Any]) -> NDArray[Any]:
        """Holds no descriptor until the bundle is needed again, unless the images are many.

        Args:
            images: where they lie.

        Returns:
            Where they lie from now on.
        """
        bundle = self._bundle
        if bundle is None or self._copy.large:
            return images
        own = self._copy.own(bundle)
        self._bundle = None
        return own
