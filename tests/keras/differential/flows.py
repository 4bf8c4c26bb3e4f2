"""Makes the flows of the examples, the same for both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.keras.differential.cases import Case, shape_of_arrays
from tests.keras.differential.comparison import Flow
from tests.keras.differential.corpus import pattern, table

Array = NDArray[Any]


def directory_flow(case: Case, pictures: Path) -> Flow:
    def flow(generator: Any, place: str | None) -> Any:
        return generator.flow_from_directory(str(pictures), save_to_dir=place, **case.flow)

    return flow


def frame_flow(case: Case, pictures: Path) -> Flow:
    frame = table(pictures)
    if not case.source["broken_rows"]:
        frame = frame.iloc[:-2]
    match case.source["order"]:
        case "backwards":
            frame = frame.iloc[::-1]
        case "twice":
            frame = frame.iloc[[*range(len(frame)), *range(len(frame))]]
    directory = None if case.source["absolute"] else str(pictures)

    def flow(generator: Any, place: str | None) -> Any:
        return generator.flow_from_dataframe(frame, directory, save_to_dir=place, **case.flow)

    return flow


def array_flow(case: Case) -> Flow:
    source = case.source
    x = images(case)
    labels = _labels(source["y"], source["images"])
    weights = _weights(source["weights"], source["images"])
    given = _with_misc(x, source["misc"])

    def flow(generator: Any, place: str | None) -> Any:
        return generator.flow(given, labels, sample_weight=weights, save_to_dir=place, **case.flow)

    return flow


def images(case: Case) -> Array:
    """The pictures of an array example, as its kind of numbers."""
    shape, count = shape_of_arrays(case), case.source["images"]
    x = np.stack([pattern(*shape, index) for index in range(count)])
    if case.channels_first():
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    match case.source["kind"]:
        case "0 to 1":
            return x.astype(np.float32) / 255
        case "-1 to 1":
            return x / 127.5 - 1
    return x.astype(case.source["kind"])


def _labels(kind: str | None, count: int) -> Any:
    numbers = np.arange(count) % 2
    match kind:
        case "numbers":
            return numbers
        case "a list":
            return numbers.tolist()
        case "one-hot":
            return np.eye(2, dtype=np.float32)[numbers]
        case "pictures":
            return np.random.default_rng(0).random((count, 3, 2, 1))
        case "words":
            return np.array(["even", "odd"])[numbers]
    return None


def _weights(kind: str | None, count: int) -> Any:
    weights = np.random.default_rng(1).random(count)
    return {"an array": weights, "a list": weights.tolist()}.get(kind or "")


def _with_misc(x: Array, kind: str | None) -> Any:
    one, two = np.arange(len(x)), np.random.default_rng(2).random((len(x), 2))
    match kind:
        case "one":
            return x, two
        case "two":
            return x, [one, two]
    return x
