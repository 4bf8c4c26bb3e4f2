"""A daemon finds what its starter finds, in the same order, and nothing else instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipapp
from pathlib import Path

import numpy
import pytest

import loaderd
import loaderd_client

ASKS = "from loaderd.launch import search_path; print(*search_path.entries(), sep='\\n')"
FOLDERS = [Path(one.__file__ or "").parent for one in (loaderd, loaderd_client)]
STARTS = """
import loaderd_client
with loaderd_client.connect() as session:
    print("up")
"""


def ours(variable: str = "") -> dict[str, str]:
    """The variables of a program, and where to find this loaderd, as an absolute path."""
    homes = [str(folder.parent) for folder in FOLDERS]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([variable, *homes] if variable else homes)}


def run(*words: str, cwd: Path, env: dict[str, str], stdin: str | None = None) -> list[str]:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_relative_pythonpath_means_the_folder_of_its_time(tmp_path: Path) -> None:
    (tmp_path / "vendor").mkdir()
    (tmp_path / "later" / "vendor").mkdir(parents=True)
    program = f"import os; os.chdir('later'); {ASKS}"
    found = run("-c", program, cwd=tmp_path, env=ours("vendor"))
    assert found[0] == f"{tmp_path}/vendor"
    assert f"{tmp_path}/later/vendor" not in found


def test_added_folders_keep_their_places(tmp_path: Path) -> None:
    for name in ("first", "last"):
        (tmp_path / name).mkdir()
    program = f"import sys; sys.path.insert(0, 'first'); sys.path.append('last'); {ASKS}"
    found = run("-c", program, cwd=tmp_path, env=ours())
    standard = next(place for place, folder in enumerate(found) if "lib/python" in folder)
    assert found.index(f"{tmp_path}/first") < standard < found.index(f"{tmp_path}/last")


def test_what_is_no_text_in_sys_path_is_passed_over(tmp_path: Path) -> None:
    program = f"import sys, pathlib; sys.path[:0] = [pathlib.Path('/x'), None, b'/y']; {ASKS}"
    assert not {"/x", "/y"} & set(run("-c", program, cwd=tmp_path, env=ours()))


def scripted(tmp_path: Path, text: str) -> str:
    script = tmp_path / "train.py"
    script.write_text(text)
    return str(script)


@pytest.mark.parametrize("how", ["script", "-c", "-m", "stdin"])
def test_the_scripts_own_folder_is_not_handed_on(how: str, tmp_path: Path) -> None:
    scripted(tmp_path, ASKS)
    words = {"script": ["train.py"], "-c": ["-c", ASKS], "-m": ["-m", "train"], "stdin": ["-"]}
    found = run(*words[how], cwd=tmp_path, env=ours(), stdin=ASKS if how == "stdin" else None)
    assert str(tmp_path) not in found
    assert all(map(os.path.isabs, found))


@pytest.mark.parametrize("how", ["script", "-c", "-m"])
def test_it_comes_last_if_something_lies_there_that_a_daemon_needs(
    how: str, tmp_path: Path
) -> None:
    scripted(tmp_path, ASKS)
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").touch()
    words = {"script": ["train.py"], "-c": ["-c", ASKS], "-m": ["-m", "train"]}
    found = run(*words[how], cwd=tmp_path, env=ours())
    assert found[-1] == str(tmp_path)
    assert found.count(str(tmp_path)) == 1


def test_a_folder_that_pythonpath_names_is_no_scripts(tmp_path: Path) -> None:
    found = run(scripted(tmp_path, ASKS), cwd=tmp_path, env=ours(str(tmp_path)))
    assert found[0] == str(tmp_path)


def test_a_working_directory_that_is_gone_is_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    program = f"import os, sys; os.rmdir(os.getcwd()); sys.path.append('x'); {ASKS}"
    assert run("-c", program, cwd=tmp_path / "gone", env=ours())


def test_no_module_beside_the_script_takes_the_place_of_one_that_the_daemon_imports(
    tmp_path: Path,
) -> None:
    # One that the trainer does not import: others it would meet itself.
    (tmp_path / "tomllib.py").write_text("raise SystemExit('the wrong module')")
    assert run(scripted(tmp_path, STARTS), cwd=tmp_path, env=ours()) == ["up"]


def test_a_program_in_an_archive_starts_a_daemon(tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    (tmp_path / "program" / "__main__.py").write_text(STARTS)
    zipapp.create_archive(tmp_path / "program", tmp_path / "program.pyz")
    assert run("program.pyz", cwd=tmp_path, env=ours()) == ["up"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has nothing, and a folder ``vendor`` that has all that this one has."""
    root = tmp_path_factory.mktemp("bare")
    venv.create(root / "env", symlinks=True, with_pip=False)
    (root / "vendor").mkdir()
    installed = Path(numpy.__file__).parents[1]
    for one in installed.iterdir():
        if not one.name.startswith(("loaderd", "__editable__")) and one.suffix != ".pth":
            (root / "vendor" / one.name).symlink_to(one)
    for folder in FOLDERS:
        (root / "vendor" / folder.name).symlink_to(folder)
    return root


READS = """
import sys
{before}
import loaderd_client
from halves import halve
with loaderd_client.connect():
    generator = loaderd_client.ImageDataGenerator(preprocessing_function=halve)
    flow = generator.flow_from_directory(sys.argv[1], target_size=(8, 8), class_mode=None)
    print(len(next(flow)))
"""


@pytest.mark.parametrize(
    ("variable", "before"),
    [
        ("vendor", ""),
        (None, "sys.path.insert(0, 'vendor')"),
        (None, "sys.path.append('vendor')"),
        ("vendor", "import os; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"),
    ],
    ids=["a relative PYTHONPATH", "inserted", "appended", "the working directory is gone"],
)
def test_packages_that_lie_beside_a_program_are_found_by_its_workers(
    bare: Path, tmp_path: Path, photos: Path, variable: str | None, before: str
) -> None:
    shutil.copytree(bare / "vendor", tmp_path / "vendor", symlinks=True)
    (tmp_path / "vendor" / "halves.py").write_text("def halve(image):\n    return image / 2\n")
    (tmp_path / "train.py").write_text(READS.format(before=before))
    known = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    env = known | ({"PYTHONPATH": variable} if variable else {})
    done = subprocess.run(
        [str(bare / "env" / "bin" / "python"), "train.py", str(photos)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["32"], done.stderr
