"""Runs examples with an extension of a file, such as one that is built with sanitizers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

_Example = TypeVar("_Example")


def load(name: str, path: str) -> Any:
    """The module of an extension's file."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def try_examples(
    count: int, examples: st.SearchStrategy[_Example], check: Callable[[_Example], None]
) -> None:
    """Checks so many examples; the first that fails ends it."""

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(examples)
    def run(example: _Example) -> None:
        check(example)

    run()
