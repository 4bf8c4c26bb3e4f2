"""Draws depend on (seed, epoch, sample) only, and are distributed as Keras's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loaderd.render.transforms.operation import UNIFORMS
from loaderd.sampling.draws import Uniforms
from loaderd.spec.transform import Affine, Transform
from scripts.benchmarks.file_renderer import FileRenderer
from tests.support.specs import rendering

SIZE = (40, 60)
EVERYTHING: dict[str, Any] = {
    "rotation_range": 20,
    "width_shift_range": 0.2,
    "height_shift_range": 0.1,
    "shear_range": 15,
    "zoom_range": (0.8, 1.3),
    "horizontal_flip": True,
    "vertical_flip": True,
    "channel_shift_range": 30,
    "brightness_range": (0.5, 2.0),
}
WHOLE = st.integers(0, 2**63 - 1)


class SampleDraws:
    """The parameters of samples under Keras's names, as a worker draws them."""

    def __init__(self, ranges: dict[str, Any], seed: int) -> None:
        spec = rendering(target_size=SIZE, **ranges)
        self._draw = FileRenderer(spec).draw
        self._uniforms = Uniforms(seed, UNIFORMS)

    def __call__(self, epoch: int, sample: int) -> Transform:
        (drawn,) = self._draw(np.array([self._uniforms(epoch, sample)])).tolist()
        return Transform._make(None if np.isnan(one) else one for one in drawn)


@given(seed=WHOLE, epoch=WHOLE, sample=WHOLE, before=WHOLE)
def test_a_draw_does_not_depend_on_earlier_draws(
    seed: int, epoch: int, sample: int, before: int
) -> None:
    draws = SampleDraws(EVERYTHING, seed)
    draws(before, sample)
    draws(epoch, before)
    assert draws(epoch, sample) == SampleDraws(EVERYTHING, seed)(epoch, sample)


@pytest.mark.parametrize("changed", [(8, 3, 5), (7, 4, 5), (7, 3, 6), (7, 5, 3)])
def test_seed_epoch_and_sample_each_change_the_draw(changed: tuple[int, int, int]) -> None:
    def draw(seed: int, epoch: int, sample: int) -> Transform:
        return SampleDraws(EVERYTHING, seed)(epoch, sample)

    pairs = zip(draw(7, 3, 5)[:6], draw(*changed)[:6], strict=True)
    assert all(a != b for a, b in pairs)


def test_these_draws_stay_the_same_in_every_version() -> None:
    """A training run that is resumed must see the samples that it would have seen."""
    expected = Transform(
        theta=-13.500140100010242,
        tx=2.8405997693597493,
        ty=-2.1478836949757945,
        shear=9.266748233269329,
        zx=1.1749158465469818,
        zy=0.9940937679662308,
        flip_horizontal=True,
        flip_vertical=False,
        channel_shift_intensity=26.600658416229138,
        brightness=1.9896014926385035,
    )
    drawn = np.array(SampleDraws(EVERYTHING, 42)(3, 1000), float)
    np.testing.assert_allclose(drawn, np.array(expected, float), rtol=1e-12)


PARAMETERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "rotation_range": (0, ("theta",)),
    "height_shift_range": (0.0, ("tx",)),
    "width_shift_range": (0.0, ("ty",)),
    "shear_range": (0, ("shear",)),
    "zoom_range": ((1.0, 1.0), ("zx", "zy")),
    "horizontal_flip": (False, ("flip_horizontal",)),
    "vertical_flip": (False, ("flip_vertical",)),
    "channel_shift_range": (0.0, ("channel_shift_intensity",)),
    "brightness_range": (None, ("brightness",)),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_leaving_a_parameter_out_changes_no_other_draw(name: str) -> None:
    off, fields = PARAMETERS[name]
    some = EVERYTHING | {name: off}
    for sample in range(20):
        default = {field: Transform()._asdict()[field] for field in fields}
        assert SampleDraws(some, 1)(0, sample) == SampleDraws(EVERYTHING, 1)(0, sample)._replace(
            **default
        )


def test_without_random_operations_nothing_is_drawn() -> None:
    (drawn,) = FileRenderer(rendering(target_size=SIZE)).draw(np.full((1, UNIFORMS), 0.5))
    np.testing.assert_array_equal(drawn, np.array(Transform(), float))


@pytest.mark.parametrize("shift", [3, (1.0, 2.0, 5.0), (0.1, 0.2), 0.2, 1.5])
def test_samples_that_are_drawn_together_are_drawn_as_each_by_itself(shift: Any) -> None:
    ranges = EVERYTHING | {"width_shift_range": shift, "height_shift_range": shift}
    uniforms = np.array([Uniforms(5, UNIFORMS)(2, sample) for sample in range(40)])
    together = FileRenderer(rendering(target_size=SIZE, **ranges)).draw(uniforms)
    one_by_one = [SampleDraws(ranges, 5)(2, sample) for sample in range(40)]
    np.testing.assert_array_equal(together, np.array(one_by_one, float))
    assert (together[:, 1:3] != 0).any(axis=0).all()


def test_parameters_that_are_off_do_not_warp() -> None:
    draws = SampleDraws({"horizontal_flip": True}, 0)
    drawn = [draws(0, sample) for sample in range(50)]
    assert all(transform.affine == Affine() for transform in drawn)
    assert {transform.flip_horizontal for transform in drawn} == {True, False}


# Keras's distributions


def many(ranges: dict[str, Any], count: int = 4000) -> np.ndarray[Any, np.dtype[np.float64]]:
    draws = SampleDraws(ranges, 11)
    return np.nan_to_num(np.array([draws(0, sample) for sample in range(count)], np.float64))


def of_keras(ranges: dict[str, Any], count: int = 4000) -> np.ndarray[Any, np.dtype[np.float64]]:
    from keras.src.legacy.preprocessing.image import ImageDataGenerator

    generator = ImageDataGenerator(**ranges)
    np.random.seed(11)
    drawn = (generator.get_random_transform((*SIZE, 3)) for _ in range(count))
    table = np.array([[d[field] for field in Transform._fields] for d in drawn], np.float64)
    return np.nan_to_num(table)


SHIFTS: list[Any] = [0.2, 0.999, 1.0, 2.5, 1, 2, 7, -2, (-3, 0, 8), (0.1, 0.3), (-0.5, 2.0), (5,)]


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifts_are_distributed_as_in_keras(shift: Any) -> None:
    ranges = {"width_shift_range": shift, "height_shift_range": shift}
    same_distribution(many(ranges), of_keras(ranges))


def test_all_parameters_are_distributed_as_in_keras() -> None:
    same_distribution(many(EVERYTHING), of_keras(EVERYTHING))


def same_distribution(ours: Any, theirs: Any) -> None:
    from scipy.stats import ks_2samp

    for field, a, b in zip(Transform._fields, ours.T, theirs.T, strict=True):
        assert ks_2samp(a, b, method="asymp").pvalue > 1e-4, field
        few = np.unique(b)
        if len(few) < 50:
            np.testing.assert_array_equal(np.unique(a), few)


def test_the_parameters_of_a_sample_do_not_depend_on_each_other() -> None:
    correlation = np.corrcoef(many(EVERYTHING).T)
    assert abs(correlation - np.eye(10)).max() < 0.08


def test_neighbouring_samples_and_epochs_do_not_depend_on_each_other() -> None:
    draws = SampleDraws(EVERYTHING, 11)
    grid = np.array([[draws(epoch, sample).theta for sample in range(60)] for epoch in range(60)])
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.08


def test_shifts_below_one_are_fractions_of_their_own_axis() -> None:
    drawn = many(EVERYTHING)
    assert 0.9 * 4 < abs(drawn[:, 1]).max() <= 4  # a tenth of the height
    assert 0.9 * 12 < abs(drawn[:, 2]).max() <= 12  # a fifth of the width
