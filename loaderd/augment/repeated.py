"""``RepeatedAugmentation``, which is a part of the epoch's order, and of no worker's list."""

from __future__ import annotations

from collections.abc import Sequence

from loaderd.augment.operation import Operation
from loaderd.errors import InvalidArgument


class RepeatedAugmentation(Operation, frozen=True):
    """Several versions of each sample, in neighbouring rows, drawn independently.

    As ``--aug-repeats`` of timm (Hoffer et al., "Augment your batch: Improving generalization
    through instance repetition", 2020): an epoch keeps its length, so a random 1 / n of the samples
    is in it, each n times. The first or the last of a list; needs ``shuffle=True``. The partner of
    a row for ``MixUp`` and ``CutMix`` is then the row n before, which has another image in
    batches of at least 2 n rows.

    Args:
        n: how often each sample comes, at least 1.
    """

    n: int

    def check(self) -> None:
        """Raises InvalidArgument for an n below 1."""
        if self.n < 1:
            raise self.refusal("n", "must be at least 1")


def without_repeats(operations: Sequence[Operation]) -> tuple[tuple[Operation, ...], int]:
    """A list without ``RepeatedAugmentation``, and how often each sample comes.

    Raises:
        InvalidArgument: it is neither the first nor the last, or there are two.
    """
    rest = tuple(one for one in operations if not isinstance(one, RepeatedAugmentation))
    found = [
        (at, one) for at, one in enumerate(operations) if isinstance(one, RepeatedAugmentation)
    ]
    if not found:
        return rest, 1
    at, one = found[0]
    if len(found) > 1 or at not in (0, len(operations) - 1):
        raise InvalidArgument(
            "augment: RepeatedAugmentation must be the first or the last of the list, and once"
        )
    return rest, one.n
