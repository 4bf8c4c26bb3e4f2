"""Draws what each operation of ``loaderd_client.augment`` does, for its reference.

``python -m scripts.pictures FOLDER`` writes one PNG for each: the image before, and three draws of
a fixed seed, by the code that workers run. ``scripts/docs`` calls it. The images are drawn here.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from loaderd.augment.canvas import Canvas
from loaderd.augment.draws import Draws
from loaderd.augment.mixing import MixOperation
from loaderd.augment.operation import ImageOperation
from loaderd.augment.values import ValueOperation
from loaderd.render.augmented import KERNELS
from loaderd_client import augment as A

Pixels = NDArray[np.uint8]
"""(height, width, 3)."""
Color = tuple[int, int, int]

_HEIGHT, _WIDTH = 108, 144
_FINER = 4
_GAP = 8
_SEED = 1549
"""Its samples 0, 1 and 2 draw small, large and middling numbers first."""


class Example(NamedTuple):
    """An operation whose effect is shown.

    Attributes:
        operation: with its arguments.
        samples: the numbers of the samples that it draws for; one where nothing is drawn.
    """

    operation: Any
    samples: tuple[int, ...] = (0, 1, 2)


_ONE = (0,)
_ALWAYS = (1.0, 1.0)
_MEAN_COLOR = (124, 116, 104)
_REPEATED = A.RandomResizedCrop(96, 96)


def shuffled_quarters(image: Pixels, rng: np.random.Generator) -> Pixels:
    """An example of a function of the user's."""
    parts = [half for row in np.split(image, 2) for half in np.split(row, 2, axis=1)]
    order = rng.permutation(4)
    rows = [np.hstack([parts[one] for one in order[at : at + 2]]) for at in (0, 2)]
    return np.vstack(rows)


EXAMPLES = {
    type(example.operation).__name__: example
    for example in (
        Example(A.Resize(96, 96), _ONE),
        Example(A.CenterCrop(80, 80), _ONE),
        Example(A.RandomCrop(80, 80)),
        Example(A.RandomResizedCrop(96, 96)),
        Example(A.RandomFlip()),
        Example(A.RandomRotation(0.1)),
        Example(A.RandomTranslation(0.2, 0.2)),
        Example(A.RandomZoom(0.3)),
        Example(A.RandomShear(0.3, 0.3)),
        Example(A.RandomPerspective(_ALWAYS, scale=0.6)),
        Example(A.RandomElasticTransform(_ALWAYS, scale=(0.3, 0.8))),
        Example(A.RandomBrightness(0.4)),
        Example(A.RandomContrast((0.8, 0.8))),
        Example(A.RandomSaturation((0.1, 0.8))),
        Example(A.RandomHue(0.5)),
        Example(A.RandomColorJitter(0.2, 0.4, (0.3, 0.7), 0.1)),
        Example(A.RandomGrayscale()),
        Example(A.RandomColorDegeneration(1.0)),
        Example(A.RandomGamma((0.4, 2.5))),
        Example(A.AutoContrast(), _ONE),
        Example(A.Equalization(), _ONE),
        Example(A.RandomPosterization((1, 5))),
        Example(A.Solarization(threshold_factor=(0.0, 1.0))),
        Example(A.RandomInvert((0.5, 0.5))),
        Example(A.RandomSharpness(1.0)),
        Example(A.RandomGaussianBlur(_ALWAYS, 9, (0.5, 3.0))),
        Example(A.GaussianNoise(25.0)),
        Example(A.JPEG((2, 20))),
        Example(A.RandomErasing(_ALWAYS, fill_value=_MEAN_COLOR)),
        Example(A.RandAugment(), (1, 2, 3)),
        Example(A.TrivialAugment(), (1, 2, 4)),
        Example(A.AugMix(severity=8), (4, 5, 7)),
        Example(A.RandomApply([A.RandomGrayscale(1.0), A.RandomInvert(_ALWAYS)])),
        Example(
            A.RandomChoice([A.RandomRotation(0.1), A.RandomHue(0.5), A.RandomErasing(_ALWAYS)])
        ),
        Example(A.Function(shuffled_quarters)),
        Example(A.MixUp(1.0)),
        Example(A.CutMix()),
        Example(A.RandomMix([A.MixUp(1.0), A.CutMix()])),
        Example(A.RepeatedAugmentation(3)),
        Example(A.Rescaling(1 / 127.5, -1.0), _ONE),
        Example(A.Normalization("imagenet"), _ONE),
    )
}


# -- the images ------------------------------------------------------------------------


def day() -> Pixels:
    """A house on a meadow, under a clear sky."""
    return _landscape((70, 140, 220), (215, 235, 250), (255, 225, 90), (105, 170, 75))


def dusk() -> Pixels:
    """The same in the evening: few of the values occur."""
    return (day() * 0.4 + 60).round().astype(np.uint8)


def desert() -> Pixels:
    """Tents in a desert, at night."""
    picture = _sky((20, 20, 70), (150, 80, 120))
    draw = ImageDraw.Draw(picture)
    draw.ellipse(_finer(20, 14, 44, 38), (240, 240, 225))
    draw.polygon(_finer(0, 108, 0, 84, 50, 70, 144, 88, 144, 108), (205, 150, 85))
    for left, color in ((30, (60, 140, 150)), (76, (190, 70, 50))):
        draw.polygon(_finer(left, 96, left + 23, 56, left + 46, 96), color)
        draw.polygon(_finer(left + 15, 96, left + 23, 70, left + 31, 96), (40, 30, 30))
    return _reduced(picture)


def _landscape(top: Color, horizon: Color, sun: Color, meadow: Color) -> Pixels:
    picture = _sky(top, horizon)
    draw = ImageDraw.Draw(picture)
    draw.ellipse(_finer(104, 10, 130, 36), sun)
    draw.ellipse(_finer(-40, 58, 90, 150), (85, 140, 70))
    draw.polygon(_finer(0, 108, 0, 82, 144, 74, 144, 108), meadow)
    draw.rectangle(_finer(26, 54, 66, 90), (240, 225, 195))
    draw.polygon(_finer(20, 56, 46, 32, 72, 56), (190, 60, 45))
    draw.rectangle(_finer(40, 70, 52, 90), (110, 70, 45))
    draw.rectangle(_finer(31, 62, 37, 68), (90, 150, 200))
    draw.rectangle(_finer(55, 62, 61, 68), (90, 150, 200))
    draw.rectangle(_finer(103, 66, 109, 92), (100, 70, 45))
    draw.ellipse(_finer(90, 38, 122, 74), (45, 110, 55))
    for x in range(78, 144, 11):
        draw.rectangle(_finer(x, 88, x + 3, 102), (250, 250, 250))
    draw.rectangle(_finer(76, 92, 144, 95), (250, 250, 250))
    return _reduced(picture)


def _sky(top: Color, horizon: Color) -> Image.Image:
    """A gradient from top to horizon, several times as fine as the image."""
    share = np.linspace(0, 1, _HEIGHT * _FINER)[:, np.newaxis]
    rows = np.array(top) * (1 - share) + np.array(horizon) * share
    pixels = np.repeat(rows[:, np.newaxis], _WIDTH * _FINER, axis=1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def _finer(*numbers: float) -> list[float]:
    return [number * _FINER for number in numbers]


def _reduced(picture: Image.Image) -> Pixels:
    return np.asarray(picture.resize((_WIDTH, _HEIGHT), Image.Resampling.BOX))


# -- what becomes of them --------------------------------------------------------------


def picture_of(example: Example) -> Image.Image:
    """The image before, or the two that are mixed, and the draws beside one another."""
    operation = example.operation
    if isinstance(operation, ValueOperation):
        return _row([_histogram(day()), _histogram(finished(operation, day()))])
    if isinstance(operation, MixOperation):
        befores = [day(), desert()]
        return _row([*befores, *(mixed(operation, sample) for sample in example.samples)])
    if isinstance(operation, A.RepeatedAugmentation):
        return picture_of(Example(_REPEATED, tuple(range(operation.n))))
    before = dusk() if isinstance(operation, A.AutoContrast | A.Equalization) else day()
    return _row([before, *(applied(operation, before, one) for one in example.samples)])


def applied(operation: ImageOperation, image: Pixels, sample: int) -> Pixels:
    """The image after an operation."""
    if isinstance(operation, A.Function):
        returned: Pixels = operation.function(image.copy(), rng=np.random.default_rng(sample))
        return returned
    canvas = Canvas(KERNELS)
    canvas.begin(image)
    operation.apply(canvas, operation.draw(_draws(sample), canvas.size))
    return canvas.image


def mixed(operation: MixOperation, sample: int) -> Pixels:
    """One image after it was mixed with the other."""
    own, other = day(), desert()
    mix = operation.draw(_draws(sample), own.shape[:2])
    assert mix is not None, f"{operation} mixes all images"
    if mix.box is None:
        mean = mix.weight * own + (1 - mix.weight) * other
        return mean.round().astype(np.uint8)
    left, top, right, bottom = mix.box
    result = own.copy()
    result[top:bottom, left:right] = other[top:bottom, left:right]
    return result


def finished(operation: ValueOperation, image: Pixels) -> NDArray[np.float32]:
    """The values of an image after an operation."""
    values = image.astype(np.float32)
    for name, numbers in operation.steps():
        values = getattr(np, name)(values, np.array(numbers, np.float32))
    return values


def _draws(sample: int) -> Draws:
    draws = Draws(_SEED)
    draws.begin(0, sample, 0)
    return draws


def _histogram(values: NDArray[Any]) -> Pixels:
    """How often each value occurs in red, green and blue, with the least and the greatest."""
    low, high = float(values.min()), float(values.max())
    picture = Image.new("RGB", (_WIDTH, _HEIGHT), "white")
    draw = ImageDraw.Draw(picture)
    for channel, color in enumerate(("red", "green", "blue")):
        counts, _ = np.histogram(values[:, :, channel], _WIDTH // 2, (low, high))
        heights = (_HEIGHT - 16) * np.sqrt(counts / counts.max())
        points = [(2 * at, _HEIGHT - 15 - height) for at, height in enumerate(heights)]
        draw.line(points, color)
    draw.line((0, _HEIGHT - 14, _WIDTH, _HEIGHT - 14), "black")
    least, most = f"{low:.3g}", f"{high:.3g}"
    draw.text((1, _HEIGHT - 12), least, "black")
    draw.text((_WIDTH - 6 * len(most) - 1, _HEIGHT - 12), most, "black")
    return np.asarray(picture)


def _row(images: Iterable[Pixels]) -> Image.Image:
    cells = [Image.fromarray(one) for one in images]
    width = sum(one.width + _GAP for one in cells) - _GAP
    row = Image.new("RGB", (width, max(one.height for one in cells)), "white")
    left = 0
    for cell in cells:
        row.paste(cell, (left, 0))
        left += cell.width + _GAP
    return row


# -- the page --------------------------------------------------------------------------


def caption(example: Example) -> str:
    """What a picture shows, in Markdown."""
    call = f"`A.{_written(example.operation)}`"
    if isinstance(example.operation, ValueOperation):
        return f"Frequencies of the values of red, green and blue, before and after {call}"
    if isinstance(example.operation, MixOperation):
        return f"An image and its partner, and three draws of {call}"
    if isinstance(example.operation, A.RepeatedAugmentation):
        return f"Before, and in three rows with {call} and `A.{_written(_REPEATED)}`"
    return f"Before, and {'three draws of' if len(example.samples) > 1 else 'after'} {call}"


def _written(value: Any) -> str:
    """An operation as it is written, without arguments that have their defaults."""
    if isinstance(value, tuple | list) and any(isinstance(one, msgspec.Struct) for one in value):
        return "[" + ", ".join(f"A.{_written(one)}" for one in value) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_written, value)) + ")"
    if isinstance(value, A.Function):
        return f"Function({value.function.__name__})"
    if not isinstance(value, msgspec.Struct):
        return f"{value:.3g}" if isinstance(value, float) else repr(value)
    arguments = [
        f"{field.name}={_written(getattr(value, field.name))}"
        for field in msgspec.structs.fields(value)
        if getattr(value, field.name) != field.default
    ]
    return f"{type(value).__name__}({', '.join(arguments)})"


def write(folder: Path) -> None:
    """Writes all pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, example in EXAMPLES.items():
        picture_of(example).save(folder / f"{name}.png")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
