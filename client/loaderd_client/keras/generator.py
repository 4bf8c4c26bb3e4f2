"""``ImageDataGenerator``: Keras's arguments and methods, rendered by a daemon.

The arguments, their checks and the words of the errors follow
``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, get_args

from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.spec.base import Compat, DataFormat, FillMode
from loaderd_client.core import arguments
from loaderd_client.keras import adapter
from loaderd_client.keras.flows import Flows

Array = NDArray[Any]

_AXES: dict[DataFormat, tuple[int, int, int]] = {
    "channels_last": (1, 2, 3),
    "channels_first": (2, 3, 1),
}


class ImageDataGenerator(Flows):
    """Loads and augments images in parallel; takes Keras's place by its name.

    Args:
        featurewise_center: takes the dataset's mean away; see ``fit``.
        samplewise_center: takes each image's mean away.
        featurewise_std_normalization: divides by the dataset's standard deviation.
        samplewise_std_normalization: divides each image by its standard deviation.
        zca_whitening: applies ZCA whitening; see ``fit``.
        zca_epsilon: keeps the whitening from dividing by zero.
        rotation_range: degrees.
        width_shift_range: fraction of the width if below 1, else pixels; an int or a
            list of numbers is a choice of pixels.
        height_shift_range: the same for the height.
        brightness_range: two factors between which one is drawn.
        shear_range: degrees.
        zoom_range: ``[lower, upper]``, or a float f for ``[1 - f, 1 + f]``.
        channel_shift_range: grey levels.
        fill_mode: ``nearest``, ``constant``, ``reflect`` or ``wrap``.
        cval: the value outside the image for ``fill_mode="constant"``.
        horizontal_flip: flips half of the images left to right.
        vertical_flip: flips half of the images upside down.
        rescale: a factor applied after all of the above; None or 0 leaves the values.
        preprocessing_function: takes one image, (height, width, channels), and returns one
            of the same shape; called before ``rescale``, in the workers.
        data_format: ``channels_last`` or ``channels_first``; None is Keras's setting.
        validation_split: fraction of the samples that ``subset="validation"`` takes, the
            rest being ``subset="training"``.
        interpolation_order: of the spline that warps interpolate with; 1 is the fast one.
        dtype: of the batches; None is Keras's ``floatx``.
        compat: ``"keras"`` keeps what Keras does against its own words: the shift axes are
            swapped, images that are not square are rotated off their centre, the validation
            subset is augmented, grey images of 16 bits saturate. ``"fixed"`` mends the four.

    Raises:
        InvalidArgument: a value that is not allowed (also a ``ValueError``).
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: float | Sequence[float] = 0.0,
        height_shift_range: float | Sequence[float] = 0.0,
        brightness_range: Sequence[float] | None = None,
        shear_range: float = 0.0,
        zoom_range: float | Sequence[float] = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: FillMode = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Array], Array] | None = None,
        data_format: DataFormat | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: Any = None,
        *,
        compat: Compat = "keras",
    ) -> None:
        arguments.one_of("compat", compat, get_args(Compat))
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = _brightness(brightness_range)
        self.shear_range = shear_range
        self.zoom_range = arguments.zoom(zoom_range)
        self.channel_shift_range = channel_shift_range
        self.fill_mode: FillMode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.data_format: DataFormat = _data_format(data_format)
        self.row_axis, self.col_axis, self.channel_axis = _AXES[self.data_format]
        self._validation_split = _split(validation_split)
        self.interpolation_order = interpolation_order
        self.dtype = adapter.floatx() if dtype is None else dtype
        self.compat: Compat = compat
        self.mean: Array | None = None
        self.std: Array | None = None
        self.zca_whitening_matrix: Array | None = None
        self._override()

    def _override(self) -> None:
        """Keras's rules about what includes or excludes what, with its warnings."""
        if self.zca_whitening:
            self._imply("zca_whitening", "featurewise_center", True)
            self._imply("zca_whitening", "featurewise_std_normalization", False)
        if self.featurewise_std_normalization:
            self._imply("featurewise_std_normalization", "featurewise_center", True)
        if self.samplewise_std_normalization:
            self._imply("samplewise_std_normalization", "samplewise_center", True)

    def _imply(self, what: str, flag: str, value: bool) -> None:
        if bool(getattr(self, flag)) is not value:
            setattr(self, flag, value)
            warnings.warn(
                f"This ImageDataGenerator specifies `{what}`, which overrides setting of `{flag}`.",
                stacklevel=4,
            )

    def standardize(self, x: Array) -> Array:
        """Normalizes an image or a batch, in place where that can be done.

        Args:
            x: floats; (…, height, width, channels), or as ``data_format`` says.

        Returns:
            The normalized images.
        """
        from loaderd_client.keras import in_process

        return in_process.standardize(self, x)

    def get_random_transform(
        self, img_shape: Sequence[int], seed: int | None = None
    ) -> dict[str, Any]:
        """Random parameters for one image, drawn from NumPy's global generator.

        Args:
            img_shape: of the image.
            seed: what to seed the generator with before; None leaves it.

        Returns:
            ``theta, tx, ty, shear, zx, zy, flip_horizontal, flip_vertical,
            channel_shift_intensity, brightness``.
        """
        from loaderd_client.keras import in_process

        return in_process.get_random_transform(self, img_shape, seed)

    def apply_transform(self, x: Array, transform_parameters: dict[str, Any]) -> Array:
        """One image, transformed as the parameters say.

        Args:
            x: (height, width, channels), or as ``data_format`` says.
            transform_parameters: what ``get_random_transform`` returns; any may be missing.

        Raises:
            MissingDependency: this Python has no decoders (the extra ``daemon``).
        """
        from loaderd_client.keras import in_process

        return in_process.apply_transform(self, x, transform_parameters)

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """One image, transformed at random.

        Args:
            x: (height, width, channels), or as ``data_format`` says.
            seed: as for ``get_random_transform``.

        Raises:
            MissingDependency: this Python has no decoders (the extra ``daemon``).
        """
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Computes the statistics that the featurewise options and whitening need.

        Args:
            x: images of rank 4.
            augment: whether to compute them of augmented images.
            rounds: how often each image is augmented.
            seed: what to seed NumPy's global generator with before; None leaves it.

        Raises:
            InvalidArgument: ``x`` has another rank (also a ``ValueError``).
        """
        from loaderd_client.keras import in_process

        in_process.fit(self, x, augment, rounds, seed)


def _data_format(value: Any) -> DataFormat:
    value = adapter.image_data_format() if value is None else arguments.plain(value)
    if not arguments.is_one_of(value, _AXES):
        raise InvalidArgument(
            '`data_format` should be `"channels_last"` (channel after row and column) or '
            '`"channels_first"` (channel before row and column). '
            f"Received: {value}"
        )
    return value  # type: ignore[no-any-return]  # it is one of them


def _split(validation_split: Any) -> float:
    share = 0.0
    if validation_split is not None:
        share = arguments.share("validation_split", validation_split)
    if share and not 0 < share < 1:
        raise InvalidArgument(
            f"`validation_split` must be strictly between 0 and 1.  Received: {validation_split}"
        )
    return share


def _brightness(brightness_range: Any) -> Sequence[float] | None:
    if brightness_range is not None and (
        not isinstance(brightness_range, (tuple, list)) or len(brightness_range) != 2
    ):
        raise InvalidArgument(
            f"`brightness_range should be tuple or list of two floats. Received: {brightness_range}"
        )
    return brightness_range


__all__ = ("ImageDataGenerator",)
