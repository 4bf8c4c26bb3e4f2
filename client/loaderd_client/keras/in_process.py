"""What Keras's generator and its module compute on the spot, in the trainer itself.

Every value is Keras's own, also that of warps: scipy computes them here. PIL and scipy are
loaded when they are needed first; the trainer has them if the extra ``daemon`` is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument, MissingDependency
from loaderd.render.transforms.normalize import Normalization
from loaderd.sampling.keras_draws import draw
from loaderd.spec.transform import Transform
from loaderd_client.keras import adapter
from loaderd_client.keras.augmentation import Augmentation
from loaderd_client.keras.compile_spec import warn_unfit

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
    for flag, value in (
        ("featurewise_center", generator.mean),
        ("featurewise_std_normalization", generator.std),
        ("zca_whitening", generator.zca_whitening_matrix),
    ):
        if getattr(generator, flag) and value is None:
            warn_unfit(flag)
    return Normalization(
        generator.preprocessing_function,
        generator.rescale,
        generator.samplewise_center,
        generator.samplewise_std_normalization,
        generator.mean if generator.featurewise_center else None,
        generator.std if generator.featurewise_std_normalization else None,
        generator.zca_whitening_matrix if generator.zca_whitening else None,
    )(x)


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
    rows, columns, channels = (
        axis - 1 for axis in (generator.row_axis, generator.col_axis, generator.channel_axis)
    )
    known = {name: parameters[name] for name in Transform._fields if name in parameters}
    transform = Transform(**known)
    augment.check_axes(x, (rows, columns, channels))
    x = augment.apply_affine(
        x,
        transform,
        (rows, columns, channels),
        fill_mode=generator.fill_mode,
        cval=generator.cval,
        order=generator.interpolation_order,
        fixed=generator.compat == "fixed",
    )
    if transform.channel_shift_intensity is not None:
        x = augment.shift_channels(x, transform.channel_shift_intensity, channels)
    if transform.flip_horizontal:
        x = augment.flip_axis(x, columns)
    if transform.flip_vertical:
        x = augment.flip_axis(x, rows)
    if transform.brightness is not None:
        # Keras looks where its setting says; images that are as the generator says win.
        first = channels == 0 and x.shape[0] in (1, 3, 4)
        x = _brighten(x, transform.brightness, False, first)
    return x


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
    x = np.array(x, dtype=generator.dtype)
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
        generator.zca_whitening_matrix = _whitening(x, generator.zca_epsilon)


def _whitening(x: Array, epsilon: float) -> Array:
    flat = np.reshape(x, (len(x), -1))
    u, s, _ = np.linalg.svd(flat.T, full_matrices=False)
    inverse = np.sqrt(len(x)) / (s + epsilon)
    matrix: Array = (u * inverse).dot(u.T)
    return matrix


def _check_images(generator: Augmentation, x: Array) -> None:
    if x.ndim != 4:
        raise InvalidArgument(
            f"Input to `.fit()` should have rank 4. Got array with shape: {x.shape}"
        )
    axis = generator.channel_axis
    if x.shape[axis] not in {1, 3, 4}:
        warnings.warn(
            "Expected input to be images (as Numpy array) following the data format convention "
            f'"{generator.data_format}" (channels on axis {axis}), i.e. expected either 1, 3 or '
            f"4 channels on axis {axis}. However, it was passed an array with shape {x.shape} "
            f"({x.shape[axis]} channels).",
            stacklevel=4,
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
    """One image, warped about its centre: rotation · shift · shear · zoom.

    Args:
        x: an image of rank 3.
        theta: rotation in degrees.
        tx: the first shift, in pixels.
        ty: the second shift, in pixels.
        shear: angle in degrees.
        zx: the first zoom factor.
        zy: the second zoom factor.
        row_axis: where the image has its rows.
        col_axis: where it has its columns.
        channel_axis: where it has its channels: 0 or 2.
        fill_mode: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: the value outside for ``constant``.
        order: of the interpolating spline, 0 to 5.

    Raises:
        InvalidArgument: the axes are not those of an image (also a ``ValueError``).
        MissingDependency: this Python lacks scipy (the extra ``daemon``).
    """
    augment = _augment()
    axes = (row_axis, col_axis, channel_axis)
    augment.check_axes(x, axes)
    transform = Transform(theta, tx, ty, shear, zx, zy)
    warped: Array = augment.apply_affine(
        x, transform, axes, fill_mode=fill_mode, cval=cval, order=order
    )
    return warped


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
    """One image, rotated by up to ``rg`` degrees; see ``apply_affine_transform``."""
    return apply_affine_transform(
        x,
        theta=np.random.uniform(-rg, rg),
        row_axis=row_axis,
        col_axis=col_axis,
        channel_axis=channel_axis,
        fill_mode=fill_mode,
        cval=cval,
        order=interpolation_order,
    )


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
    """One image, shifted by up to these fractions of width and height."""
    height, width = x.shape[row_axis], x.shape[col_axis]
    return apply_affine_transform(
        x,
        tx=np.random.uniform(-hrg, hrg) * height,
        ty=np.random.uniform(-wrg, wrg) * width,
        row_axis=row_axis,
        col_axis=col_axis,
        channel_axis=channel_axis,
        fill_mode=fill_mode,
        cval=cval,
        order=interpolation_order,
    )


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
    """One image, sheared by up to ``intensity`` degrees."""
    return apply_affine_transform(
        x,
        shear=np.random.uniform(-intensity, intensity),
        row_axis=row_axis,
        col_axis=col_axis,
        channel_axis=channel_axis,
        fill_mode=fill_mode,
        cval=cval,
        order=interpolation_order,
    )


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
    """One image, zoomed by factors between the two of ``zoom_range``.

    Raises:
        InvalidArgument: there are not two (also a ``ValueError``).
    """
    if len(zoom_range) != 2:
        raise InvalidArgument(
            f"`zoom_range` should be a tuple or list of two floats. Received: {zoom_range}"
        )
    low, high = zoom_range
    zx, zy = (1, 1) if low == 1 and high == 1 else np.random.uniform(low, high, 2)
    return apply_affine_transform(
        x,
        zx=zx,
        zy=zy,
        row_axis=row_axis,
        col_axis=col_axis,
        channel_axis=channel_axis,
        fill_mode=fill_mode,
        cval=cval,
        order=interpolation_order,
    )


def apply_channel_shift(x: Array, intensity: float, channel_axis: int = 0) -> Array:
    """One image with ``intensity`` grey levels added, kept within its own range."""
    shifted: Array = _augment().shift_channels(x, intensity, channel_axis)
    return shifted


def random_channel_shift(x: Array, intensity_range: float, channel_axis: int = 0) -> Array:
    """One image with up to ``intensity_range`` grey levels added or taken away."""
    intensity = np.random.uniform(-intensity_range, intensity_range)
    return apply_channel_shift(x, intensity, channel_axis)


def apply_brightness_shift(x: Array, brightness: float, scale: bool = True) -> Array:
    """One image with its brightness multiplied, by way of a picture of 8 bits.

    Args:
        x: an image of rank 3, in Keras's image data format.
        brightness: a factor.
        scale: whether its range is stretched to 0 to 255 before.

    Raises:
        MissingDependency: this Python lacks Pillow (the extra ``daemon``).
    """
    x = np.asarray(x)
    return _brighten(x, brightness, scale, first=adapter.image_data_format() == "channels_first")


def random_brightness(x: Array, brightness_range: Sequence[float], scale: bool = True) -> Array:
    """One image with its brightness multiplied by a factor between the two of the range.

    Raises:
        InvalidArgument: there are not two (also a ``ValueError``).
    """
    if len(brightness_range) != 2:
        raise InvalidArgument(
            f"`brightness_range should be tuple or list of two floats. Received: {brightness_range}"
        )
    low, high = brightness_range
    return apply_brightness_shift(x, np.random.uniform(low, high), scale)
