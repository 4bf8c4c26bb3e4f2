"""The fast path of the last step: warp, flips and ``rescale``, in as few passes as possible.

The values are Keras's, bit by bit, but for the warp, which is OpenCV's instead of scipy's.
"""

from __future__ import annotations

import cv2
import numpy as np

from loaderd.render.transforms.geometry import MAX_CHANNELS, STILL, UPRIGHT, Warp, needs_scipy
from loaderd.render.transforms.operation import Array
from loaderd.spec.operations import RandomAffine, RandomFlip, Rescaling
from loaderd.spec.spec import Spec
from loaderd.spec.transform import Affine, Flip, Parameters

_BYTE = np.dtype(np.uint8)
_FLOAT = np.dtype(np.float32)
_OPERATIONS = (RandomAffine, RandomFlip, Rescaling)
"""The operations of this path, in the order in which they may occur."""


def is_fast(spec: Spec, compute: str) -> bool:
    """Whether this path covers all operations of a spec, computed in a dtype."""
    given = [type(operation) for operation in spec.transforms]
    channels, affine = spec.load.array_shape[2], spec.first(RandomAffine)
    return (
        given == [kind for kind in _OPERATIONS if kind in given]
        and compute == "float32"
        and channels <= MAX_CHANNELS
        and (affine is None or not needs_scipy(affine, channels, compute))
    )


class FastFinish:
    """Finishes loaded images. Owns buffers: one for each thread.

    Args:
        spec: what to do; nothing but a warp, flips and a rescale.

    Attributes:
        copies: whether finishing a uint8 image only copies it.
    """

    def __init__(self, spec: Spec) -> None:
        affine, flip = spec.first(RandomAffine), spec.first(RandomFlip)
        rescaling, output = spec.first(Rescaling), spec.output
        self._rescale = None if rescaling is None else rescaling.scale
        self._affine_at = None if affine is None else 0
        self._flip_at = None if flip is None else int(affine is not None)
        affine = affine or RandomAffine()
        cval = affine.cval * (self._rescale or 1.0)
        self._warp = Warp(spec.load.target_size, affine.fill_mode, cval, affine.compat)
        self._source = np.empty(spec.load.array_shape, np.float32)
        self._warped = np.empty(spec.load.array_shape, np.float32)
        self._first = output.data_format == "channels_first"
        self._in_place = output.dtype == "float32" and not self._first
        self.copies = output.dtype == "uint8" and not self._first and not spec.transforms

    def __call__(self, image: Array, parameters: Parameters, row: Array) -> None:
        """See ``Renderer.finish``."""
        affine = STILL if self._affine_at is None else parameters[self._affine_at]
        turned = UPRIGHT if self._flip_at is None else parameters[self._flip_at]
        if self._first:
            row = row.transpose(1, 2, 0)
        if affine != STILL:
            self._write_warped(image, affine, turned, row)
        elif turned != UPRIGHT:
            self._write_flipped(image, turned, row)
        else:
            write(image, self._rescale, row)

    def _write_warped(self, image: Array, affine: Affine, turned: Flip, row: Array) -> None:
        # The warp is linear, so the rescale may come first, in the pass that converts.
        write(image, self._rescale, self._source)
        if self._in_place:
            self._warp(self._source, affine, turned, row)
        else:
            self._warp(self._source, affine, turned, self._warped)
            write(self._warped, None, row)

    def _write_flipped(self, image: Array, turned: Flip, row: Array) -> None:
        fits = image.dtype == row.dtype and not self._rescale and not self._first
        flipped = flip(image, turned, row if fits else None)
        if flipped is not row:  # OpenCV has not filled it
            write(flipped, self._rescale, row)


def flip(image: Array, turned: Flip, out: Array | None = None) -> Array:
    """The image (height, width, channels), mirrored; ``out``, one like it, may receive it."""
    if turned == UPRIGHT:
        return image
    if image.dtype != _BYTE and image.dtype != _FLOAT:
        return image[:: -1 if turned.vertical else 1, :: -1 if turned.horizontal else 1]
    code = {(True, True): -1, (True, False): 1, (False, True): 0}[turned]
    mirrored: Array = cv2.flip(np.ascontiguousarray(image), code, dst=out)
    if mirrored is out:
        return mirrored
    return mirrored.reshape(image.shape)  # OpenCV drops the axis of a single channel


def write(image: Array, rescale: float | None, row: Array) -> None:
    """Writes the image's values, times ``rescale``, to the row, converted to its dtype.

    Bit-identical to Keras, which converts the image to float32, multiplies in place by a
    Python float, and assigns to the batch (which, for uint8, truncates). The image is of the
    row's shape and any numeric dtype; ``rescale`` of None or 0 leaves the values.
    """
    if row.dtype == _FLOAT and image.dtype != _FLOAT:
        # Two passes, each in one dtype: NumPy's one pass goes through buffers.
        np.copyto(row, image, casting="unsafe")
        if rescale:
            np.multiply(row, np.float32(rescale), out=row)
        return
    if image.dtype != _BYTE and image.dtype != _FLOAT:
        image = image.astype(_FLOAT)
    if rescale:
        np.multiply(image, np.float32(rescale), out=row, casting="unsafe")
    else:
        np.copyto(row, image, casting="unsafe")
