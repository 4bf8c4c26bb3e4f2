"""``ImageDataGenerator``: Keras's arguments and methods, rendered by a daemon."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from loaderd_client.keras import in_process
from loaderd_client.keras.flows import FileFlows

if TYPE_CHECKING:
    from loaderd_client.keras.arrays import NumpyArrayIterator

Array = NDArray[Any]

_COMPUTED = ("standardize", "get_random_transform", "apply_transform", "random_transform")
"""Methods that workers do not call: they know the attributes."""


class ImageDataGenerator(FileFlows):
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

    def standardize(self, x: Array) -> Array:
        """Normalizes an image or a batch, in place where that can be done.

        Args:
            x: floats; (…, height, width, channels), or as ``data_format`` says.

        Returns:
            The normalized images.
        """
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
        return in_process.get_random_transform(self, img_shape, seed)

    def apply_transform(self, x: Array, transform_parameters: dict[str, Any]) -> Array:
        """One image, transformed as the parameters say.

        Args:
            x: (height, width, channels), or as ``data_format`` says.
            transform_parameters: what ``get_random_transform`` returns; any may be missing.

        Raises:
            MissingDependency: this Python has no decoders (the extra ``daemon``).
        """
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
        in_process.fit(self, x, self.random_transform if augment else None, rounds, seed)

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | os.PathLike[str] | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
        *,
        max_queue_size: int = 10,
        workers: int = 1,
        use_multiprocessing: bool = False,
    ) -> NumpyArrayIterator:
        """Batches of images that are in memory.

        They are copied to shared memory once: what you hold of them may go.

        Args:
            x: images of rank 4, or ``(images, arrays)`` where the arrays are further inputs
                of as many rows.
            y: labels: one row for each image, of any shape.
            batch_size: samples in a batch; the last of an epoch may be smaller.
            shuffle: a new order for every epoch.
            sample_weight: one for each image.
            seed: decides order and augmentation; None picks one.
            save_to_dir: a folder in which the finished images are kept too.
            save_prefix: what their names begin with.
            save_format: ``png``, ``jpg``, …
            ignore_class_split: allows subsets that lack classes.
            subset: ``training`` or ``validation``, by ``validation_split``.
            max_queue_size: batches that the daemon keeps ready.
            workers: accepted and not needed; see ``flow_from_directory``.
            use_multiprocessing: likewise.

        Raises:
            InvalidArgument: a value that is not allowed (also a ``ValueError``).
            EmptyDataset: there are no images.
            NoRoom: the images, or the ring, do not fit in memory.
        """
        from loaderd_client.keras.arrays import NumpyArrayIterator

        del workers, use_multiprocessing
        return NumpyArrayIterator(
            x,
            y,
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            seed=seed,
            data_format=self.data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            ignore_class_split=ignore_class_split,
            subset=subset,
            dtype=self.dtype,
            max_queue_size=max_queue_size,
        )

    def overridden(self) -> str | None:
        """The name of a computation that a subclass or the program has replaced."""
        for name in _COMPUTED:
            ours = getattr(ImageDataGenerator, name)
            if getattr(type(self), name) is not ours or name in vars(self):
                return name
        return None
