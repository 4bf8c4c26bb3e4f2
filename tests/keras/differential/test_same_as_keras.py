"""Whatever the arguments, our iterators give what Keras's give.

``scripts/test`` runs a few hundred examples, ``scripts/test --long`` 5,000. They are the
same in every run. With ``LOADERD_SURFACE=keras`` Keras is compared with itself.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.keras.differential.cases import (
    Case,
    arrays,
    directories,
    frames,
    methods,
    shape_of_arrays,
    shape_of_files,
)
from tests.keras.differential.comparison import Flow, compare, compare_methods
from tests.keras.differential.conftest import Connect
from tests.keras.differential.flows import (
    array_flow,
    directory_flow,
    frame_flow,
    images,
)

pytestmark = [
    pytest.mark.timeout(600),  # shrinking a failing example takes its time
    pytest.mark.filterwarnings("ignore"),  # Keras's, about most arguments
]

SHORT = settings(
    max_examples=110,
    deadline=None,
    derandomize=True,
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)
LONG = settings(SHORT, max_examples=1_700)


def check(case: Case, flow: Flow, shape: tuple[int, int, int], connect: Connect) -> None:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        connect(),
        contextlib.redirect_stdout(io.StringIO()),  # "Found 13 images", hundreds of times
    ):
        compare(case, flow, shape, folder)


def check_directory(case: Case, pictures: Path, connect: Connect) -> None:
    check(case, directory_flow(case, pictures), shape_of_files(case), connect)


def check_frame(case: Case, pictures: Path, connect: Connect) -> None:
    check(case, frame_flow(case, pictures), shape_of_files(case), connect)


def check_array(case: Case, connect: Connect) -> None:
    check(case, array_flow(case), shape_of_arrays(case), connect)


@SHORT
@given(case=directories())
def test_flow_from_directory(pictures: Path, connect: Connect, case: Case) -> None:
    check_directory(case, pictures, connect)


@SHORT
@given(case=frames())
def test_flow_from_dataframe(pictures: Path, connect: Connect, case: Case) -> None:
    check_frame(case, pictures, connect)


@SHORT
@given(case=arrays())
def test_flow(connect: Connect, case: Case) -> None:
    check_array(case, connect)


@SHORT
@given(case=methods())
def test_the_methods_of_the_generator(case: Case) -> None:
    compare_methods(case, images(case))


def test_a_class_without_a_folder(pictures: Path, connect: Connect) -> None:
    flow = {"seed": 1, "target_size": (6, 5), "classes": ["emu", "yak", "cat"]}
    check_directory(Case({}, flow, saves=False, fit=None), pictures, connect)


@pytest.mark.long
@pytest.mark.timeout(3600)
@LONG
@given(case=directories())
def test_flow_from_directory_at_length(pictures: Path, connect: Connect, case: Case) -> None:
    check_directory(case, pictures, connect)


@pytest.mark.long
@pytest.mark.timeout(3600)
@LONG
@given(case=frames())
def test_flow_from_dataframe_at_length(pictures: Path, connect: Connect, case: Case) -> None:
    check_frame(case, pictures, connect)


@pytest.mark.long
@pytest.mark.timeout(3600)
@LONG
@given(case=arrays())
def test_flow_at_length(connect: Connect, case: Case) -> None:
    check_array(case, connect)
