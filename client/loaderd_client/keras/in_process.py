"""The functions of Keras's generator and its module that run in the trainer.

Every value equals Keras's, also for warps, which use scipy here. PIL and scipy are imported on
first use; the extra ``daemon`` installs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument, MissingDependency
from loaderd.render.transforms import normalize
from loaderd.sampling.keras_draws import draw
from loaderd.spec.base import compute_dtype
from loaderd.spec.transform import Affine, Transform
from loaderd_client.core import dtypes
from loaderd_client.core.user_warnings import warn
from loaderd_client.keras import adapter
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.compile_spec import statistics

Array = NDArray[Any]


def _augment() -> Any:
    """The render functions, which need PIL."""
    try:
        from loaderd.render.transforms import augment
    except ImportError as error:
        raise MissingDependency(
            f'this needs {error.name}, which this Python lacks: pip install "loaderd[daemon]"'
        ) from error
    return augment


def standardize(generator: Augmentation, x: Array) -> Array:
    """See ``ImageDataGenerator.standardize``."""
    fitted = dict(statistics(generator))
    if generator.preprocessing_function is not None:
        x = generator.preprocessing_function(x)
    if generator.rescale:
        x = normalize.rescale(x, generator.rescale)
    if generator.samplewise_center:
        x = normalize.center_samplewise(x)
    if generator.samplewise_std_normalization:
        x = normalize.scale_samplewise(x)
    if "mean" in fitted:
        x = normalize.center_featurewise(x, fitted["mean"])
    if "std" in fitted:
        x = normalize.scale_featurewise(x, fitted["std"])
    if "zca" in fitted:
        x = normalize.whiten(x, fitted["zca"])
    return x


def get_random_transform(
    generator: Augmentation, img_shape: Sequence[int], seed: int | None
) -> dict[str, Any]:
    """See ``ImageDataGenerator.get_random_transform``."""
    if seed is not None:
        np.random.seed(seed)
    size = (img_shape[generator.row_axis - 1], img_shape[generator.col_axis - 1])
    return draw(np.random, generator, size)._asdict()


def apply_transform(generator: Augmentation, x: Array, parameters: dict[str, Any]) -> Array:
    """See ``ImageDataGenerator.apply_transform``."""
    augment = _augment()
    rows, columns = generator.row_axis - 1, generator.col_axis - 1
    channels = generator.channel_axis - 1
    known = {name: parameters[name] for name in Transform._fields if name in parameters}
    transform = Transform(**known)
    how = (generator.fill_mode, generator.cval, generator.interpolation_order)
    is_fixed = generator.compat == "fixed"
    x = _warp(x, transform.affine, (rows, columns, channels), *how, is_fixed)
    if transform.channel_shift_intensity is not None:
        x = augment.shift_channels(x, transform.channel_shift_intensity, channels)
    if transform.flip_horizontal:
        x = augment.flip_axis(x, columns)
    if transform.flip_vertical:
        x = augment.flip_axis(x, rows)
    if transform.brightness is not None:
        # Keras uses its global setting; images that fit the generator's format take precedence.
        first = channels == 0 and x.shape[0] in (1, 3, 4)
        x = _brighten(x, transform.brightness, False, first)
    return x


def _warp(x: Array, affine: Affine, axes: tuple[int, int, int], *how: Any) -> Array:
    """Warps an image; ``how`` are the fields of ``augment.Resampling``."""
    augment = _augment()
    augment.check_axes(x, axes)
    warped: Array = augment.apply_affine(x, affine, axes, augment.Resampling(*how))
    return warped


def _brighten(x: Array, brightness: float, scale: bool, first: bool) -> Array:
    last = x.transpose(1, 2, 0) if first else x
    bright: Array = _augment().shift_brightness(last, brightness, scale, adapter.floatx())
    return bright.transpose(2, 0, 1) if first else bright


def fit(
    generator: Augmentation,
    x: Any,
    augment: Callable[[Array], Array] | None,
    rounds: int,
    seed: int | None,
) -> None:
    """See ``ImageDataGenerator.fit``; ``augment`` changes one image at random."""
    x = np.array(x, dtype=compute_dtype(dtypes.checked(generator.dtype)))
    _check_images(generator, x)
    if seed is not None:
        np.random.seed(seed)
    if generator.rescale:
        x *= generator.rescale
    if augment is not None:
        x = np.array([augment(image) for _ in range(rounds) for image in x], x.dtype)
    shape = [1, 1, 1]
    shape[generator.channel_axis - 1] = x.shape[generator.channel_axis]
    axes = (0, generator.row_axis, generator.col_axis)
    if generator.featurewise_center:
        generator.mean = np.reshape(np.mean(x, axis=axes), shape)
        x -= generator.mean
    if generator.featurewise_std_normalization:
        generator.std = np.reshape(np.std(x, axis=axes), shape)
        x /= generator.std + 1e-6
    if generator.zca_whitening:
        flat = np.reshape(x, (len(x), -1))
        u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
        inverse = np.sqrt(len(x)) / (s + generator.zca_epsilon)
        generator.zca_whitening_matrix = (u * inverse).dot(u.T)


def _check_images(generator: Augmentation, x: Array) -> None:
    if x.ndim != 4:
        raise InvalidArgument(
            f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}"
        )
    axis = generator.channel_axis
    if x.shape[axis] not in {1, 3, 4}:
        warn(
            "Expected input to be images (as Numpy array) following the data format convention "
            f'"{generator.data_format}" (channels on axis {axis}), i.e. expected either 1, 3 or '
            f"4 channels on axis {axis}. However, it was passed an array with shape {x.shape} "
            f"({x.shape[axis]} channels).",
        )


# -- the functions of Keras's module ---------------------------------------------------


def apply_affine_transform(
    x: Array,
    theta: float = 0,
    tx: float = 0,
    ty: float = 0,
    shear: float = 0,
    zx: float = 1,
    zy: float = 1,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    order: int = 1,
) -> Array:
    """Warps one image about its centre: rotation, shift, shear and zoom.

    Args:
        x: image of rank 3.
        theta: rotation in degrees.
        tx: shift along the rows' axis, in pixels.
        ty: shift along the columns' axis, in pixels.
        shear: shear angle in degrees.
        zx: zoom factor along the rows' axis.
        zy: zoom factor along the columns' axis.
        row_axis: axis of the image's rows.
        col_axis: axis of its columns.
        channel_axis: axis of its channels: 0 or 2.
        fill_mode: outside of the image: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: value outside for ``constant``.
        order: order of the interpolating spline, 0 to 5.

    Returns:
        The warped image, of the same shape.

    Raises:
        InvalidArgument: the axes are not those of an image (also a ``ValueError``).
        MissingDependency: this Python lacks scipy (the extra ``daemon``).
    """
    affine = Affine(theta, tx, ty, shear, zx, zy)
    return _warp(x, affine, (row_axis, col_axis, channel_axis), fill_mode, cval, order)


def random_rotation(
    x: Array,
    rg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Rotates one image by an angle that is drawn from NumPy's global generator.

    Args:
        x: image of rank 3.
        rg: largest angle in degrees, in both directions.
        row_axis: axis of the image's rows.
        col_axis: axis of its columns.
        channel_axis: axis of its channels: 0 or 2.
        fill_mode: outside of the image: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: value outside for ``constant``.
        interpolation_order: order of the interpolating spline, 0 to 5.

    Raises:
        InvalidArgument: the axes are not those of an image (also a ``ValueError``).
        MissingDependency: this Python lacks scipy (the extra ``daemon``).
    """
    affine = Affine(theta=np.random.uniform(-rg, rg))
    axes = (row_axis, col_axis, channel_axis)
    return _warp(x, affine, axes, fill_mode, cval, interpolation_order)


def random_shift(
    x: Array,
    wrg: float,
    hrg: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Shifts one image by distances that are drawn from NumPy's global generator.

    Args:
        x: image of rank 3.
        wrg: largest shift, as a fraction of the width, in both directions.
        hrg: largest shift, as a fraction of the height.
        row_axis: axis of the image's rows.
        col_axis: axis of its columns.
        channel_axis: axis of its channels: 0 or 2.
        fill_mode: outside of the image: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: value outside for ``constant``.
        interpolation_order: order of the interpolating spline, 0 to 5.

    Raises:
        InvalidArgument: the axes are not those of an image (also a ``ValueError``).
        MissingDependency: this Python lacks scipy (the extra ``daemon``).
    """
    height, width = x.shape[row_axis], x.shape[col_axis]
    affine = Affine(
        tx=np.random.uniform(-hrg, hrg) * height, ty=np.random.uniform(-wrg, wrg) * width
    )
    axes = (row_axis, col_axis, channel_axis)
    return _warp(x, affine, axes, fill_mode, cval, interpolation_order)


def random_shear(
    x: Array,
    intensity: float,
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Shears one image by an angle that is drawn from NumPy's global generator.

    Args:
        x: image of rank 3.
        intensity: largest shear angle in degrees, in both directions.
        row_axis: axis of the image's rows.
        col_axis: axis of its columns.
        channel_axis: axis of its channels: 0 or 2.
        fill_mode: outside of the image: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: value outside for ``constant``.
        interpolation_order: order of the interpolating spline, 0 to 5.

    Raises:
        InvalidArgument: the axes are not those of an image (also a ``ValueError``).
        MissingDependency: this Python lacks scipy (the extra ``daemon``).
    """
    affine = Affine(shear=np.random.uniform(-intensity, intensity))
    axes = (row_axis, col_axis, channel_axis)
    return _warp(x, affine, axes, fill_mode, cval, interpolation_order)


def random_zoom(
    x: Array,
    zoom_range: Sequence[float],
    row_axis: int = 1,
    col_axis: int = 2,
    channel_axis: int = 0,
    fill_mode: str = "nearest",
    cval: float = 0.0,
    interpolation_order: int = 1,
) -> Array:
    """Zooms one image by factors, one for each axis, drawn from NumPy's global generator.

    Args:
        x: image of rank 3.
        zoom_range: ``(lower, upper)`` between which both factors are drawn.
        row_axis: axis of the image's rows.
        col_axis: axis of its columns.
        channel_axis: axis of its channels: 0 or 2.
        fill_mode: outside of the image: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: value outside for ``constant``.
        interpolation_order: order of the interpolating spline, 0 to 5.

    Raises:
        InvalidArgument: ``zoom_range`` has not two values, or the axes are not those of an image
            (also a ``ValueError``).
        MissingDependency: this Python lacks scipy (the extra ``daemon``).
    """
    if len(zoom_range) != 2:
        raise InvalidArgument(
            f"`zoom_range` should be a tuple or list of two floats. Received: {zoom_range}"
        )
    low, high = zoom_range
    zx, zy = (1, 1) if low == 1 and high == 1 else np.random.uniform(low, high, 2)
    affine = Affine(zx=zx, zy=zy)
    axes = (row_axis, col_axis, channel_axis)
    return _warp(x, affine, axes, fill_mode, cval, interpolation_order)


def apply_channel_shift(x: Array, intensity: float, channel_axis: int = 0) -> Array:
    """Adds grey levels to one image, and clips them to the image's own range.

    Args:
        x: image of rank 3.
        intensity: grey levels to add; may be negative.
        channel_axis: axis of its channels.
    """
    shifted: Array = _augment().shift_channels(x, intensity, channel_axis)
    return shifted


def random_channel_shift(x: Array, intensity_range: float, channel_axis: int = 0) -> Array:
    """Adds a random number of grey levels to one image, clipped to the image's own range.

    Draws from NumPy's global generator.

    Args:
        x: image of rank 3.
        intensity_range: largest number of grey levels, in both directions.
        channel_axis: axis of its channels.
    """
    intensity = np.random.uniform(-intensity_range, intensity_range)
    return apply_channel_shift(x, intensity, channel_axis)


def apply_brightness_shift(x: Array, brightness: float, scale: bool = True) -> Array:
    """Multiplies the brightness of one image, by way of a picture of 8 bits.

    Args:
        x: image of rank 3, in Keras's image data format.
        brightness: the factor.
        scale: whether the image's range is stretched to 0 to 255 before.

    Raises:
        MissingDependency: this Python lacks Pillow (the extra ``daemon``).
    """
    x = np.asarray(x)
    return _brighten(x, brightness, scale, first=adapter.image_data_format() == "channels_first")


def random_brightness(x: Array, brightness_range: Sequence[float], scale: bool = True) -> Array:
    """Multiplies the brightness of one image by a factor drawn from NumPy's global generator.

    Args:
        x: image of rank 3, in Keras's image data format.
        brightness_range: ``(lower, upper)`` between which the factor is drawn.
        scale: whether the image's range is stretched to 0 to 255 before.

    Raises:
        InvalidArgument: ``brightness_range`` has not two values (also a ``ValueError``).
        MissingDependency: this Python lacks Pillow (the extra ``daemon``).
    """
    if len(brightness_range) != 2:
        raise InvalidArgument(
            f"`brightness_range should be tuple or list of two floats. Received: {brightness_range}"
        )
    low, high = brightness_range
    return apply_brightness_shift(x, np.random.uniform(low, high), scale)
