"""The attributes of an ``ImageDataGenerator``, from which specs are made.

Checks and error messages follow ``keras/src/legacy/preprocessing/image.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.spec.base import Compat, DataFormat, FillMode, Precision
from loaderd_client.core import arguments
from loaderd_client.core.user_warnings import warn
from loaderd_client.keras import adapter

Array = NDArray[Any]

_AXES: dict[DataFormat, tuple[int, int, int]] = {
    "channels_last": (1, 2, 3),
    "channels_first": (2, 3, 1),
}


class Augmentation:
    """The options of a generator; ``ImageDataGenerator`` documents the arguments."""

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
        precision: Precision = "exact",
    ) -> None:
        arguments.one_of("compat", compat, get_args(Compat))
        arguments.one_of("precision", precision, get_args(Precision))
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
        self.precision: Precision = precision
        self.mean: Array | None = None
        self.std: Array | None = None
        self.zca_whitening_matrix: Array | None = None
        self._override()

    def _override(self) -> None:
        """Applies Keras's rules on flags that imply or exclude others, with its warnings."""
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
            warn(
                f"This ImageDataGenerator specifies `{what}`, which overrides setting of `{flag}`.",
            )

    def overridden(self) -> str | None:
        """The name of an overridden method that workers would not call; None if there is none."""
        return None


def _data_format(value: Any) -> DataFormat:
    value = adapter.image_data_format() if value is None else arguments.plain(value)
    if not arguments.is_one_of(value, _AXES):
        raise InvalidArgument(
            '`data_format` should be `"channels_last"` (channel after row and column) or '
            '`"channels_first"` (channel before row and column). '
            f"Received: {value}"
        )
    return value  # type: ignore[no-any-return]  # it is one of them


def _split(split: Any) -> float:
    share = 0.0 if split is None else arguments.share("validation_split", split)
    if share and not 0 < share < 1:
        raise InvalidArgument(
            f"`validation_split` must be strictly between 0 and 1.  Received: {split}"
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
