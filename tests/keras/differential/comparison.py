"""Runs an example on both sides, batch by batch, and says where they part."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume, reject
from numpy.typing import NDArray
from PIL import Image

from tests.keras.differential.cases import Case, shape_of_arrays
from tests.keras.differential.corpus import pattern
from tests.keras.differential.oracle import Box, Step, allowed, is_exact
from tests.keras.differential.surface import KERAS_WITH_ITSELF, keras_image, ours

Pixels = NDArray[Any]
Flow = Callable[[Any, str | None], Any]
"""Makes an iterator from a generator and ``save_to_dir``."""

EPOCHS = 2
AHEAD = 40  # batches
ATTRIBUTES = [
    *("filenames", "filepaths", "classes", "class_indices", "labels"),
    *("samples", "n", "batch_size", "image_shape"),
]
STATISTICS = ("mean", "std", "zca_whitening_matrix")


class Diary(keras_image.ImageDataGenerator):  # type: ignore[misc]
    """Keras's generator, which writes down what it does to each image."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.steps: list[Step] = []
        self._started: list[tuple[Pixels, dict[str, Any]]] = []

    def apply_transform(self, x: Pixels, parameters: dict[str, Any]) -> Pixels:
        self._started.append((x.copy(), dict(parameters)))
        moved: Pixels = super().apply_transform(x, parameters)
        return moved

    def standardize(self, x: Pixels) -> Pixels:
        result: Pixels = super().standardize(x)
        if self._started:
            self.steps.append(Step(*self._started.pop(), result.copy()))
        return result

    def take_steps(self) -> list[Step]:
        steps = self.steps
        self.steps, self._started = [], []
        return steps


class Pair(NamedTuple):
    """The same thing of ours and of Keras's."""

    ours: Any
    keras: Any


def compare_methods(case: Case, images: Pixels) -> None:
    """``random_transform`` and ``standardize`` do the same, or both raise."""
    shape = shape_of_arrays(case)
    seed = case.flow["seed"]

    def rows(generator: Any) -> Iterator[Pixels]:
        _fit(generator, case, shape)
        for index, image in enumerate(images):
            yield generator.standardize(generator.random_transform(image.copy(), seed + index))

    diary = Diary(**case.built())
    try:
        wanted = list(rows(diary))
    except (ValueError, TypeError) as error:
        _raises_too(error, lambda: list(rows(ours.ImageDataGenerator(**case.built()))))
        return
    except RuntimeError:
        reject()
    steps = diary.take_steps()[-len(images) :]
    generator = ours.ImageDataGenerator(**case.built())
    for index, row in enumerate(rows(generator)):
        _same_kind(f"image {index}", row, wanted[index])
        same_row(f"image {index}", Pair(row, wanted[index]), steps[index], diary)
    _same_statistics(Pair(generator, diary))
    _same_parameters(Pair(generator, diary), case, shape)


class Run(NamedTuple):
    """What Keras gave in two epochs."""

    generator: Diary
    iterator: Any
    batches: list[tuple[Any, list[Step]]]
    saved: dict[str, Pixels]


def compare(case: Case, flow: Flow, image_shape: tuple[int, int, int], folder: str) -> None:
    """Two epochs of an example give the same, or both raise.

    Args:
        case: the example.
        flow: makes its iterator.
        image_shape: (height, width, channels) of what it gives.
        folder: for saved pictures; it must live until our workers stop.
    """
    places = Pair(*(_place(folder, side, case) for side in Pair._fields))
    try:
        run = _run_keras(case, flow, image_shape, places.keras)
    except (ValueError, TypeError) as error:
        _raises_too(error, lambda: _compare_with(None, case, flow, image_shape, places.ours))
        return
    except RuntimeError:
        reject()  # scipy's own, which cannot warp float16: nothing that Keras promises
    assume(run.iterator.n)  # no images: an error of ours on purpose
    exact = _compare_with(run, case, flow, image_shape, places.ours)
    if case.saves:
        _same_pictures(places, run, exact)


def _place(folder: str, side: str, case: Case) -> str | None:
    if not case.saves:
        return None
    os.mkdir(place := os.path.join(folder, side))
    return place


def _run_keras(case: Case, flow: Flow, image_shape: tuple[int, int, int], place: str | None) -> Run:
    generator = Diary(**case.built())
    _fit(generator, case, image_shape)
    generator.take_steps()
    iterator = flow(generator, place)
    count = EPOCHS * len(iterator)
    batches = [(next(iterator), generator.take_steps()) for _ in range(count)]
    return Run(generator, iterator, batches, _pictures(place) if place else {})


def _raises_too(error: Exception, call: Callable[[], object]) -> None:
    try:
        call()
    except (ValueError, TypeError):
        return
    except Exception as other:
        raise AssertionError(f"Keras raises {error!r}, but ours {other!r}") from other
    raise AssertionError(f"Keras raises {error!r}, but ours nothing")


def _compare_with(
    run: Run | None, case: Case, flow: Flow, image_shape: tuple[int, int, int], place: str | None
) -> bool:
    """Runs ours, and compares if there is something to compare with: were all rows exact?"""
    generator = ours.ImageDataGenerator(**case.built())
    _fit(generator, case, image_shape)
    if run is not None:
        _same_statistics(Pair(generator, run.generator))
        _same_parameters(Pair(generator, run.generator), case, image_shape)
    iterator = flow(generator, place)
    if run is None:
        for _ in range(EPOCHS * len(iterator)):
            next(iterator)
        return True
    _same_attributes(Pair(iterator, run.iterator))
    for number, (batch, steps) in enumerate(run.batches):
        same_batch(f"batch {number}", Pair(next(iterator), batch), steps, run.generator)
    return is_exact(run.generator)


def _fit(generator: Any, case: Case, image_shape: tuple[int, int, int]) -> None:
    if case.fit is None:
        return
    images = np.stack([pattern(*image_shape, case.fit.seed + i) for i in range(case.fit.images)])
    if case.channels_first():
        images = images.transpose(0, 3, 1, 2)
    generator.fit(images, augment=case.fit.augment, rounds=case.fit.rounds, seed=case.fit.seed)


def _same_statistics(generators: Pair) -> None:
    for name in STATISTICS:
        one, other = getattr(generators.ours, name), getattr(generators.keras, name)
        np.testing.assert_array_equal(one, other, err_msg=f"after fit(): {name}")


def _same_parameters(generators: Pair, case: Case, shape: tuple[int, int, int]) -> None:
    """From the global random state, and from a seed."""
    seed = case.flow["seed"]
    shape = shape if generators.keras.channel_axis == 3 else (shape[2], *shape[:2])
    drawn: list[list[Any]] = []
    for generator in generators:
        np.random.seed(seed)
        draws = [generator.get_random_transform(shape) for _ in range(3)]
        drawn.append([*draws, generator.get_random_transform(shape, seed=seed + 1)])
    assert drawn[0] == drawn[1], f"get_random_transform: {drawn[0]}, but Keras: {drawn[1]}"


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _same_attributes(iterators: Pair) -> None:
    assert len(iterators.ours) == len(iterators.keras), "the numbers of batches"
    for name in ATTRIBUTES:
        if hasattr(iterators.keras, name):  # some class modes have no classes
            one, other = (_listed(getattr(iterator, name)) for iterator in iterators)
            np.testing.assert_equal(one, other, f"the iterator's {name}")


def _listed(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, list) else _plain(value)


def same_batch(where: str, batches: Pair, steps: list[Step], generator: Any) -> None:
    """Fails, with the place, unless our batch is one that Keras's allows."""
    parts = Pair(*(list(_parts(batch, "")) for batch in batches))
    names = Pair(*([name for name, _ in part] for part in parts))
    assert names.ours == names.keras, f"{where}: {names.ours}, but Keras: {names.keras}"
    values = Pair(*([value for _, value in part] for part in parts))
    _same_images(where, Pair(values.ours[0], values.keras[0]), steps, generator)
    for name, one, other in zip(names.keras[1:], values.ours[1:], values.keras[1:], strict=True):
        if other.ndim == 4 and np.array_equal(other, values.keras[0], equal_nan=True):
            other = values.ours[0]  # class_mode="input": the images again, whatever they are
        _same_values(f"{where}, part {name}", one, other)


def _parts(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The arrays in a batch, with their places in its tuples and lists."""
    if not isinstance(value, (tuple, list)):
        yield name or "all", value
        return
    for index, each in enumerate(value):
        yield from _parts(each, f"{name}{type(value).__name__}[{index}]")


def _same_values(where: str, one: Any, other: Any) -> None:
    if isinstance(other, np.ndarray):
        _same_kind(where, one, other)
    np.testing.assert_array_equal(np.asarray(one), np.asarray(other), where)


def _same_kind(where: str, one: Pixels, other: Pixels) -> None:
    assert one.dtype == other.dtype, f"{where}: {one.dtype}, but Keras: {other.dtype}"
    assert one.shape == other.shape, f"{where}: {one.shape}, but Keras: {other.shape}"


def _same_images(where: str, images: Pair, steps: list[Step], generator: Any) -> None:
    _same_kind(where, *images)
    assert len(steps) == len(images.keras)
    for row, step in enumerate(steps):
        same_row(f"{where}, row {row}", Pair(images.ours[row], images.keras[row]), step, generator)


def same_row(where: str, rows: Pair, step: Step, generator: Any) -> None:
    """Fails, with the pixel, unless our row is exact or inside its box."""
    exact = is_exact(generator)
    if not exact:
        box = _in_dtype(allowed(generator, step), rows.keras.dtype)
        _inside(f"THE ORACLE IS WRONG ABOUT KERAS: {where}", rows.keras, rows.keras, box, step)
        _inside(where, rows.ours, rows.keras, box, step)
    if exact or KERAS_WITH_ITSELF:
        _inside(where, rows.ours, rows.keras, _exactly(rows.keras, step), step)


def _exactly(row: Pixels, step: Step) -> Box:
    if not np.issubdtype(row.dtype, np.integer) or step.result.dtype == row.dtype:
        return Box(row, row)
    return _in_dtype(Box(step.result, step.result), row.dtype)


def _in_dtype(box: Box, dtype: Any) -> Box:
    """In the batch's dtype; what does not fit in an integer is nobody's promise."""
    if not np.issubdtype(dtype, np.integer):
        with np.errstate(over="ignore"):
            return Box(box.low.astype(dtype), box.high.astype(dtype))
    info = np.iinfo(dtype)
    fits = (box.low > info.min - 1) & (box.high < info.max + 1)
    return Box(
        np.where(fits, np.trunc(box.low), -np.inf), np.where(fits, np.trunc(box.high), np.inf)
    )


def _inside(where: str, row: Pixels, keras: Pixels, box: Box, step: Step) -> None:
    good = ((row >= box.low) & (row <= box.high)) | (np.isnan(row) & np.isnan(keras))
    if good.all():
        return
    with np.errstate(all="ignore"):
        beyond = np.maximum(box.low - row.astype(float), row.astype(float) - box.high)
    worst = int(np.argmax(np.where(good, -np.inf, np.nan_to_num(beyond))))
    at = tuple(int(index) for index in np.unravel_index(worst, row.shape))
    raise AssertionError(
        f"{where}: {(~good).sum()} of {good.size} values are not as Keras's. The worst, at "
        f"{at}: {row[at]!r}, Keras: {keras[at]!r}, off by {float(row[at]) - float(keras[at])}, "
        f"allowed: {box.low[at]} to {box.high[at]}. The image: {step.image.shape} "
        f"{step.image.dtype}, from {step.image.min()} to {step.image.max()}; its parameters: "
        f"{step.parameters}"
    )


def _same_pictures(places: Pair, run: Run, exact: bool) -> None:
    """The same file names; the same pictures, too, if no image is off at all.

    Our workers are ahead: they may have saved what the next batches will bring, and so
    may have put another picture under a name that Keras's few numbers bring twice.
    """
    saved = set(os.listdir(places.ours))
    lost = set(run.saved) - saved
    assert not lost, f"not saved: {sorted(lost)}; but {sorted(saved)}"
    for _ in range(AHEAD if saved > set(run.saved) else 0):
        next(run.iterator)
    later = _pictures(places.keras)
    extra = saved - set(later)
    assert not extra, f"saved, but never by Keras: {sorted(extra)}"
    for name, picture in run.saved.items():
        one = _picture(Path(places.ours, name))
        _same_kind(f"the saved {name}", one, picture)
        if (exact or KERAS_WITH_ITSELF) and not np.array_equal(one, later[name]):
            np.testing.assert_array_equal(one, picture, f"the saved {name}")


def _pictures(place: str) -> dict[str, Pixels]:
    return {name: _picture(Path(place, name)) for name in sorted(os.listdir(place))}


def _picture(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image)
