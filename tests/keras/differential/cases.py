"""What examples are drawn from: the arguments of generators and of their flows.

Left out, because there is no one answer to compare with:

* ``brightness_range`` with ``channels_first``: Keras enhances such images as if their
  channels were last, and fails or mixes the axes up;
* functions that draw random numbers (see ``functions.py``);
* ``rgba`` saved as JPEG: Pillow's own OSError, halfway through a batch;
* no ``seed``: nothing to repeat.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from tests.keras.differential.functions import NAMES, PLAIN, THREE_CHANNELS_LAST, named

Options = dict[str, Any]


@dataclass(frozen=True)
class Fit:
    """Arguments of ``fit``; the images are made from a seed."""

    images: int
    augment: bool
    rounds: int
    seed: int


@dataclass(frozen=True)
class Case:
    """One example, small enough to be printed.

    Attributes:
        generator: arguments of the constructor, the function by its name.
        flow: arguments of the flow, but for ``save_to_dir``.
        source: what the flow is made from, where there is a choice.
        saves: whether ``save_to_dir`` is given.
        fit: None does without.
    """

    generator: Options
    flow: Options
    saves: bool
    fit: Fit | None
    source: Options = field(default_factory=dict)

    def channels_first(self) -> bool:
        return bool(self.generator.get("data_format") == "channels_first")

    def built(self) -> Options:
        """The constructor's arguments, with the function itself."""
        name = self.generator.get("preprocessing_function")
        return self.generator | ({"preprocessing_function": named(name)} if name else {})


def shape_of_files(case: Case) -> tuple[int, int, int]:
    """(height, width, channels) of a directory's or a table's images."""
    height, width = case.flow["target_size"]
    return height, width, CHANNELS[case.flow.get("color_mode", "rgb")]


def shape_of_arrays(case: Case) -> tuple[int, int, int]:
    """The same of an array's."""
    height, width = case.source["size"]
    return height, width, case.source["channels"]


def _near(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_subnormal=False).map(lambda value: round(value, 3))


_SHIFTS = st.one_of(
    _near(0.05, 0.5),  # a share of the size
    _near(1.0, 6.0),  # pixels
    st.integers(1, 6),  # a choice below it
    st.lists(st.integers(-6, 6), min_size=1, max_size=4),
    st.lists(_near(-5.0, 5.0), min_size=1, max_size=3),
    st.lists(_near(0.0, 0.4), min_size=1, max_size=3).map(tuple),
)

_GENERATOR: dict[str, st.SearchStrategy[Any]] = {
    "featurewise_center": st.just(True),
    "samplewise_center": st.just(True),
    "featurewise_std_normalization": st.just(True),
    "samplewise_std_normalization": st.just(True),
    "zca_whitening": st.just(True),
    "zca_epsilon": st.sampled_from([1e-6, 1e-3, 1.0]),
    "rotation_range": st.integers(1, 90) | _near(0.5, 180.0),
    "width_shift_range": _SHIFTS,
    "height_shift_range": _SHIFTS,
    "brightness_range": st.tuples(_near(0.2, 1.0), _near(0.8, 2.0)) | st.just([0.5, 1.5]),
    "shear_range": st.integers(1, 30) | _near(0.5, 45.0),
    "zoom_range": _near(0.05, 0.5) | st.tuples(_near(0.5, 1.0), _near(0.9, 1.5)) | st.just([1, 1]),
    "channel_shift_range": _near(1.0, 100.0),
    "fill_mode": st.sampled_from(["nearest", "constant", "reflect", "wrap"]),
    "cval": _near(-50.0, 300.0) | st.sampled_from([0, 255]),
    "horizontal_flip": st.just(True),
    "vertical_flip": st.just(True),
    "rescale": st.sampled_from([1 / 255, 1 / 127.5, 2, 0]),
    "preprocessing_function": st.sampled_from(NAMES),
    "data_format": st.sampled_from(["channels_last", "channels_first"]),
    "validation_split": st.sampled_from([0.2, 0.25, 0.5]),
    "interpolation_order": st.sampled_from([0, 1, 2, 3]),
    "dtype": st.sampled_from(["float32", "float64", "float16", "uint8"]),
}
_MOTION = {
    "rotation_range",
    "width_shift_range",
    "height_shift_range",
    "shear_range",
    "zoom_range",
}


_SEEDS = st.integers(0, 50) | st.integers(0, 2**31)
_KEPT = st.sampled_from([False, *[True] * 19])
"""Almost always: but a failing example shrinks to what it needs."""


def _some(draw: st.DrawFn, options: dict[str, st.SearchStrategy[Any]], most: int) -> Options:
    """Values for some of the options.

    Which, a plain generator says: Hypothesis likes few and repeats itself, where most
    failures are in combinations.
    """
    chance = random.Random(draw(st.integers(0, 2**64 - 1)))
    names = chance.sample(sorted(options), chance.randint(0, most))
    return {name: draw(options[name]) for name in sorted(names) if draw(_KEPT)}


def _chance(draw: st.DrawFn, share: float) -> bool:
    lucky = random.Random(draw(st.integers(0, 2**64 - 1))).random() < share
    return lucky and draw(_KEPT)


@st.composite
def generators(draw: st.DrawFn, channels: int) -> Options:
    """Some of the constructor's arguments."""
    options = _some(draw, _GENERATOR, 10)
    moves = not _MOTION.isdisjoint(options)
    if moves and draw(_KEPT):
        options["fill_mode"] = draw(_GENERATOR["fill_mode"])
    if options.get("data_format") == "channels_first":
        options.pop("brightness_range", None)
    # Keras's models take three channels, and by default the last axis for them.
    if options.get("preprocessing_function") in THREE_CHANNELS_LAST and (
        channels != 3 or options.get("data_format") == "channels_first"
    ):
        options["preprocessing_function"] = draw(st.sampled_from(sorted(PLAIN)))
    return options


@st.composite
def fits(draw: st.DrawFn, options: Options) -> Fit | None:
    """Mostly a fit where one is needed: without, Keras warns and does nothing."""
    asks = {"featurewise_center", "featurewise_std_normalization", "zca_whitening"} & set(options)
    if not asks or not _chance(draw, 0.9):
        return None
    # Statistics of warped images would differ between the two, as the images do.
    exact = options.get("interpolation_order", 1) != 1 or not _MOTION & set(options)
    return Fit(
        images=draw(st.integers(2, 9)),
        augment=exact and draw(st.booleans()),
        rounds=draw(st.integers(1, 2)),
        seed=draw(st.integers(0, 999)),
    )


CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}

_ANY_FLOW: dict[str, st.SearchStrategy[Any]] = {
    "batch_size": st.sampled_from([1, 2, 3, 4, 5, 6, 7, 13, 32]),
    "shuffle": st.booleans(),
    "save_prefix": st.sampled_from(["", "aug"]),
    "save_format": st.sampled_from(["png", "bmp", "jpeg"]),
    "subset": st.sampled_from(["training", "validation"]),
}
_FILES_FLOW = _ANY_FLOW | {
    "target_size": st.sampled_from([(12, 12), (9, 6), (5, 11), [16, 10], (1, 7), (2, 2)]),
    "color_mode": st.sampled_from(sorted(CHANNELS)),
    "interpolation": st.sampled_from(
        ["nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"]
    ),
}
_DIRECTORY_FLOW = _FILES_FLOW | {
    "classes": st.lists(st.sampled_from(["cat", "dog", "emu"]), min_size=1, unique=True),
    "class_mode": st.sampled_from(["categorical", "binary", "sparse", "input", None]),
    "follow_links": st.booleans(),
    "keep_aspect_ratio": st.booleans(),
}
_FRAME_FLOW = _FILES_FLOW | {"weight_col": st.sampled_from(["weight", "stars"])}
_LABELS: list[Options] = [
    {"class_mode": "categorical", "y_col": "class"},
    {"class_mode": "categorical", "y_col": "tags"},
    {"class_mode": "categorical", "y_col": "tags", "classes": ["tame", "dog", "emu"]},
    {"class_mode": "categorical", "classes": ["dog", "cat"]},
    {"class_mode": "binary", "y_col": "class", "classes": ["emu", "cat"]},
    {"class_mode": "sparse", "y_col": "class"},
    {"class_mode": "raw", "y_col": "score"},
    {"class_mode": "raw", "y_col": "class"},
    {"class_mode": "raw", "y_col": "tags"},
    {"class_mode": "raw", "y_col": ["score", "stars"]},
    {"class_mode": "raw", "y_col": ["class", "stars"]},
    {"class_mode": "multi_output", "y_col": ["score", "stars"]},
    {"class_mode": "multi_output", "y_col": ["class", "place"]},
    {"class_mode": "input"},
    {"class_mode": None, "y_col": None},
    {},
]


def _case(draw: st.DrawFn, flow: Options, source: Options, channels: int) -> Case:
    options = draw(generators(channels))
    if flow.get("subset") == "validation":
        options.setdefault("validation_split", 0.25)
    saves = _chance(draw, 0.2)
    if channels == 4 and flow.get("save_format") == "jpeg":
        flow["save_format"] = "png"
    return Case(options, flow, saves, draw(fits(options)), source)


def _small(flow: Options, seed: int) -> Options:
    return {"target_size": (10, 8), "seed": seed} | flow  # and not Keras's 256


@st.composite
def directories(draw: st.DrawFn) -> Case:
    flow = _small(_some(draw, _DIRECTORY_FLOW, 9), draw(_SEEDS))
    return _case(draw, flow, {}, CHANNELS[flow.get("color_mode", "rgb")])


@st.composite
def frames(draw: st.DrawFn) -> Case:
    flow = _small(_some(draw, _FRAME_FLOW, 7), draw(_SEEDS)) | draw(st.sampled_from(_LABELS))
    absolute = draw(st.booleans())
    validates = draw(st.booleans())
    source = {
        "absolute": absolute,
        "broken_rows": validates and draw(st.booleans()),
        "order": draw(st.sampled_from(["as it is", "backwards", "twice"])),
    }
    flow["x_col"] = "path" if absolute else "file"
    if not validates:
        flow["validate_filenames"] = False
    return _case(draw, flow, source, CHANNELS[flow.get("color_mode", "rgb")])


@st.composite
def arrays(draw: st.DrawFn) -> Case:
    flow = _some(draw, _ANY_FLOW, 5) | {"seed": draw(_SEEDS)}
    if "subset" in flow:  # without, Keras raises for most labels
        flow["ignore_class_split"] = draw(_KEPT)
    channels = draw(st.sampled_from([1, 3, 3, 3, 4]))
    source = {
        "images": draw(st.integers(2, 11)),
        "size": draw(st.sampled_from([(12, 12), (9, 6), (5, 11), (1, 7), (3, 1)])),
        "channels": channels,
        "kind": draw(
            st.sampled_from(["uint8", "int64", "float32", "float64", "0 to 1", "-1 to 1"])
        ),
        "y": draw(st.sampled_from([None, "numbers", "a list", "one-hot", "pictures", "words"])),
        "weights": draw(st.sampled_from([None, None, "an array", "a list"])),
        "misc": draw(st.sampled_from([None, None, "one", "two"])),
    }
    return _case(draw, flow, source, channels)


@st.composite
def methods(draw: st.DrawFn) -> Case:
    """For ``random_transform`` and ``standardize``, called without an iterator."""
    case = draw(arrays())
    return Case(case.generator, {"seed": case.flow["seed"]}, False, case.fit, case.source)
