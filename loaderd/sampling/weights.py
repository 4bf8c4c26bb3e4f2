"""The weights by which samples are drawn with replacement; pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from loaderd.errors import InvalidArgument
from loaderd.spec.output import ClassWeights, Order

Weights = NDArray[np.float64]


def sample_weights(
    order: Order,
    labels: NDArray[Any],
    class_names: tuple[str, ...],
    given: NDArray[Any] | None = None,
) -> Weights | None:
    """The weight of each sample; None where each comes once.

    Args:
        order: of the spec.
        labels: of all samples, whole numbers.
        class_names: in label order.
        given: the weights, if ``order.weighted``.

    Raises:
        InvalidArgument: the weights are not allowed, or one is of no class.
    """
    if order.weighted:
        return None if given is None else checked(given)
    if order.class_weights is None:
        return None
    return checked(class_weights_of_samples(order.class_weights, labels, class_names))


def class_weights_of_samples(
    weights: ClassWeights, labels: NDArray[Any], class_names: tuple[str, ...]
) -> Weights:
    """The weight of each sample's class.

    Raises:
        InvalidArgument: a name is that of no class.
    """
    if weights == "balanced":
        _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
        balanced: Weights = (1 / counts)[classes]
        return balanced
    place = {name: number for number, name in enumerate(class_names)}
    of_classes = np.ones(len(class_names))
    for name, weight in weights:
        if name not in place:
            known = ", ".join(map(repr, class_names)) or "none"
            raise InvalidArgument(f"`class_weights`: {name!r} is no class: there are {known}")
        of_classes[place[name]] = weight
    named: Weights = of_classes[labels]
    return named


def checked(weights: NDArray[Any]) -> Weights:
    """The weights as fractions of the largest one.

    Raises:
        InvalidArgument: one is negative or not finite, or all are 0.
    """
    found = weights.astype(np.float64)
    wrong = np.flatnonzero(~((found >= 0) & np.isfinite(found)))
    if len(wrong):
        raise InvalidArgument(
            "weights of samples must be finite and not negative, and that of sample "
            f"{wrong[0]} is {found[wrong[0]]}"
        )
    if len(found) and not found.any():
        raise InvalidArgument("weights of samples must not all be 0")
    return found / found.max() if len(found) else found


def systematic(weights: Weights, start: float) -> NDArray[np.intp]:
    """As many indices as there are weights, each as often as its weight demands.

    Systematic sampling: equally spaced points on the cumulative weights. An index whose share of
    the total would be 2.3 of them comes two or three times, three times with probability 0.3.

    Args:
        weights: not negative, and not all 0.
        start: of the first point, from 0 to 1 (excluded), uniform.
    """
    cumulative = np.cumsum(weights)
    count, total = len(weights), cumulative[-1]
    points = (np.arange(count) + start) * (total / count)
    last = np.searchsorted(cumulative, total)  # a point may be rounded up to the total
    found: NDArray[np.intp] = np.minimum(np.searchsorted(cumulative, points, side="right"), last)
    return found
