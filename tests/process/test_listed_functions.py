"""``A.Function`` runs in workers, with the same bytes whoever calls it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from loaderd.errors import BadImage, InvalidArgument, RenderError, RequestRefused
from loaderd_client import LoaderSequence, Session, image_dataset_from_directory
from loaderd_client import augment as A
from tests.support import listed_functions
from tests.support.daemons import Serve
from tests.support.streams import killing_one

SIZE = (24, 20)


def dataset(photos: Path, *augment: Any, **more: Any) -> LoaderSequence:
    options: dict[str, Any] = {"image_size": SIZE, "batch_size": 8, "seed": 3, "verbose": False}
    made = image_dataset_from_directory(photos, augment=augment, **(options | more))
    assert isinstance(made, LoaderSequence)
    return made


def images(photos: Path, *augment: Any, **more: Any) -> Any:
    with_bytes = dataset(photos, *augment, interpolation="nearest", **more)
    return np.concatenate([np.array(with_bytes.fetch(0).images), with_bytes.fetch(1).images])


def a_closure() -> Callable[[Any], Any]:
    most = 255
    return lambda image: most - image


@pytest.mark.parametrize(
    "function",
    [
        listed_functions.invert,
        lambda image: 255 - image,
        a_closure(),
        functools.partial(np.subtract, np.uint8(255)),
        listed_functions.Inverter(),
        np.invert,
    ],
    ids=["by name", "lambda", "closure", "partial", "callable", "ufunc"],
)
def test_any_callable_runs_at_its_place_in_the_list(
    function: Any, photos: Path, serve: Serve
) -> None:
    with serve(), Session("auto"):
        for before, after in (((), ()), ((A.RandomFlip(), A.RandomHue(0.4)), (A.RandomGamma(),))):
            ours = images(photos, *before, A.Function(function), *after)
            theirs = images(photos, *before, A.RandomInvert((1.0, 1.0)), *after)
            np.testing.assert_array_equal(ours, theirs)


def test_several_functions_share_their_modules(photos: Path, serve: Serve) -> None:
    def show(image: Any) -> Any:
        image[0, 0] = listed_functions.seen[0]
        return image

    functions = [listed_functions.remember, a_closure(), show]
    with serve(), Session("auto"):
        made, plain = images(photos, *map(A.Function, functions)), images(photos)
    np.testing.assert_array_equal(made[:, 1:], 255 - plain[:, 1:])
    np.testing.assert_array_equal(made[:, 0, 0], plain[:, -1, -1])


EVERYWHERE = [
    A.Function(listed_functions.draw_from_all),
    A.RandomApply([A.Function(listed_functions.add_noise), A.RandomFlip()]),
    A.RandomChoice([A.Function(a_closure()), A.RandomGrayscale(1.0)]),
    A.Function(lambda image, rng: np.roll(image, rng.integers(9), axis=1)),
    A.Rescaling(1 / 255),
    A.MixUp(),
]


def digests(made: LoaderSequence) -> Iterator[bytes]:
    """Two epochs."""
    for _ in range(2):
        for index in range(len(made)):
            yield made.fetch(index).images.tobytes()
        made.on_epoch_end()


def test_the_bytes_are_the_same_for_1_and_3_workers_under_kills_and_any_batch_first(
    photos: Path, serve: Serve
) -> None:
    with serve(workers=1), Session("auto"):
        alone = list(digests(dataset(photos, *EVERYWHERE)))
    assert len(set(alone)) == len(alone) == 24
    with serve(workers=3) as daemon, Session("auto"):
        assert list(digests(dataset(photos, *EVERYWHERE))) == alone
        made = dataset(photos, *EVERYWHERE)
        assert [made.fetch(index).images.tobytes() for index in (7, 2)] == [alone[7], alone[2]]
        assert list(killing_one(daemon, digests(dataset(photos, *EVERYWHERE)), 6)) == alone


def test_draws_belong_to_samples_and_not_to_their_places_in_batches(
    photos: Path, serve: Serve
) -> None:
    seen = []
    with serve(), Session("auto"):
        for batch_size in (8, 16):
            function = A.Function(listed_functions.draw_from_all)
            made = dataset(photos, function, function, batch_size=batch_size, shuffle=False)
            rows = np.concatenate([made.fetch(index).images for index in range(len(made))])
            seen.append(rows[:, 0, :4, 0])
    np.testing.assert_array_equal(seen[0], seen[1])
    for drawn in seen[0].T:
        assert len(np.unique(drawn)) > 50


def test_pictures_have_their_own_size_before_a_crop(photos: Path, serve: Serve) -> None:
    def own_size(image: Any) -> Any:
        height, width = image.shape[:2]
        return np.full((2 * height, 2 * width, 3), (height, width, 0), np.uint8)

    with serve(), Session("auto"):
        made = dataset(photos, A.Function(own_size), A.CenterCrop(*SIZE), shuffle=False)
        for name, image in zip(made.filepaths, made[0][0], strict=False):
            width, height = Image.open(name).size
            assert (image == (height, width, 0)).all()


def test_a_change_of_what_it_reads_counts_from_the_next_epoch_on(
    photos: Path, serve: Serve
) -> None:
    level = {"now": 1}
    functions = A.Function(lambda image: np.full_like(image, level["now"])), A.RandomFlip()
    with serve(), Session("auto"):
        made = dataset(photos, *functions)
        first = [made.fetch(index).images.max() for index in range(len(made))]
        level["now"] = 2
        made.on_epoch_end()
        second = [made.fetch(index).images.max() for index in range(len(made))]
    assert (set(first), set(second)) == ({1.0}, {2.0})


def test_a_preview_shows_what_it_does(photos: Path, serve: Serve) -> None:
    with serve(), Session("auto"):
        made = dataset(photos, A.Function(lambda image: np.full_like(image, (9, 99, 199))))
        picture = np.asarray(made.preview(2))
    assert (picture[:, :, :3] == (9, 99, 199)).all(axis=-1).sum() > 2 * SIZE[0] * SIZE[1]


# -- what goes wrong -------------------------------------------------------------------


WRONG: list[tuple[Any, str]] = [
    (lambda image: image / 2, r"A\.Function .* of float64, not uint8: round and clip"),
    (lambda image: image[..., 0], r"of shape \(24, 20\), not \(height, width, 3\)"),
    (lambda image: image[..., :2], r"of shape \(24, 20, 2\), not \(height, width, 3\)"),
    (lambda image: image[:0], r"of shape \(0, 20, 3\), not \(height, width, 3\)"),
    (lambda image: None, "NoneType in the place of an image"),
    (lambda image: image[1:], r"20x23 pixels, .* is 20x24: put Resize\(24, 20\) after"),
    (
        listed_functions.refuse,
        r"in refuse\n    raise LookupError.*\n.*no idea what to do with \(24, 20, 3\)",
    ),
]


def test_a_wrong_result_is_one_error_that_names_function_and_file(
    photos: Path, serve: Serve
) -> None:
    with serve(), Session("auto"):
        for function, says in WRONG:
            with pytest.raises(RenderError, match=says) as caught:
                dataset(photos, A.Function(function))[0]
            assert str(photos) in str(caught.value)
            assert "loaderd/render" not in str(caught.value)


@pytest.mark.parametrize("group", [A.RandomApply, A.RandomChoice])
def test_a_function_in_a_group_must_keep_the_size(group: Any, photos: Path, serve: Serve) -> None:
    cut = group([A.Function(lambda image: image[1:])] * 2)
    with serve(), Session("auto"):
        made = dataset(photos, cut, A.Resize(*SIZE))
        with pytest.raises(RenderError, match="within RandomApply and RandomChoice it must keep"):
            made[0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: A.Function("invert"), "`function` must be callable"),
        (lambda: A.Function(lambda: 0), "the first parameter of .* must be the image"),
        (lambda: A.Function(lambda rng: 0), "the first parameter of .* must be the image"),
        (lambda: A.Function(lambda image, mask: 0), "`mask` of .* gets nothing.*give it a default"),
        (lambda: A.Function(lambda image, **more: image), None),
        (lambda: A.Function(lambda image, strength=2: image), None),
    ],
)
def test_parameters_get_something_or_have_defaults(make: Any, says: str | None) -> None:
    if says is None:
        make()
        return
    with pytest.raises(InvalidArgument, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_targets_that_the_dataset_has_not_are_refused_when_it_is_made(photos: Path) -> None:
    def move(image: Any, segmentation_masks: Any) -> Any:
        return image, segmentation_masks

    with pytest.raises(InvalidArgument, match="move takes segmentation_masks, which this dataset"):
        dataset(photos, A.Function(move))


@pytest.mark.parametrize(
    ("application", "says"),
    [("vgg16", "as a Lambda layer"), ("xception", "Rescaling"), ("densenet", '"imagenet"')],
)
def test_arithmetic_of_keras_applications_is_named_otherwise(
    application: str, says: str, photos: Path
) -> None:
    function = getattr(keras.applications, application).preprocess_input
    with pytest.raises(InvalidArgument, match=f"preprocess_input of keras.applications.*{says}"):
        dataset(photos, A.Function(function))


def test_a_function_that_kills_its_worker_is_named_with_its_file(
    photos: Path, serve: Serve
) -> None:
    with serve(), Session("auto"):
        white = A.Function(lambda image: np.full_like(image, 255))
        made = dataset(photos, white, A.Function(listed_functions.crash_if_bright), batch_size=1)
        says = r"\.jpg: quarantined.*may be the A\.Function .*<lambda>, crash_if_bright"
        with pytest.raises(BadImage, match=says):
            made[0]
        assert len(dataset(photos, A.RandomFlip())[0][0]) == 8


def test_a_daemon_without_user_code_refuses_it(photos: Path, serve: Serve) -> None:
    with (
        serve(2, "--no-user-code"),
        Session("auto"),
        pytest.raises(RequestRefused, match=r"A\.Function invert is user code"),
    ):
        dataset(photos, A.Function(listed_functions.invert))


def test_a_function_of_a_heavy_package_is_told(photos: Path, serve: Serve) -> None:
    def slow(image: Any) -> Any:
        return keras.ops.convert_to_numpy(image)

    with (
        serve(1),
        Session("auto"),
        pytest.warns(UserWarning, match=r"A\.Function .*slow makes every worker load"),
    ):
        dataset(photos, A.Function(slow))
