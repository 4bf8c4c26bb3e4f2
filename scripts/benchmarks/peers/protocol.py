"""What every contestant shares: the task, the clock, and the lines that it speaks.

A contestant is started with its task, as JSON, for its only argument. It makes itself warm
and says ``{"ready": …}``; then it answers every line ``{"go": SECONDS}`` with
``{"rate": IMAGES_A_SECOND}``, and ends when its input ends. What goes wrong is
``{"failed": WHY}``. Its libraries may print what they like: that goes to stderr.

Nothing but the standard library is imported here, for every environment has that. NumPy is
asked for only to look at finished batches.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

LEAD = 0.5
"""Seconds for which batches are taken before the clock starts, so that what was made ahead
while others were measured does not count."""

LEAST = 6
"""Batches that a measurement takes, however slow they are."""

STRETCH = 32
"""Samples between two looks at the clock, where samples are counted one by one."""

POOL = 32
"""Decoded pictures to which a single operation is applied, again and again."""


@dataclass(frozen=True)
class Task:
    """What a contestant is to deliver.

    Attributes:
        directory: folder of class folders.
        size: height and width of a finished image.
        interpolation: of the resize: ``nearest``, or ``bilinear`` with antialiasing.
        batch_size: images in a batch.
        dtype: of the images; ``float32`` means divided by 255, or as the recipe says.
        augment: rotation 20, shifts 0.2, shear 0.2, zoom 0.2, horizontal flip.
        recipe: ``crop`` or ``randaugment``, as in ``peers.recipe``; empty for none.
        cached: epochs after the first, with decoded images kept where the contestant can.
        scaled: a decoder may skip detail that the size does not need.
        workers: processes or threads to load with.
        scratch: folder for files that it converts the images to.
        variant: which of the ways the contestant offers.
    """

    directory: str
    size: tuple[int, int]
    interpolation: str = "nearest"
    batch_size: int = 32
    dtype: str = "float32"
    augment: bool = False
    recipe: str = ""
    cached: bool = False
    scaled: bool = False
    workers: int = 2
    scratch: str = ""
    variant: str = ""

    @property
    def is_float(self) -> bool:
        """Whether images are divided by 255."""
        return self.dtype == "float32"


@dataclass(frozen=True)
class Source:
    """Where batches come from.

    Attributes:
        batches: of images, without end.
        ahead: batches that may lie ready; they are taken before the clock starts.
        warm: batches that are taken before the first measurement.
    """

    batches: Iterator[Any]
    ahead: int
    warm: int = 8


Measure = Callable[[float], float]
"""Images a second, measured for so many seconds."""


def serve(make: Callable[[Task], Source]) -> None:
    """Runs a contestant that hands out batches."""

    def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
        source = make(task)
        looks = describe([next(source.batches) for _ in range(2)])
        for _ in range(source.warm):
            next(source.batches)
        return lambda seconds: rate(source, seconds), looks

    serve_measure(prepare)


def serve_loop(begin: Callable[[Task], None], make: Callable[[Task], Source]) -> None:
    """Runs a contestant that hands out batches; it also tells how long the first one took.

    Args:
        begin: what a training does before it makes a loader, such as importing libraries.
        make: makes the loader.
    """

    def prepare(task: Task) -> tuple[Measure, dict[str, Any]]:
        begin(task)
        start = time.perf_counter()
        source = make(task)
        first = next(source.batches)
        first_s = time.perf_counter() - start
        looks = describe([first, next(source.batches)])
        del first  # it may hold a slot
        for _ in range(source.warm):
            next(source.batches)
        return lambda seconds: rate(source, seconds), looks | {"first_s": first_s}

    serve_measure(prepare)


def serve_measure(prepare: Callable[[Task], tuple[Measure, dict[str, Any]]]) -> None:
    """Runs a contestant that measures in a way of its own.

    Args:
        prepare: makes it warm, and returns what measures, and what its batches look like.
    """
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # whatever libraries print is not an answer
        try:
            measure, looks = prepare(_task(sys.argv[1]))
            _say(answers, {"ready": looks, "packages": packages()})
            for line in sys.stdin:
                _say(answers, {"rate": measure(json.loads(line)["go"])})
        except Exception as error:
            _say(answers, {"failed": f"{type(error).__name__}: {error}"[:300]})
            raise


def rate(source: Source, seconds: float) -> float:
    """Images a second that a trainer gets which does nothing but take batches."""
    start, taken = time.perf_counter(), 0
    while taken < source.ahead or time.perf_counter() - start < LEAD:
        next(source.batches)
        taken += 1
    start = time.perf_counter()
    images = batches = 0
    while batches < LEAST or time.perf_counter() - start < seconds:
        images += len(next(source.batches))
        batches += 1
    return images / (time.perf_counter() - start)


def pace(step: Callable[[int], None], seconds: float, clock: Callable[[], float]) -> float:
    """Steps a second of a function that takes the number of the step.

    Args:
        step: what to do.
        seconds: for how long.
        clock: ``time.perf_counter``, or ``time.process_time`` for seconds of the CPU's work.
    """
    start, done = clock(), 0
    while clock() - start < seconds:
        for number in range(done, done + STRETCH):
            step(number)
        done += STRETCH
    return done / (clock() - start)


def describe(batches: list[Any]) -> dict[str, Any]:
    """What batches look like, so that it shows if a contestant delivers something else."""
    import numpy as np

    arrays = [np.array(batch) for batch in batches]
    return {
        "shape": list(arrays[0].shape),
        "dtype": str(arrays[0].dtype),
        "mean": round(float(np.mean([array.mean() for array in arrays])), 4),
        "range": [float(min(a.min() for a in arrays)), float(max(a.max() for a in arrays))],
        "blank": sum(int(image.min() == image.max()) for array in arrays for image in array),
    }


def packages() -> dict[str, str]:
    """The versions of all packages of this environment."""
    found = {one.metadata["Name"]: one.version for one in metadata.distributions()}
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def class_files(directory: str) -> tuple[list[str], list[int]]:
    """The paths of all files in the class folders, and the numbers of their classes."""
    names = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
    pairs = [
        (os.path.join(directory, name, file), label)
        for label, name in enumerate(names)
        for file in sorted(os.listdir(os.path.join(directory, name)))
        if file.endswith(".jpg")
    ]
    return [path for path, _ in pairs], [label for _, label in pairs]


def _task(text: str) -> Task:
    fields = json.loads(text)
    height, width = fields.pop("size")
    return Task(size=(height, width), **fields)


def _say(answers: Any, line: dict[str, Any]) -> None:
    answers.write(json.dumps(line) + "\n")
