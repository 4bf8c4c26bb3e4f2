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
"""Methods that workers do not call, as they read the attributes."""


class ImageDataGenerator(FileFlows):
    """Loads and augments images in parallel; replaces Keras's class of that name.

    Rotation, shift, shear and zoom are computed as one warp. After it come, in this order: channel
    shift, flips, brightness, ``preprocessing_function``, ``rescale``, samplewise and featurewise
    centring and division, whitening. Attributes have the names of the arguments; they may be
    assigned at any time, and count from the next batch on.

    Args:
        featurewise_center: subtracts the dataset's mean, one value for each channel; needs ``fit``.
        samplewise_center: subtracts each image's own mean.
        featurewise_std_normalization: divides by the dataset's standard deviation, one value for
            each channel; needs ``fit``. Sets ``featurewise_center``, with a warning.
        samplewise_std_normalization: divides each image by its own standard deviation. Sets
            ``samplewise_center``, with a warning.
        zca_whitening: applies ZCA whitening; needs ``fit``. Sets ``featurewise_center`` and clears
            ``featurewise_std_normalization``, with a warning.
        zca_epsilon: keeps the whitening from dividing by zero.
        rotation_range: largest rotation in degrees, in both directions.
        width_shift_range: largest shift along the width, in both directions. A float below 1 is a
            fraction of the width, from 1 on a number of pixels; a positive int n means 0 to n - 1
            whole pixels, a list one of its values in pixels, both with a random sign. See
            ``compat``.
        height_shift_range: the same along the height.
        brightness_range: ``(lower, upper)``: the brightness is multiplied by a factor between them.
        shear_range: largest shear angle in degrees, in both directions.
        zoom_range: ``[lower, upper]``, between which one factor for the height and one for the
            width are drawn. A float f means ``[1 - f, 1 + f]``.
        channel_shift_range: largest number of grey levels that is added to, or subtracted from, all
            channels.
        fill_mode: what a warp finds outside of the image: ``nearest`` (the border's pixel),
            ``constant`` (``cval``), ``reflect`` or ``wrap``.
        cval: value outside of the image for ``fill_mode="constant"``, in grey levels.
        horizontal_flip: flips half of the images left to right.
        vertical_flip: flips half of the images upside down.
        rescale: factor that all values are multiplied by, before centring, division and whitening;
            None and 0 leave them.
        preprocessing_function: takes one image, of shape (height, width, channels) or as
            ``data_format`` says and of Keras's ``floatx``, and returns one of the same shape. It is
            called in the workers, after the random transform and before ``rescale``.
        data_format: ``channels_last`` or ``channels_first``; None is Keras's setting.
        validation_split: fraction, 0 to 1, that ``subset="validation"`` takes: of each class's
            files in a directory, of all samples in an array or a table. ``subset="training"`` takes
            the rest.
        interpolation_order: order of the spline that warps interpolate with, 0 to 5; any but 1 is
            slower.
        dtype: dtype of the batches: ``float16``, ``bfloat16``, ``float32``, ``float64``, ``int8``
            to ``int64``, or ``uint8`` to ``uint64``; whole numbers drop the fractions.
            ``bfloat16``, which needs ``ml_dtypes``, is computed in float32 and rounded once, to
            nearest even. None is Keras's ``floatx``.
        compat: ``"keras"`` does what Keras does against its own documentation:
            ``width_shift_range`` moves rows and ``height_shift_range`` columns, images that are not
            square are rotated, sheared and zoomed about a point off their centre,
            ``subset="validation"`` is augmented, grey images of 16 bits are clipped at 255 in
            ``rgb`` and ``rgba``, and the sample weights of an array's subset are not split.
            ``"fixed"`` fixes all five.
        precision: ``"exact"`` gives warps the values of Keras to the last bit. ``"fast"`` takes
            about half the time: it interpolates in float32, within 0.01 grey levels of them, where
            ``interpolation_order`` is 1.

    Raises:
        InvalidArgument: a value is not allowed (also a ``ValueError``).
        InvalidType: a value is of a type that is not allowed (also a ``TypeError``).
    """

    def standardize(self, x: Array) -> Array:
        """Normalizes an image or a batch in this process, in place where that can be done.

        Applies, as the generator's arguments say, ``preprocessing_function``, ``rescale``,
        centring, division and whitening.

        Args:
            x: floats; (…, height, width, channels), or as ``data_format`` says.

        Returns:
            The normalized images.
        """
        return in_process.standardize(self, x)

    def get_random_transform(
        self, img_shape: Sequence[int], seed: int | None = None
    ) -> dict[str, Any]:
        """Draws random parameters for one image from NumPy's global generator.

        Args:
            img_shape: shape of the image, of rank 3.
            seed: seeds the generator first; None leaves its state.

        Returns:
            A dict of ``theta`` (degrees), ``tx`` and ``ty`` (pixels), ``shear`` (degrees), ``zx``
            and ``zy`` (factors), ``flip_horizontal``, ``flip_vertical``,
            ``channel_shift_intensity`` (grey levels, or None) and ``brightness`` (a factor, or
            None).
        """
        return in_process.get_random_transform(self, img_shape, seed)

    def apply_transform(self, x: Array, transform_parameters: dict[str, Any]) -> Array:
        """Transforms one image as the parameters say, in this process.

        Args:
            x: image of shape (height, width, channels), or as ``data_format`` says.
            transform_parameters: what ``get_random_transform`` returns; keys may be missing.

        Returns:
            The transformed image, of the same shape.

        Raises:
            MissingDependency: this Python has no decoders (the extra ``daemon``).
        """
        return in_process.apply_transform(self, x, transform_parameters)

    def random_transform(self, x: Array, seed: int | None = None) -> Array:
        """Transforms one image at random, in this process.

        Args:
            x: image of shape (height, width, channels), or as ``data_format`` says.
            seed: as for ``get_random_transform``.

        Returns:
            The transformed image, of the same shape.

        Raises:
            MissingDependency: this Python has no decoders (the extra ``daemon``).
        """
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Computes the statistics that featurewise centring and division and whitening need.

        Sets ``mean``, ``std`` and ``zca_whitening_matrix``, as far as the arguments ask for them.
        Runs in this process.

        Args:
            x: images of rank 4: (samples, height, width, channels), or as ``data_format`` says.
            augment: whether to compute them of augmented images.
            rounds: with ``augment``, how often each image is augmented.
            seed: seeds NumPy's global generator first; None leaves its state.

        Raises:
            InvalidArgument: ``x`` has another rank (also a ``ValueError``).
            MissingDependency: ``augment`` is set, and this Python has no scipy or Pillow (the extra
                ``daemon``).
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
        """Makes batches of images that are in memory.

        The images are copied to shared memory once, in their own dtype; labels, weights and further
        inputs stay where they are.

        Args:
            x: images of rank 4, or ``(images, arrays)``, where the arrays are further inputs with
                as many rows.
            y: labels: one row for each image, of any shape.
            batch_size: samples in a batch; the last batch of an epoch may have fewer.
            shuffle: whether every epoch has a new order.
            sample_weight: one weight for each image.
            seed: as for ``flow_from_directory``.
            save_to_dir: as for ``flow_from_directory``.
            save_prefix: what the pictures' names begin with.
            save_format: file extension of the pictures: ``png``, ``jpg``, ….
            ignore_class_split: allows subsets that lack classes.
            subset: ``"validation"``, the first ``validation_split`` of the images, or
                ``"training"``, the rest; None takes all.
            max_queue_size: batches that the daemon keeps ready.
            workers: accepted for old programs, without effect.
            use_multiprocessing: the same.

        Returns:
            An iterator over (images, labels), (images, labels, weights) or images alone. Images are
            of shape (rows, height, width, channels), or as ``data_format`` says, and of the
            generator's dtype.

        Raises:
            InvalidArgument: a value is not allowed (also a ``ValueError``).
            EmptyDataset: there are no images (also a ``ValueError``).
            NoRoom: the images, or the ring, do not fit in memory (also a ``MemoryError``).
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
        """The name of a computing method that a subclass or the program overrides; else None."""
        for name in _COMPUTED:
            ours = getattr(ImageDataGenerator, name)
            if getattr(type(self), name) is not ours or name in vars(self):
                return name
        return None


for _method in (
    ImageDataGenerator.__init__,
    ImageDataGenerator.flow_from_directory,
    ImageDataGenerator.flow_from_dataframe,
):  # a TypeError for their arguments has this name
    _method.__qualname__ = f"ImageDataGenerator.{_method.__name__}"
