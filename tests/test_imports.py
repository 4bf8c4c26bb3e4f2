"""Who may import whom, and what stays out of which process."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from loaderd_client import Session
from tests.support.daemons import Serve
from tests.support.streams import a_spec

ROOT = Path(__file__).parents[1]
BELOW = {
    "loaderd": set(),
    "loaderd.errors": set(),
    "loaderd.pillow": set(),
    "loaderd.storage": set(),
    "loaderd.memory": {"loaderd.errors"},
    "loaderd.scratch": set(),
    "loaderd.machine": set(),
    "loaderd.setting_types": {"loaderd.errors", "loaderd.machine"},
    "loaderd.augment": {"loaderd.errors"},
    "loaderd.spec": {"loaderd.augment", "loaderd.errors"},
    "loaderd.ipc": {"loaderd", "loaderd.errors", "loaderd.spec"},
    "loaderd.formatting": {"loaderd.ipc"},
    "loaderd.config": {
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.machine",
        "loaderd.setting_types",
    },
    "loaderd.launch": {"loaderd.errors", "loaderd.ipc"},
    "loaderd.sampling": {"loaderd.augment", "loaderd.errors", "loaderd.ipc", "loaderd.spec"},
    "loaderd.sources": {
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.memory",
        "loaderd.scratch",
        "loaderd.spec",
        "loaderd.storage",
    },
    "loaderd.render": {
        "loaderd.augment",
        "loaderd.scratch",
        "loaderd",
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.memory",
        "loaderd.pillow",
        "loaderd.spec",
        "loaderd.storage",
    },
    "loaderd.cache": {
        "loaderd.sources",
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.spec",
        "loaderd.storage",
    },
    "loaderd.child": {"loaderd.ipc", "loaderd.storage"},
    "loaderd.worker": {
        "loaderd.augment",
        "loaderd.sources",
        "loaderd.cache",
        "loaderd.child",
        "loaderd.config",
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.memory",
        "loaderd.render",
        "loaderd.sampling",
        "loaderd.spec",
        "loaderd.storage",
    },
    "loaderd.opener": {
        "loaderd.cache",
        "loaderd.child",
        "loaderd.config",
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.render",
        "loaderd.sampling",
        "loaderd.sources",
        "loaderd.spec",
        "loaderd.storage",
    },
    "loaderd.forkserver": {
        "loaderd.child",
        "loaderd.config",
        "loaderd.ipc",
        "loaderd.memory",
        "loaderd.opener",
        "loaderd.worker",
    },
    "loaderd.remote": {
        "loaderd",
        "loaderd.child",
        "loaderd.config",
        "loaderd.errors",
        "loaderd.forkserver",
        "loaderd.ipc",
        "loaderd.launch",
        "loaderd.render",
        "loaderd.spec",
    },
    "loaderd.gateway": {
        "loaderd.child",
        "loaderd.config",
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.remote",
        "loaderd.spec",
    },
    "loaderd.supervisor": {
        "loaderd",
        "loaderd.cache",
        "loaderd.child",
        "loaderd.config",
        "loaderd.errors",
        "loaderd.forkserver",
        "loaderd.ipc",
        "loaderd.launch",
        "loaderd.machine",
        "loaderd.sampling",
        "loaderd.setting_types",
        "loaderd.spec",
        "loaderd.storage",
    },
    "loaderd.monitor": {"loaderd.formatting", "loaderd.ipc"},
    "loaderd.cli": {
        "loaderd.augment",
        "loaderd_client",
        "loaderd_client.core",
        "loaderd_client.keras",
        "loaderd.sampling",
        "loaderd",
        "loaderd.cache",
        "loaderd.config",
        "loaderd.errors",
        "loaderd.formatting",
        "loaderd.ipc",
        "loaderd.launch",
        "loaderd.machine",
        "loaderd.monitor",
        "loaderd.pillow",
        "loaderd.setting_types",
        "loaderd.sources",
        "loaderd.spec",
        "loaderd.supervisor",
        "loaderd.child",
        "loaderd.web",
    },
    "loaderd.web": {
        "loaderd.memory",
        "loaderd.cache",
        "loaderd.child",
        "loaderd.config",
        "loaderd.errors",
        "loaderd.formatting",
        "loaderd.ipc",
        "loaderd.launch",
        "loaderd.monitor",
        "loaderd.worker",
        "loaderd_client.core",
        "loaderd_client.keras",
    },
    "loaderd.__main__": {"loaderd.cli"},
    "loaderd_client.core": {
        "loaderd.sampling",
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.launch",
        "loaderd.spec",
    },
    "loaderd_client.augment": {"loaderd.augment"},
    "loaderd_client.keras": {
        "loaderd.augment",
        "loaderd.errors",
        "loaderd.ipc",
        "loaderd.launch",
        "loaderd.monitor",
        "loaderd.render",
        "loaderd.sampling",
        "loaderd.spec",
        "loaderd_client.core",
        "loaderd_client.jax",
        "loaderd_client.torch",
    },
    "loaderd_client.callbacks": {"loaderd_client.keras"},
    "loaderd_client.jax": {"loaderd.errors", "loaderd_client.core"},
    "loaderd_client.torch": {"loaderd.errors", "loaderd_client.core"},
    "loaderd_client.image": {"loaderd_client.keras"},
    "loaderd_client": {"loaderd", "loaderd.launch", "loaderd_client.core", "loaderd_client.keras"},
}
"""The packages, and the modules beside them, each with those that it may import."""
OF_THE_CLIENT = {
    "loaderd.sampling.epoch_layout",
    "loaderd.sampling.keras_draws",
    "loaderd.sampling.order",
    "loaderd.sampling.weights",
    "loaderd.render.transforms.augment",
    "loaderd.render.transforms.keras_images",
    "loaderd.render.transforms.normalize",
    "loaderd.render.transforms.stand_ins",
}
"""What the client takes from beyond ``ipc``: Keras's order, draws and values, on the spot; and
what it tells workers to run in the place of Keras's functions."""
SHOWING = ("loaderd_client.keras.preview",)
"""Loads PIL when a picture is asked for."""
DECODERS = {"PIL", "cv2", "simplejpeg"}
TRAINERS = {"keras", "tensorflow", "jax", "torch"}
EXTRAS = {"ray"}
"""Packages of extras, loaded when what they are for is asked for."""


def sources() -> list[Path]:
    return sorted([*(ROOT / "loaderd").rglob("*.py"), *(ROOT / "client").rglob("*.py")])


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part not in ("client", "__init__"))


def unit_of(module: str) -> str:
    """A package of ours, or a module beside the packages."""
    parts = module.split(".")
    return ".".join(parts[:2])


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            for name in node.names:
                inner = (ROOT / module.replace(".", "/") / name.name).with_suffix(".py")
                package = ROOT / module.replace(".", "/") / name.name
                yield f"{module}.{name.name}" if inner.exists() or package.is_dir() else module


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_imports_point_in_the_allowed_direction(path: Path) -> None:
    unit = unit_of(module_of(path))
    for name in imports_of(path):
        if name.split(".")[0] in ("loaderd", "loaderd_client"):
            assert unit_of(name) in BELOW[unit] | {unit}, f"{path} imports {name}"


@pytest.mark.parametrize("folder", ["loaderd", "scripts"])
def test_imports_form_no_circle(folder: str) -> None:
    """Imports within functions and for types alone count as well."""
    paths = {module_of(path): path for path in (ROOT / folder).rglob("*.py")}
    graph = {name: {*imports_of(path)} & paths.keys() - {name} for name, path in paths.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_the_client_takes_from_sampling_and_render_what_it_computes_on_the_spot(path: Path) -> None:
    if module_of(path).startswith("loaderd_client"):
        found = {
            name
            for name in imports_of(path)
            if unit_of(name) in ("loaderd.sampling", "loaderd.render")
        }
        assert found <= OF_THE_CLIENT


@pytest.mark.parametrize("path", sources(), ids=module_of)
def test_decoders_are_imported_by_render_and_workers_only(path: Path) -> None:
    module = module_of(path)
    allowed = module.startswith(("loaderd.augment", "loaderd.render", "loaderd.worker")) or (
        module in ("loaderd.cli.doctor", *SHOWING)
    )
    found = {name.split(".")[0] for name in imports_of(path)}
    assert allowed or not found & DECODERS
    assert module.startswith("loaderd_client") or not found & TRAINERS


def modules() -> dict[str, Path]:
    """Every module of the product and of the scripts, by its name."""
    return {module_of(path): path for path in [*sources(), *(ROOT / "scripts").rglob("*.py")]}


def imported_by(path: Path, known: set[str]) -> set[str]:
    """The modules of ours that a module imports anywhere in it, also for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{name.name}" for name in node.names}
            of_package = {node.module or ""} if inner - known else set()
            found |= inner | of_package
    return found & known


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = modules()
    # scripts.benchmarks.stand_in imports itself, as it runs under the name __main__.
    graph = {name: imported_by(path, set(known)) - {name} for name, path in known.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_the_core_of_the_client_knows_no_keras() -> None:
    known = modules()
    reached = {name for name in known if name.startswith("loaderd_client.core")}
    todo = list(reached)
    while todo:
        found = imported_by(known[todo.pop()], set(known)) - reached
        reached |= found
        todo += found
    assert "loaderd.spec.spec" in reached
    assert not [name for name in reached if name.startswith("loaderd_client.keras")]
    loaded = modules_after("import loaderd_client.core.session", whole=True)
    assert not [name for name in loaded if name.startswith("loaderd_client.keras")]


def modules_after(statement: str, whole: bool = False) -> set[str]:
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name if whole else name.split(".")[0] for name in done.stdout.split()}


def test_the_client_loads_neither_decoders_nor_keras() -> None:
    loaded = modules_after("import loaderd_client; loaderd_client.connect")
    assert not loaded & (DECODERS | TRAINERS)
    assert not modules_after("from loaderd_client import ImageDataGenerator") & (
        DECODERS | TRAINERS
    )


def test_the_supervisor_loads_no_decoder() -> None:
    loaded = modules_after("import loaderd.supervisor.supervisor, loaderd.cli.main")
    assert not loaded & (DECODERS | TRAINERS | EXTRAS)


def test_no_module_imports_ray_when_it_is_loaded() -> None:
    for path in sources():
        assert "ray" not in {name.split(".")[0] for name in imports_of(path)}, path
    assert "ray" not in modules_after("import loaderd.gateway.server, loaderd.remote.child")


def test_a_worker_loads_no_keras() -> None:
    loaded = modules_after("import loaderd.worker.loop")
    assert loaded >= DECODERS
    assert not loaded & TRAINERS


def test_obstore_is_imported_where_a_store_is_read_and_nowhere_before() -> None:
    found = [path for path in sources() if "obstore" in {n.split(".")[0] for n in imports_of(path)}]
    assert [module_of(path) for path in found] == ["loaderd.sources.object_store"]
    assert "obstore" not in modules_after("import loaderd.worker.loop, loaderd.opener.opener")
    assert "obstore" not in modules_after("import loaderd.cli.index, loaderd_client.keras.archive")


def test_no_running_worker_has_mapped_tensorflow(serve: Serve, photos: Path) -> None:
    with serve(workers=2) as daemon, Session(daemon.path) as session:
        session.open(a_spec(photos), slots=4).take((0, 0))
        for pid in daemon.workers():
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "cv2" in maps
            assert not re.search("-packages/(tensorflow|keras|jaxlib|torch)", maps)


def test_every_package_is_installed() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = config["options"]["packages"].split()
    assert listed == sorted({module_of(path.parent / "__init__.py") for path in sources()})


def test_packages_stay_empty() -> None:
    for path in sources():
        if path.name == "__init__.py" and path.parent.name != "loaderd_client":
            body = ast.parse(path.read_text()).body
            assert len(body) <= 2, f"{path} does more than name a version"
    assert os.path.exists(ROOT / "client" / "loaderd_client" / "py.typed")
