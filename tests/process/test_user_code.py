"""A preprocessing_function runs in workers, and only the trainer that sent it can suffer."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.errors import BadImage, InvalidArgument, NoRoom, RenderError, RequestRefused
from loaderd_client import ImageDataGenerator, Session
from tests.process import user_functions
from tests.support.daemons import Serve, eventually
from tests.support.photos import write_photo

SIZE = (20, 30)


def batches(photos: Path, function: Any, count: int = 3, **options: Any) -> list[Any]:
    generator = ImageDataGenerator(preprocessing_function=function, **options)
    train = generator.flow_from_directory(photos, target_size=SIZE, batch_size=8, seed=1)
    try:
        return [np.array(next(train)[0]) for _ in range(count)]
    finally:
        train.close()


def a_closure() -> Callable[[Any], Any]:
    factor = 0.5
    return lambda image: image * factor


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (user_functions.halve, lambda image: image / 2),
        (lambda image: image / 2, lambda image: image / 2),
        (a_closure(), lambda image: image / 2),
        (functools.partial(np.multiply, 0.5), lambda image: image / 2),
        (user_functions.Brighter(3), lambda image: image + 3),
        (user_functions.Brighter(3).method, lambda image: image - 3),
        (np.sqrt, np.sqrt),
    ],
    ids=["by name", "lambda", "closure", "partial", "callable", "method", "ufunc"],
)
def test_any_callable_runs_in_the_workers(
    function: Any, expected: Any, photos: Path, serve: Serve
) -> None:
    with serve(), Session("auto"):
        for ours, plain in zip(batches(photos, function), batches(photos, None), strict=True):
            np.testing.assert_array_equal(ours, expected(plain))


def test_it_runs_in_workers_and_nowhere_else(photos: Path, serve: Serve) -> None:
    with serve() as daemon, Session("auto"):
        ran = set(np.unique(batches(photos, user_functions.name_of_the_process, dtype="float64")))
        assert ran <= set(daemon.workers())


def test_the_rescale_comes_after_it(photos: Path, serve: Serve) -> None:
    with serve(), Session("auto"):
        (ours,) = batches(photos, user_functions.Brighter(3), 1, rescale=0.5)
        (plain,) = batches(photos, None, 1)
    np.testing.assert_array_equal(ours, (plain + 3) * 0.5)


def test_what_it_draws_depends_on_the_seed_alone(photos: Path, serve: Serve) -> None:
    runs = []
    for workers in (1, 3):
        with serve(workers), Session("auto"):
            runs.append(batches(photos, user_functions.add_noise, 12))
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(runs[0][0], runs[0][1])


def a_closure_with_a_generator() -> Callable[[Any], Any]:
    rng = np.random.default_rng(7)
    return lambda image: np.full_like(image, rng.random())


@pytest.mark.parametrize(
    "function",
    [user_functions.jitter, user_functions.Augmenter(), a_closure_with_a_generator()],
    ids=["module", "object", "closure"],
)
def test_generators_that_it_holds_draw_anew_for_every_image(
    function: Any, photos: Path, serve: Serve
) -> None:
    runs = []
    for workers in (1, 3):
        with serve(workers), Session("auto"):
            runs.append(np.concatenate(batches(photos, function, 12)))
    np.testing.assert_array_equal(runs[0], runs[1])
    rows = runs[0][:, :3, 0, 0]
    assert len(np.unique(rows, axis=0)) == len(rows) == 96


# -- what goes wrong -------------------------------------------------------------------


def test_its_own_traceback_and_the_file_reach_the_trainer(photos: Path, serve: Serve) -> None:
    with serve(), Session("auto"):
        with pytest.raises(RenderError) as caught:
            batches(photos, user_functions.refuse)
        text = str(caught.value)
        assert str(photos) in text
        assert "in refuse\n    raise LookupError" in text
        assert "LookupError: no idea what to do with (20, 30, 3)" in text
        assert "loaderd/render" not in text


def test_the_traceback_of_a_function_that_is_pickled_has_its_file_and_line(
    photos: Path, serve: Serve
) -> None:
    def refuse(image: Any) -> Any:
        raise LookupError(image.shape)

    with serve(), Session("auto"), pytest.raises(RenderError) as caught:
        batches(photos, refuse)
    line = refuse.__code__.co_firstlineno + 1
    assert f'File "{__file__}", line {line}, in refuse\n    raise LookupError' in str(caught.value)


def test_a_wrong_shape_is_told_in_keras_words(photos: Path, serve: Serve) -> None:
    words = (
        r"preprocessing_function returned an image of another shape: "
        r"could not broadcast input array from shape \(5,7,3\) into shape \(20,30,3\)"
    )
    with serve(), Session("auto"), pytest.raises(ValueError, match=words):
        batches(photos, user_functions.crop)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (user_functions.interrupt, "KeyboardInterrupt"),
        (user_functions.complain_in_bytes, r"ValueError: \\udcff"),
        (user_functions.complain_at_length, r"ValueError: beginningx+\n\[...\]\nx+end"),
        (user_functions.complain_twice, "(?s)IndexError.*direct cause.*ValueError: no such row"),
    ],
)
def test_whatever_it_raises_is_told_and_kills_nobody(
    function: Any, words: str, photos: Path, serve: Serve
) -> None:
    with serve() as daemon, Session("auto"):
        eventually(lambda: len(daemon.workers()) == 2)
        before = daemon.workers()
        with pytest.raises(RenderError, match=words):
            batches(photos, function)
        assert daemon.workers() == before


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: KeyError("a name"), KeyError),
        (lambda: ZeroDivisionError("by zero"), ZeroDivisionError),
        (lambda: FileNotFoundError(2, "No such file or directory", "lut.npy"), FileNotFoundError),
        (lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), UnicodeDecodeError),
        (lambda: user_functions.Unknown("mine"), LookupError),
        (lambda: StopIteration("over"), RuntimeError),
        (lambda: UserWarning("careful"), UserWarning),
    ],
)
def test_it_arrives_as_what_was_raised(
    make: Callable[[], Exception], kind: type[Exception], photos: Path, serve: Serve
) -> None:
    def fail(image: Any) -> Any:
        raise make()

    with serve(1), Session("auto"), pytest.raises(RenderError) as caught:
        batches(photos, fail)
    assert isinstance(caught.value, kind)
    assert isinstance(caught.value, ValueError) == issubclass(kind, ValueError)
    last = str(caught.value).splitlines()[-1]
    assert last.endswith(str(make()))
    assert "\\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"rotation_range": 1.5e308}, {"width_shift_range": 2**40}, {"fill_mode": "mirror"}]
)
def test_values_that_cannot_be_drawn_are_told(options: Any, photos: Path, serve: Serve) -> None:
    with serve() as daemon, Session("auto"):
        eventually(lambda: len(daemon.workers()) == 2)
        before = daemon.workers()
        with contextlib.suppress(ValueError, OverflowError, NoRoom):
            batches(photos, None, **options)
        assert daemon.workers() == before


def test_a_file_name_that_is_no_text_is_told(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "cat").mkdir()
    write_photo(tmp_path / "cat" / "a.jpg", 1)
    os.rename(tmp_path / "cat" / "a.jpg", os.fsencode(tmp_path / "cat") + b"/\xff.jpg")
    with serve(), Session("auto"), pytest.raises(RenderError, match=r"\\udcff.jpg"):
        batches(tmp_path, user_functions.refuse)


GREEDY = """
import resource
held = []
if resource.getrlimit(resource.RLIMIT_DATA)[0] != resource.RLIM_INFINITY:
    try:
        while True:
            held.append(bytearray(2**20))
    except MemoryError:
        raise SystemError("error return without exception set") from None
def same(image):
    return image
"""


def test_an_import_for_which_there_is_no_memory_is_told_as_that_whatever_it_raises(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greedy_import.py").write_text(GREEDY)
    monkeypatch.syspath_prepend(tmp_path)
    same = importlib.import_module("greedy_import").same
    with (
        serve(1, "--worker-memory=64M") as daemon,
        Session(daemon.path),
        pytest.raises(NoRoom, match=r"same cannot be loaded.*--worker-memory"),
    ):
        batches(photos, same)


def test_leaving_the_program_is_an_error_like_others(photos: Path, serve: Serve) -> None:
    with serve() as daemon, Session("auto"):
        eventually(lambda: len(daemon.workers()) == 2)
        before = daemon.workers()
        with pytest.raises(RenderError, match="SystemExit: 3"):
            batches(photos, user_functions.leave)
        assert daemon.workers() == before


def test_a_function_that_kills_its_worker_ends_its_own_batches_only(
    photos: Path, serve: Serve
) -> None:
    with serve(), Session("auto"):
        with pytest.raises(BadImage, match=r"quarantined.*preprocessing_function crash"):
            batches(photos, user_functions.crash)
        assert len(batches(photos, None)) == 3


def test_other_streams_go_on(photos: Path, serve: Serve) -> None:
    with serve() as daemon, Session("auto"):
        good = ImageDataGenerator().flow_from_directory(photos, target_size=SIZE, seed=1)
        first = np.array(good[0][0])
        eventually(lambda: len(daemon.workers()) == 2)
        workers = daemon.workers()
        for function in (user_functions.refuse, user_functions.crop):
            with pytest.raises(RenderError):
                batches(photos, function)
        np.testing.assert_array_equal(good[0][0], first)
        assert len(good[1][0]) == 32
        assert daemon.workers() == workers


def test_what_cannot_be_pickled_is_refused_in_the_trainer(photos: Path, serve: Serve) -> None:
    lock = threading.Lock()
    with serve(), Session("auto"), pytest.raises(InvalidArgument, match="cannot be sent"):
        batches(photos, lambda image: image * lock.locked())


def test_what_cannot_be_called_is_refused_in_the_trainer(photos: Path, serve: Serve) -> None:
    with serve(), Session("auto"), pytest.raises(TypeError, match="should be callable"):
        batches(photos, "halve")


def test_a_daemon_without_user_code_refuses_it(photos: Path, serve: Serve) -> None:
    with serve(2, "--no-user-code"), Session("auto"):
        for function in (user_functions.halve, lambda image: image):
            with pytest.raises(RequestRefused, match="runs no user code"):
                batches(photos, function)
        assert len(batches(photos, None)) == 3


# -- modules of the trainer's ----------------------------------------------------------


def a_module(folder: Path, factor: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``helpers.scale`` of a project of its own, as a trainer there imports it."""
    folder.mkdir(exist_ok=True)
    (folder / "factors.py").write_text(f"FACTOR = {factor}\n")
    (folder / "helpers.py").write_text(
        "from factors import FACTOR\ndef scale(image):\n    return image * FACTOR\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    for name in ("helpers", "factors"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    return importlib.import_module("helpers").scale


@pytest.fixture
def forget() -> Any:
    yield
    for name in ("helpers", "factors"):
        sys.modules.pop(name, None)


def test_modules_of_one_name_do_not_meet(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    with serve(), Session("auto"):
        (plain,) = batches(photos, None, 1)
        for factor in (2, 3):
            scale = a_module(tmp_path / str(factor), factor, monkeypatch)
            np.testing.assert_array_equal(batches(photos, scale, 1)[0], plain * factor)


def test_a_module_that_was_edited_is_read_again(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    with serve(), Session("auto"):
        (plain,) = batches(photos, None, 1)
        for factor in (2, 30, 4):
            scale = a_module(tmp_path, factor, monkeypatch)
            os.utime(tmp_path / "factors.py", (factor, factor))  # Python compares times
            np.testing.assert_array_equal(batches(photos, scale, 1)[0], plain * factor)


def test_a_module_that_workers_cannot_find_is_named(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    scale = a_module(tmp_path, 2, monkeypatch)
    (tmp_path / "helpers.py").unlink()
    with serve(), Session("auto"), pytest.raises(RenderError, match="No module named 'helpers'"):
        batches(photos, scale)


def test_folders_without_init_are_packages_of_one_trainer(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    with serve(), Session("auto"):
        (plain,) = batches(photos, None, 1)
        for factor in (2, 3):
            folder = tmp_path / str(factor)
            (folder / "parts").mkdir(parents=True)
            (folder / "parts" / "numbers_of_mine.py").write_text(f"FACTOR = {factor}\n")
            (folder / "helpers.py").write_text(
                "def scale(image):\n    from parts.numbers_of_mine import FACTOR\n"
                "    return image * FACTOR\n"
            )
            monkeypatch.syspath_prepend(str(folder))
            sys.modules.pop("helpers", None)
            scale = importlib.import_module("helpers").scale
            np.testing.assert_array_equal(batches(photos, scale, 1)[0], plain * factor)


def test_packages_of_other_environments_do_not_meet(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(), Session("auto"):
        (plain,) = batches(photos, None, 1)
        for factor in (2, 3, 2):
            folder = tmp_path / str(factor) / "lib" / "python3" / "site-packages"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "albumo.py").write_text(f"FACTOR = {factor}\n")
            monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])

            def scale(image: Any) -> Any:
                return image * importlib.import_module("albumo").FACTOR

            np.testing.assert_array_equal(batches(photos, scale, 1)[0], plain * factor)
            monkeypatch.undo()


def test_what_it_imports_when_it_runs_is_found_too(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    a_module(tmp_path, 7, monkeypatch)

    def late(image: Any) -> Any:
        from importlib import import_module

        return import_module("helpers").scale(image)

    with serve(), Session("auto"):
        (plain,) = batches(photos, None, 1)
        np.testing.assert_array_equal(batches(photos, late, 1)[0], plain * 7)


def test_another_module_of_the_name_is_not_taken_for_it(
    photos: Path, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forget: None
) -> None:
    theirs = tmp_path / "daemon"
    a_module(theirs, 2, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", str(theirs))
    with serve(), Session("auto"):
        scale = a_module(tmp_path / "trainer", 3, monkeypatch)
        with pytest.raises(RenderError, match=r"the workers' helpers is not .*trainer"):
            batches(photos, scale)
