"""The images of arrays in shared memory: one copy for all flows of the same array.

Programs make many flows of one array, and TensorFlow keeps every flow that it has read. In Keras
they all refer to the caller's array; here they share one copy of it.
"""

from __future__ import annotations

import weakref
from typing import Any

from numpy.typing import NDArray

from loaderd.ipc.bundle import Bundle, same_bytes

LARGE = 2**22
"""Bytes above which images stay in shared memory while no stream of them is open."""

_Where = tuple[int, tuple[int, ...], tuple[int, ...], str]


class _Copy:
    """The copy of an array: in a bundle while one is in use, else in private memory."""

    def __init__(self, bundle: Bundle) -> None:
        self.large = bundle.nbytes > LARGE
        self._bundle = weakref.ref(bundle)
        self._own: NDArray[Any] | None = None

    def bundle_of(self, array: NDArray[Any]) -> Bundle | None:
        """The bundle, if this copy still has the bytes of ``array``; else None."""
        bundle = self._bundle()
        images = self._own if bundle is None else bundle.parts["images"]
        if images is None or not same_bytes(images, array):
            return None
        return bundle or self.bundle()

    def bundle(self) -> Bundle:
        """The bundle; made again from private memory, after ``own``, if it was freed."""
        bundle = self._bundle()
        if bundle is None:
            assert self._own is not None
            bundle = Bundle({"images": self._own})
            self._bundle = weakref.ref(bundle)
        return bundle

    def own(self, bundle: Bundle) -> NDArray[Any]:
        """A read-only copy in private memory, which outlives the bundle."""
        if self._own is None:
            own = bundle.parts["images"].copy()
            own.flags.writeable = False
            self._own = own
        return self._own


_copies: weakref.WeakValueDictionary[_Where, _Copy] = weakref.WeakValueDictionary()
"""By address, shape, strides and dtype of the caller's array; its bytes are compared too."""


class ImageBundle:
    """The images of one flow.

    Args:
        array: the caller's images.

    Raises:
        InvalidArgument: the array is not numeric.
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
        """The bundle that is sent to the daemon."""
        bundle = self._bundle = self._bundle or self._copy.bundle()
        return bundle

    def rest(self, images: NDArray[Any]) -> NDArray[Any]:
        """Drops the bundle with its descriptor until it is needed again, unless it is large.

        Args:
            images: the images at their present address.

        Returns:
            The images at their new address.
        """
        bundle = self._bundle
        if bundle is None or self._copy.large:
            return images
        own = self._copy.own(bundle)
        self._bundle = None
        return own
