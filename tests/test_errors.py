"""Errors that are also what their cause was."""

from __future__ import annotations

import builtins
import copy
import pickle
import traceback
from collections.abc import Callable

import numpy as np
import pytest

from loaderd.errors import LoaderdError, RenderError, from_wire

TEXT = "/photos/a.jpg: Traceback:\n  File x\nKeyError: 'name'"
EXCEPTIONS = [
    kind
    for kind in vars(builtins).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind is not ExceptionGroup
]


def over_the_wire(error: RenderError) -> LoaderdError:
    return from_wire(type(error).__name__, str(error))


def pickled(error: RenderError) -> LoaderdError:
    again: LoaderdError = pickle.loads(pickle.dumps(error))
    return again


@pytest.mark.parametrize("kind", EXCEPTIONS)
@pytest.mark.parametrize("way", [over_the_wire, pickled, copy.copy, copy.deepcopy])
def test_it_is_what_its_cause_was_and_says_its_text(
    kind: type[Exception], way: Callable[[RenderError], LoaderdError]
) -> None:
    error = way(RenderError.of(kind.__new__(kind), TEXT))
    ends_loops = issubclass(kind, (StopIteration, StopAsyncIteration))
    assert isinstance(error, RenderError)
    assert isinstance(error, RuntimeError if ends_loops else kind)
    assert isinstance(error, ValueError) == issubclass(kind, ValueError)
    assert not isinstance(error, (StopIteration, StopAsyncIteration))
    assert str(error) == TEXT
    assert TEXT in "".join(traceback.format_exception(error))


def test_libraries_exceptions_are_all_that_they_were() -> None:
    error = RenderError.of(np.exceptions.AxisError(3, 2), TEXT)
    assert isinstance(error, ValueError) and isinstance(error, IndexError)


@pytest.mark.parametrize(
    "cause", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), ExceptionGroup("x", [OSError()])]
)
def test_what_must_not_leave_the_trainer_is_a_plain_error(cause: BaseException) -> None:
    assert type(RenderError.of(cause, TEXT)) is RenderError


def test_one_that_is_told_again_stays_what_it_was() -> None:
    inner = RenderError.of(KeyError("name"), "inner")
    assert type(RenderError.of(inner, TEXT)) is type(inner)


def test_notes_are_kept() -> None:
    error = RenderError.of(KeyError("name"), TEXT)
    error.add_note("in the third epoch")
    assert pickled(error).__notes__ == ["in the third epoch"]


@pytest.mark.parametrize("kind", ["RenderError(SystemExit)", "RenderError(open)", "RenderError(X)"])
def test_what_is_no_exception_of_pythons_is_not_made(kind: str) -> None:
    assert type(from_wire(kind, TEXT)) is RenderError
