"""Names in any encoding, wherever a name may be given: the file system holds bytes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from loaderd.errors import BadImage, DatasetNotFound
from loaderd_client import ImageDataGenerator, Session, image_dataset_from_directory
from tests.support.daemons import Daemon, Serve

ODD = os.fsdecode(b"\xe4\xff\n'\"\\ud")
LONG = os.fsdecode(b"\xe4" * 250)
FLOW: dict[str, Any] = {"target_size": (8, 8), "batch_size": 6, "shuffle": False}


def write(path: str, red: int) -> None:
    Image.new("RGB", (8, 8), (red, 0, 0)).save(path, "PNG")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two classes of three pictures, whose red says which they are; and the working directory."""
    root = f"{tmp_path}/data{ODD}"
    for label, name in enumerate(("a" + ODD, "b")):
        os.makedirs(f"{root}/{name}")
        for i, file in enumerate((f"0{ODD}.png", f"1{LONG}.PNG", "2 .png")):
            write(f"{root}/{name}/{file}", 100 * label + i)
    os.makedirs(f"{tmp_path}/here{ODD}")
    monkeypatch.chdir(f"{tmp_path}/here{ODD}")
    return root


@pytest.fixture
def daemon(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    monkeypatch.setenv("LOADERD_CACHE_DIR", f"{tmp_path}/caches{ODD}")
    with serve(workers=1) as daemon, Session(daemon.path):
        yield daemon


def reds(batch: Any) -> list[int]:
    """Which pictures a batch holds."""
    images = batch[0] if isinstance(batch, tuple) else batch
    return np.asarray(images)[:, 0, 0, 0].astype(int).tolist()  # type: ignore[no-any-return]


ALL = [0, 1, 2, 100, 101, 102]
TURNED = [100, 101, 102, 0, 1, 2]


@pytest.mark.usefixtures("daemon")
def test_directories_classes_and_files(folder: str) -> None:
    generator = ImageDataGenerator()
    flow = generator.flow_from_directory(folder, **FLOW)
    assert reds(next(flow)) == ALL
    assert flow.class_indices == {"a" + ODD: 0, "b": 1}
    assert flow.filenames[0] == f"a{ODD}/0{ODD}.png"
    turned = generator.flow_from_directory(folder, classes=["b", "a" + ODD], **FLOW)
    assert reds(next(turned)) == TURNED
    relative = generator.flow_from_directory(os.path.relpath(folder), **FLOW)
    assert reds(next(relative)) == ALL


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("as_given", [str, os.fsencode, Path])
def test_datasets_of_image_dataset_from_directory(
    folder: str, as_given: Callable[[str], Any]
) -> None:
    options: dict[str, Any] = {"image_size": (8, 8), "shuffle": False, "batch_size": 6}
    assert reds(image_dataset_from_directory(as_given(folder), **options)[0]) == ALL
    names = ["b", "a" + ODD]
    turned: Any = image_dataset_from_directory(as_given(folder), class_names=names, **options)
    assert reds(turned[0]) == TURNED
    assert turned.class_names == names


@pytest.mark.usefixtures("daemon")
def test_tables(folder: str) -> None:
    files = sorted(os.path.join(path, name) for path, _, names in os.walk(folder) for name in names)
    # pyarrow, where it is installed, has no strings with such characters.
    table = pd.DataFrame({"filename": files, "class": ["x" + ODD, "y"] * 3}, dtype=object)
    flow = ImageDataGenerator().flow_from_dataframe(table, **FLOW)
    assert reds(next(flow)) == ALL
    assert flow.class_indices == {"x" + ODD: 0, "y": 1}
    short = [os.path.relpath(path, folder) for path in files]
    table["filename"] = pd.Series(short, dtype=object)
    flow = ImageDataGenerator().flow_from_dataframe(table, folder, classes=["y", "x" + ODD], **FLOW)
    assert reds(next(flow)) == ALL


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_caches(folder: str, cache: Any) -> None:
    for _ in range(2):
        flow = ImageDataGenerator().flow_from_directory(folder, cache=cache, **FLOW)
        assert reds(next(flow)) == ALL


@pytest.mark.usefixtures("daemon")
def test_saved_pictures(folder: str, tmp_path: Path) -> None:
    os.makedirs(saved := f"{tmp_path}/saved{ODD}")
    for where in (saved, "."):
        flow = ImageDataGenerator().flow_from_directory(
            folder, save_to_dir=where, save_prefix="p" + ODD, **FLOW
        )
        next(flow)
        names = os.listdir(where)
        assert len(names) >= len(ALL)
        assert all(name.startswith("p" + ODD) for name in names)


@pytest.mark.usefixtures("daemon")
def test_modules_and_folders_of_the_users_code(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.makedirs(place := f"{tmp_path}/code{ODD}")
    with open(f"{place}/named_code.py", "w") as file:
        file.write("def brighter(x):\n    return x + 7\n")
    monkeypatch.syspath_prepend(place)
    named = importlib.import_module("named_code").brighter
    for function in (named, lambda x: x + 7):
        flow = ImageDataGenerator(preprocessing_function=function).flow_from_directory(
            folder, **FLOW
        )
        assert reds(next(flow)) == [red + 7 for red in ALL]


def test_errors_logs_and_what_people_read_stay_printable(folder: str, daemon: Daemon) -> None:
    with open(f"{folder}/b/bad{ODD}.png", "w") as file:
        file.write("no picture")
    flow = ImageDataGenerator().flow_from_directory(folder, **FLOW | {"batch_size": 7})
    with pytest.raises(BadImage) as caught:
        next(flow)
    assert str(caught.value).isprintable()
    with pytest.raises(DatasetNotFound) as missing:
        ImageDataGenerator().flow_from_directory(folder + "nowhere", **FLOW)
    assert str(missing.value).isprintable()
    log = daemon.log
    assert "bad image" in log
    assert all(line.isprintable() for line in log.splitlines())
    (stream,) = daemon.snapshot().streams
    assert "\\udce4" in stream.directory


def test_names_of_daemons_sockets_and_settings(tmp_path: Path) -> None:
    odd = os.fsdecode(b"\xe4\xff")
    settings = f"{tmp_path}/settings{odd}.toml"
    with open(settings, "w") as file:
        file.write("workers = 1\n")
    environment = os.environ | {
        "LOADERD_NAME": "n" + odd,
        "LOADERD_CONFIG": settings,
        "LOADERD_CACHE_DIR": f"{tmp_path}/caches{odd}",
        "PYTHONIOENCODING": "utf-8",
    }
    try:
        for words in ("start", "status", "errors", "cache ls", "doctor"):
            command = [sys.executable, "-m", "loaderd", *words.split()]
            done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
            assert done.returncode == 0, done.stderr
            assert b"\\udce4\\udcff" in done.stdout or words == "errors"
    finally:
        command = [sys.executable, "-m", "loaderd", "stop"]
        subprocess.run(command, env=environment, check=True, timeout=60)
