"""``Function``: code of the user's among the operations on images.

A list holds the function itself. What is sent to workers is a ``FunctionCall``, which holds its
number; the code travels in the bundle (:mod:`loaderd.ipc.user_code`).
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from loaderd.augment.draws import Draws
from loaderd.augment.operation import ImageOperation, Size
from loaderd.errors import InvalidArgument

if TYPE_CHECKING:
    from loaderd.augment.canvas import Canvas

TargetName = Literal["segmentation_masks", "bounding_boxes", "keypoints"]
"""What may move with an image, as in a batch."""
Seeds = tuple[int, ...]

_RNG = "rng"
_SEEDS = 4
_SEED_LEVELS = 2**32
_KNOWN = (_RNG, *get_args(TargetName))
_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
_SEVERAL = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_FIRST = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)


class FunctionCall(ImageOperation, frozen=True):
    """A call of one of the functions of a spec, as it is sent to workers.

    Attributes:
        number: of the function in the spec's ``code``.
        targets: those that it takes and returns.
        takes_rng: whether it takes a random generator.
        in_group: whether it is in a ``RandomApply`` or ``RandomChoice``, whose operations draw for
            the size that the image has before them.
    """

    number: int
    targets: tuple[TargetName, ...] = ()
    takes_rng: bool = False
    in_group: bool = False

    def draw(self, draws: Draws, size: Size) -> Seeds:
        """The seeds of all generators that the function may use."""
        return tuple(draws.integer(_SEED_LEVELS) for _ in range(_SEEDS))

    def apply(self, canvas: Canvas, parameters: Seeds) -> None:
        """Replaces the image and its targets by what the function returns."""
        canvas.call(DrawnCall(self, parameters))


class DrawnCall(NamedTuple):
    """A call for one sample."""

    call: FunctionCall
    seeds: Seeds


class Function(ImageOperation, frozen=True, tag=False):
    """A function of your own, which workers call for each image: ``function(image)``.

    The image is uint8 (height, width, channels), and may be changed in place. It returns one of the
    same dtype and channels; a size that differs from ``image_size`` must be changed by a later
    ``Resize`` or crop. Further parameters get more by their names; others need defaults, which they
    keep:

    - ``rng``: a ``numpy.random.Generator`` that is seeded for each call;
    - ``segmentation_masks``: uint8 (height, width, 1);
    - ``bounding_boxes``: a dictionary of ``boxes``, float32 (n, 4) in the dataset's
      ``bounding_box_format``, and ``labels``, int32 (n,);
    - ``keypoints``: float32 (n, points, 3): x, y, and whether it is visible.

    A function that takes some of these three returns a tuple of the image and all of them, in the
    order of its parameters: as many boxes as before, of which one without area is left out, and as
    many keypoints. Targets that it does not take stay where they are, so it must keep the size of
    the image then, as it must within ``RandomApply`` and ``RandomChoice``.

    Like a ``preprocessing_function``, it runs in the workers with the state that it has in the
    trainer; the generators of ``np.random`` and ``random``, and those that it holds, are seeded for
    each call as ``rng`` is.

    Args:
        function: takes an image.
    """

    function: Any

    def check(self) -> None:
        """Raises InvalidArgument for what cannot be called with an image."""
        if not callable(self.function):
            raise self.refusal("function", "must be callable")
        self.call(0)

    def call(self, number: int, in_group: bool = False) -> FunctionCall:
        """The call of the function, by its number among those of a spec.

        Raises:
            InvalidArgument: a parameter gets nothing.
        """
        names = _names(self.function)
        targets: Any = tuple(name for name in names if name != _RNG)
        return FunctionCall(number, targets, _RNG in names, in_group)


def _names(function: Callable[..., Any]) -> list[str]:
    """The parameters that get something by their names."""
    try:
        parameters = list(signature(function).parameters.values())
    except (TypeError, ValueError):  # of some functions in C
        return []
    if not parameters or parameters[0].kind not in _FIRST or parameters[0].name in _KNOWN:
        raise InvalidArgument(f"A.Function: the first parameter of {function!r} must be the image")
    names = [one.name for one in parameters[1:] if one.kind in _BY_NAME and one.name in _KNOWN]
    for one in parameters[1:]:
        if one.name not in names and one.default is Parameter.empty and one.kind not in _SEVERAL:
            raise InvalidArgument(
                f"A.Function: parameter `{one.name}` of {function!r} gets nothing, as it is none "
                f"of {', '.join(_KNOWN)}: give it a default"
            )
    return names
