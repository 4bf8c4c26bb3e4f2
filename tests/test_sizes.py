"""How large classes and signatures may be."""

from __future__ import annotations

import ast
import inspect
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaderd_client import LoaderSequence

ROOT = Path(__file__).parents[1]
MAX_LINES = 250
MAX_PARAMETERS = 6
OF_KERAS = {
    "apply_affine_transform",
    "flow",
    "flow_from_dataframe",
    "flow_from_directory",
    "image_dataset_from_archive",
    "image_dataset_from_arrays",
    "image_dataset_from_dataframe",
    "image_dataset_from_directory",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "set_processing_attrs",
    "Augmentation.__init__",
    "DataFrameIterator.__init__",
    "DirectoryIterator.__init__",
    "NumpyArrayIterator.__init__",
}
"""Functions that have the parameters that Keras gives them, and those like them."""


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions_of(path: Path) -> Iterator[tuple[str, int]]:
    """Names, those of ``__init__`` with their classes', and how many parameters they have."""
    for node in ast.walk(ast.parse(path.read_text())):
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for one in ast.iter_child_nodes(node):
            if isinstance(one, ast.FunctionDef):
                arguments = one.args
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                count = sum(argument.arg not in ("self", "cls") for argument in every)
                yield (prefix if one.name == "__init__" else "") + one.name, count


@pytest.mark.parametrize("path", sources("loaderd", "client"), ids=name_of)
def test_no_class_is_too_large(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            assert lines <= MAX_LINES, f"{node.name} has {lines} lines"


def test_a_sequence_is_little_more_than_the_protocol_of_keras() -> None:
    assert len(inspect.getsource(LoaderSequence).splitlines()) < 165


def test_no_two_classes_have_one_name() -> None:
    """Two messages of one name, or a value and what is made of it, are easily mixed up."""
    names = [
        node.name
        for path in sources("loaderd", "client")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    assert [name for name, count in Counter(names).items() if count > 1] == []


@pytest.mark.parametrize("path", sources("loaderd", "client"), ids=name_of)
def test_no_function_but_those_of_keras_has_many_parameters(path: Path) -> None:
    many = {name for name, count in functions_of(path) if count > MAX_PARAMETERS}
    assert many <= OF_KERAS
