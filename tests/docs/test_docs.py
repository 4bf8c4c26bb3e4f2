"""What the documentation says is so: its commands run, its links lead somewhere.

Every fenced block is of a kind that is known here: Python and console blocks are run, in the
order of their page and as they stand; TOML is loaded; screens are held against real ones.
Commands that install something or take minutes are only looked up.
"""

from __future__ import annotations

import builtins
import configparser
import contextlib
import functools
import importlib.util
import inspect
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import types
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import msgspec
import numpy as np
import pandas
import pytest
import yaml
from keras._tf_keras.keras.preprocessing import image as keras_image
from keras.src.layers.preprocessing.image_preprocessing.base_image_preprocessing_layer import (
    BaseImagePreprocessingLayer as BaseLayer,
)
from keras.src.legacy.preprocessing import image as keras_source

import loaderd_client
from loaderd import config, errors, pillow
from loaderd.cli import stat, target
from loaderd.cli import verbs as command
from loaderd.ipc import dial
from loaderd.ipc.snapshot import RemoteStats, Snapshot, StorageStats
from loaderd.launch import page_token
from loaderd.monitor import rows
from loaderd.monitor.report import RemoteRates, derive
from loaderd.spec.base import Cache
from loaderd_client import (
    ImageDataGenerator,
    LoaderSequence,
    Session,
    augment,
    image,
    image_dataset_from_directory,
)
from loaderd_client.core import deadline
from loaderd_client.core import session as sessions
from loaderd_client.keras.dataset_options import DatasetOptions
from loaderd_client.keras.samples import Samples
from tests.monitor.test_report import snapshot, stream
from tests.support.daemons import Serve, eventually
from tests.support.streams import a_spec

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
CLIENT = ROOT / "docs/reference/client.md"
AUGMENT = ROOT / "docs/reference/augment.md"
LAYERS = ROOT / "docs/how-to/augment-from-keras-layers.md"
TRANSFORMS = ROOT / "docs/how-to/augment-from-torchvision-or-albumentations.md"
LOADERD = ROOT / "docs/reference/loaderd.md"
MIGRATION = ROOT / "docs/how-to/migrate-from-imagedatagenerator.md"
STAT = ROOT / "docs/reference/loaderd-stat.md"
ERRORS = ROOT / "docs/reference/errors.md"

PARALLEL = {
    "search.py",
    "train_jax.py",
    "train_ray_tensorflow.py",
    "train_ray_torch.py",
    "train_tensorflow.py",
    "train_torch.py",
}
"""Programs for several processes, which ``test_data_parallel.py``, ``test_searches.py`` and
``test_ray_train.py`` run."""

TIMEOUT = 60.0
WATCHED = 2.5

THE_READERS_PROGRAM = """
from loaderd_client import ImageDataGenerator

train = ImageDataGenerator().flow_from_directory("data/train", target_size=(40, 50))
assert len(train[0][0]) == 32
"""
"""What a reader calls train.py where a page does not say what is in it."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


# ---- the blocks of a page ----------------------------------------------------------------


class Block(NamedTuple):
    """A fenced block, and where it stands."""

    language: str
    text: str
    where: str


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    found = [
        Block(match[1], match[2], f"{name_of(page)}:{text.count(chr(10), 0, match.start()) + 1}")
        for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]
    fences = [line for line in text.splitlines() if line.lstrip(" >").startswith(("```", "~~~"))]
    assert len(fences) == 2 * len(found), f"{page} has fences that are not seen here"
    return found


def all_blocks() -> Iterator[Block]:
    for page in PAGES:
        yield from blocks_of(page)


def is_screen(text: str) -> bool:
    return text.startswith('loaderd "')


def are_rows(text: str) -> bool:
    return text.lstrip().startswith("time ")


def is_listing(text: str) -> bool:
    return bool(re.match("[0-9a-f]{12} ", text))


def is_answer(text: str) -> bool:
    return text.startswith("LOADERD OK - ")


def is_picture(text: str) -> bool:
    return bool(set("─│└◄►") & set(text))


# ---- somebody who follows a page ---------------------------------------------------------


class Reader:
    """Does what a page says, in a folder with ``data/train``, in terminals of one user."""

    def __init__(self, folder: Path, page: Path) -> None:
        self.folder = folder
        self.page = page
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.programs: list[subprocess.Popen[str]] = []
        self.unread: set[str] = set()
        self.goes_on = False

    def follow(self, block: Block) -> None:
        ways = {
            "python": self.python,
            "console": self.console,
            "toml": self.toml,
            "yaml": self.yaml,
        }
        if block.language == "text":
            kinds = (is_screen, are_rows, is_listing, is_answer, is_picture)
            assert any(kind(block.text) for kind in kinds), f"{block.where}: what is this?"
            return
        assert block.language in ways, f"{block.where}: nobody checks {block.language!r}"
        ways[block.language](block)

    def finish(self) -> None:
        self.await_programs()
        assert not self.unread, f"{self.page}: {self.unread} were saved and never run"

    def end(self) -> None:
        for session in reversed(sessions._sessions):
            session.close()
        for program in self.programs:
            program.kill()
            program.wait()
        stop_all()

    # -- Python

    def python(self, block: Block) -> None:
        first = block.text.splitlines()[0]
        if named := re.fullmatch(r"# (\w+\.py)", first):
            (self.folder / named[1]).write_text(block.text)
            self.unread.add(named[1])
            return
        if "model.fit" in block.text and "model" not in self.names:
            self.names["model"] = a_model()
        exec(compile(block.text, block.where, "exec"), self.names)

    def yaml(self, block: Block) -> None:
        assert yaml.safe_load(block.text)

    def toml(self, block: Block) -> None:
        file = self.folder / "loaderd.toml"
        file.write_text(block.text)
        config.load({"config": str(file)}, {})

    # -- the terminal

    def console(self, block: Block) -> None:
        for line in block.text.splitlines():
            assert line.startswith("$ "), f"{block.where}: no command: {line}"
            words = shlex.split(line[2:], comments=True)
            if words[0] == "export":
                continue
            env = dict(word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word))
            self.run(words[len(env) :], env, line)

    def run(self, words: list[str], env: dict[str, str], line: str) -> None:
        program = words[0].rpartition("/bin/")[2]  # of whichever environment
        if program in ("loaderd", "loaderd-stat"):
            return self.ours(program, words, line[2:])
        if parallel := PARALLEL & {*words}:
            self.unread -= parallel
            return None
        if program == "python" and words[1] == "train.py":
            return self.train(words[2:], env)
        if program == "scripts/make-photos":
            small = ["--images", "20", "--size", "64x48"]
            return self.shell(shlex.join([str(ROOT / program), *words[1:], *small]))
        assert program in LOOKED_UP, f"{self.page}: nobody checks {line!r}"
        return LOOKED_UP[program](words)

    def ours(self, program: str, words: list[str], line: str) -> None:
        if program == "loaderd-stat" or words[1] == "stat":
            self.have_a_daemon()
            if "--watch" in words:
                return self.watch(words)
        elif "--ray" in words:  # test_cluster.py runs it
            said = dict(zip(words[2::2], words[3::2], strict=True))
            config.load({flag[2:].replace("-", "_"): value for flag, value in said.items()}, {})
            return None
        elif words[1] in ("start", "serve"):
            stop_all()  # each such line is one way to do it
            if words[1] == "serve":
                return self.serve(words)
        elif words[1] == "stop":
            self.await_programs()
        elif words[1] == "web":
            return self.web(words)
        return self.shell(re.sub(r"\S*/bin/loaderd", "loaderd", line))

    def have_a_daemon(self) -> None:
        if self.programs:
            eventually(self.program_is_at_work)
        if not target.alive():
            self.shell("loaderd start")

    def program_is_at_work(self) -> bool:
        if self.programs[-1].poll() is not None:
            return True
        return any(dial.observe(found.socket).streams for found in target.alive())

    def watch(self, words: list[str]) -> None:
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(WATCHED)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert shown.startswith(rows.HEADER)

    def web(self, words: list[str]) -> None:
        self.have_a_daemon()
        words = [*words, "--http", "0"]  # the usual port may be taken
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[-1]
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(address, timeout=TIMEOUT) as page:
                assert b"<title>loaderd</title>" in page.read()
            process.send_signal(signal.SIGINT)
            assert process.wait(TIMEOUT) == 0

    def serve(self, words: list[str]) -> None:
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        eventually(lambda: bool(target.alive()) or process.poll() is not None)
        eventually(lambda: process.poll() is not None or bool(self.workers()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT) == 0

    def workers(self) -> int:
        return sum(len(dial.observe(found.socket).workers) for found in target.alive())

    def train(self, arguments: list[str], env: dict[str, str]) -> None:
        """Starts it after the last has ended, or beside that if its line has an ampersand."""
        backend = env.get("KERAS_BACKEND")
        if backend and importlib.util.find_spec(backend) is None:
            return
        if not self.goes_on:
            self.await_programs()
        self.goes_on = arguments[-1:] == ["&"]
        if not (self.folder / "train.py").exists():
            (self.folder / "train.py").write_text(THE_READERS_PROGRAM)
        self.unread.discard("train.py")
        words = [sys.executable, "train.py", *(word for word in arguments if word != "&")]
        self.programs.append(
            subprocess.Popen(words, env=os.environ | env, stdout=subprocess.DEVNULL, text=True)
        )

    def await_programs(self) -> None:
        while self.programs:
            program = self.programs[-1]
            assert program.wait(TIMEOUT) == 0
            self.programs.pop()

    def shell(self, line: str) -> None:
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=TIMEOUT)
        assert done.returncode == 0, f"{self.page}: {line}\n{done.stdout}{done.stderr}"


class ReaderWithoutKeras(Reader):
    """Runs all Python of a page in one process, in which no Keras may be."""

    def __init__(self, folder: Path, page: Path) -> None:
        super().__init__(folder, page)
        self.lines: list[str] = []

    def python(self, block: Block) -> None:
        self.lines.append(block.text)

    def finish(self) -> None:
        program = [*self.lines, "import sys", "assert 'keras' not in sys.modules"]
        self.shell(shlex.join([sys.executable, "-c", "\n".join(program)]))
        super().finish()


def stop_all() -> None:
    for found in target.alive():
        subprocess.run(["loaderd", "stop", "--name", found.name], check=True, capture_output=True)


def a_model() -> Any:
    """The reader's own; small, for images of 150 by 150 in three classes."""
    model = keras.Sequential(
        [
            keras.layers.Input((150, 150, 3)),
            keras.layers.Conv2D(4, 3, strides=8, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy")
    return model


# ---- commands that are looked up and not run ---------------------------------------------


def look_up_script(words: list[str]) -> None:
    script = ROOT / words[0]
    assert os.access(script, os.X_OK), f"{script} cannot be run"
    text = script.read_text()
    if words[0] == "scripts/bench":
        assert (ROOT / "scripts/benchmarks" / f"{words[1]}.py").exists()
        words = words[:1] + words[2:]
    for word in words[1:]:
        assert word.startswith("-") and word in text, f"{script} knows no {word}"


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def look_up_extras(words: list[str]) -> None:
    if words[1] == "uninstall":
        assert " ".join(words).partition(" && ")[0] in pillow.REBUILD
        return
    assert words[1] == "install"
    for extras in re.findall(r"(?:loaderd|\.)\[([\w,]+)\]", " ".join(words)):
        for extra in extras.split(","):
            assert extra in setup_cfg()["options.extras_require"], f"there is no extra {extra}"


def look_up_activate(words: list[str]) -> None:
    assert words == ["source", ".venv/bin/activate"]
    assert "-m venv .venv" in (ROOT / "scripts/setup").read_text()


def look_up_setup(words: list[str]) -> None:
    assert words[1] == "setup.py" and (ROOT / "setup.py").exists()
    shown = subprocess.run([sys.executable, *words[1:], "--help"], cwd=ROOT, capture_output=True)
    assert shown.returncode == 0, shown.stderr


def look_up_venv(words: list[str]) -> None:
    assert words[1:3] == ["-m", "venv"] and len(words) == 4


def look_up_docker(words: list[str]) -> None:
    assert words[:3] == ["docker", "run", "--shm-size"]  # what NoRoom advises too


@functools.cache
def help_of_ray_start() -> str:
    return subprocess.run(["ray", "start", "--help"], capture_output=True, text=True).stdout


def look_up_ray(words: list[str]) -> None:
    assert words[1] == "start"
    for word in words[2:]:
        assert word.partition("=")[0] in help_of_ray_start()


LOOKED_UP: dict[str, Callable[[list[str]], None]] = {
    "docker": look_up_docker,
    "ssh": lambda words: None,
    "pip": look_up_extras,
    "python": look_up_setup,
    "python3": look_up_venv,
    "scripts/bench": look_up_script,
    "scripts/demo": look_up_script,
    "scripts/docs": look_up_script,
    "scripts/setup": look_up_script,
    "scripts/test": look_up_script,
    "ray": look_up_ray,
    "source": look_up_activate,
}


# ---- the pages work ----------------------------------------------------------------------


WITHOUT_KERAS = {"train-with-pytorch.md": ("torch", "torchdata"), "train-with-jax.md": ("jax",)}
"""Pages whose Python needs packages, which are not among those of development, and no Keras."""


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=name_of)
def test_a_page_works_as_it_is_written(
    page: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = WITHOUT_KERAS.get(page.name, ())
    lacking = [name for name in needed if importlib.util.find_spec(name) is None]
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    if "make-photos data/train" not in page.read_text():
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "train").symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(BIN), prepend=os.pathsep)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in re.findall(r'environ\["(\w+)"\]', page.read_text()):
        monkeypatch.setenv(name, "")  # which puts it back in the end
    reader = (ReaderWithoutKeras if needed else Reader)(tmp_path, page)
    try:
        for block in blocks_of(page):
            reader.follow(block)
        reader.finish()
    finally:
        reader.end()


def shape_of(screen: str) -> list[str]:
    """A screen down to the workers' line, without its figures and names."""
    lines = screen[: screen.index("idle")].splitlines()
    return [shape_of_line(line) for line in lines]


def shape_of_line(line: str) -> str:
    for pattern, sign in (
        (r"[█░]+", "="),
        (r"\d+ (d|h|min|s)\b( \d+ (h|min|s)\b)?", "TIME"),
        (r"[\d.]+ ([KMGT]i)?B\b", "SIZE"),
        (r"[/…]\S+", "PATH"),
        (r"CPUs?", "CPU"),
        (r"\d[\d.]*", "0"),
        (r" +", " "),
    ):
        line = re.sub(pattern, sign, line)
    return line.strip()


def words_of(text: str) -> str:
    return re.sub(r"\d[\d.]*", "0", " ".join(text.split()))


def has_cache(screen: str) -> bool:
    return "\ncache " in screen


def waiting(percent: float) -> Snapshot:
    """A trainer that waits, for decoding."""
    return msgspec.structs.replace(snapshot(stream(waited_s=percent)), workers_wanted=16)


@pytest.mark.parametrize(("cache", "least"), [("none", 3), ("disk", 1)])
def test_screens_look_like_the_real_one(
    serve: Serve, photos: Path, tmp_path: Path, cache: Cache, least: int
) -> None:
    screens = [block for block in all_blocks() if is_screen(block.text)]
    screens = [block for block in screens if has_cache(block.text) == (cache != "none")]
    assert len(screens) >= least
    spec = msgspec.structs.replace(a_spec(photos), cache=cache)
    with serve(2, f"--cache-dir={tmp_path}") as daemon, Session(daemon.path) as session:
        stream = session.open(spec, slots=4)
        for position in range(stream.batches):
            stream.take((0, position))
        eventually(lambda: daemon.snapshot().streams[0].batches == stream.batches)
        real = subprocess.run(
            [BIN / "loaderd-stat"],
            env=os.environ | {"COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    possible = [words_of(derive(waiting(share)).verdict.text) for share in (1.0, 10.0, 50.0)]
    for block in screens:
        assert shape_of(block.text) == shape_of(real), block.where
        assert words_of(block.text[block.text.index("Your program") :]) in possible, block.where


def test_listings_look_like_the_real_one(serve: Serve, photos: Path, tmp_path: Path) -> None:
    listings = [block for block in all_blocks() if is_listing(block.text)]
    assert listings
    where = f"--cache-dir={tmp_path}"
    spec = msgspec.structs.replace(a_spec(photos), cache="disk")
    with serve(2, where) as daemon, Session(daemon.path) as session:
        session.open(spec, slots=4).take((0, 0))
    real = subprocess.run(
        [BIN / "loaderd", "cache", "ls", where], capture_output=True, text=True, check=True
    ).stdout
    for block in listings:
        assert shape_of_listing(block.text) == shape_of_listing(real), block.where


def shape_of_listing(text: str) -> list[str]:
    lines = [re.sub("^[0-9a-f]{12} ", "KEY ", line) for line in text.splitlines()]
    return [shape_of_line(line) for line in lines]


def test_rows_look_like_the_real_ones() -> None:
    blocks = [block.text.splitlines() for block in all_blocks() if are_rows(block.text)]
    assert blocks
    for header, *lines in blocks:
        assert header == rows.HEADER
        assert {len(line) for line in lines} == {len(header)}
        assert {len(line.split()) for line in lines} == {len(header.split())}


# ---- links and names lead somewhere ------------------------------------------------------


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def links_of(page: Path) -> Iterator[tuple[Path, str]]:
    """The pages that a page links to, and the headings in them."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            yield (page.parent / file).resolve() if file else page, anchor


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for there, anchor in links_of(page):
        assert there.exists(), f"{there} is not there"
        assert not anchor or anchor in anchors_of(there), f"{there} has no heading {anchor}"


def test_every_page_can_be_found_from_the_map() -> None:
    index = ROOT / "docs/index.md"
    found = {index} | {there for there, _ in links_of(index)}
    found |= {there for there, _ in links_of(ROOT / "docs/explanation/decisions/README.md")}
    assert set(PAGES) - {ROOT / "CHANGELOG.md"} <= found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    paths = re.findall(
        r"`((?:loaderd|client|tests|scripts)/[\w/.-]+)(?:::(\w+))?`", page.read_text()
    )
    for path, test in paths:
        assert (ROOT / path).exists(), f"{path} is not there"
        assert not test or f"def {test}(" in (ROOT / path).read_text(), f"{path} has no {test}"


def test_the_table_of_the_benchmark_can_be_found() -> None:
    text = README.read_text()
    assert text.count("<!-- bench:ring -->") == text.count("<!-- /bench -->") == 1


# ---- nothing is missing, and nothing is there that is not so ------------------------------


def spans_of(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def section_of(page: Path, heading: str) -> str:
    """The text from a heading to the next of any level."""
    text = page.read_text()
    start = re.search(rf"^#+ {re.escape(heading)}$", text, re.MULTILINE)
    assert start, f"{page} has no heading {heading!r}"
    return re.split(r"^#+ ", text[start.end() :], maxsplit=1, flags=re.MULTILINE)[0]


Table = list[list[str]]


def tables_of(text: str) -> list[Table]:
    """The tables in a text, each without its header."""
    found = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
    return [[cells_of(line) for line in one.splitlines()[2:]] for one in found]


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")]


def table_of(text: str) -> Table:
    """The rows of all tables in a text."""
    return [row for table in tables_of(text) for row in table]


def names_in(cells: Iterable[str]) -> set[str]:
    """What is named there, methods without their brackets."""
    return set(re.findall(r"`(\w+)(?:\([^`]*\))?`", " ".join(cells)))


def flags_of(show: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> set[str]:
    with pytest.raises(SystemExit):
        show()
    options = capsys.readouterr().out.partition("options:")[2].partition("examples:")[0]
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", options))


def documented_flags(page: Path) -> set[str]:
    spans = " ".join(spans_of(page.read_text()))
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", spans))


def test_flags_of_loaderd(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = [row[0].strip("`") for row in table_of(section_of(LOADERD, "Verbs"))]
    verbs = verbs[: len(command._VERBS)]
    assert verbs == [verb.__name__.rpartition(".")[2] for verb in command._VERBS]
    flags = flags_of(lambda: command.run(["--help"]), capsys)
    for verb in verbs:
        flags |= flags_of(lambda verb=verb: command.run([verb, "--help"]), capsys)  # type: ignore[misc]
        assert section_of(LOADERD, f"`{verb}`")
    actions = [row[0].strip("`") for row in tables_of(section_of(LOADERD, "`cache`"))[0]]
    assert actions == ["ls", "rm", "verify"]
    for action in actions:
        flags |= flags_of(lambda action=action: command.run(["cache", action, "--help"]), capsys)  # type: ignore[misc]
    assert documented_flags(LOADERD) == flags | {"-m"}  # python -m


def test_flags_of_loaderd_stat(capsys: pytest.CaptureFixture[str]) -> None:
    flags = flags_of(lambda: stat.main(["--help"]), capsys)
    assert documented_flags(STAT) == flags
    assert flags_of(lambda: command.run(["stat", "--help"]), capsys) == flags


def test_variables_and_keys() -> None:
    named = {name for page in PAGES for name in re.findall(r"\bLOADERD_[A-Z_]+", page.read_text())}
    assert named == {*config.VARIABLES.values(), deadline.VARIABLE, page_token.TOKEN_VARIABLE}
    assert named <= spans_of(LOADERD.read_text())
    assert set(config.FILE_KEYS) <= spans_of(LOADERD.read_text())


def test_every_exception_is_in_the_tree_and_in_the_table() -> None:
    classes = {
        name: one
        for name, one in vars(errors).items()
        if isinstance(one, type) and issubclass(one, errors.LoaderdError)
    }
    text = ERRORS.read_text()
    assert [row[0].strip("`") for row in table_of(text)] == list(classes)
    (tree,) = (block.text for block in blocks_of(ERRORS))
    for name, builtin in re.findall(r"^\W*(\w+)(?: \((\w+)\))?$", tree, re.MULTILINE):
        bases = {base.__name__ for base in classes.pop(name).__bases__} - {"Exception"}
        assert {base for base in bases if hasattr(builtins, base)} == {builtin} - {""}
    assert not classes


def test_every_name_of_the_client_is_there() -> None:
    names = names_in(row[0] for row in table_of(first_table(CLIENT)))
    assert names == set(loaderd_client.__all__)
    section = section_of(CLIENT, "`loaderd_client.image`")
    assert names_in(row[0] for row in table_of(section)) == set(image.__all__)


def first_table(page: Path) -> str:
    return page.read_text().partition("\n## ")[0]


def described(documented: Any, section: str) -> list[str]:
    """What a section of a docstring describes, in its order."""
    text = inspect.getdoc(documented) or ""
    found = re.search(rf"^{section}:\n((?:(?: {{4}}.*)?\n?)*)", text, re.MULTILINE)
    return re.findall(r"^ {4}(\**\w+): ", found[1], re.MULTILINE) if found else []


PUBLIC: list[Callable[..., Any]] = [
    ImageDataGenerator,
    ImageDataGenerator.flow,
    ImageDataGenerator.flow_from_directory,
    ImageDataGenerator.flow_from_dataframe,
    ImageDataGenerator.fit,
    ImageDataGenerator.standardize,
    ImageDataGenerator.get_random_transform,
    ImageDataGenerator.apply_transform,
    ImageDataGenerator.random_transform,
    image_dataset_from_directory,
    loaderd_client.image_dataset_from_archive,
    loaderd_client.image_dataset_from_arrays,
    loaderd_client.image_dataset_from_coco,
    loaderd_client.image_dataset_from_dataframe,
    loaderd_client.image_dataset_from_huggingface,
    loaderd_client.image_dataset_from_parquet,
    loaderd_client.segmentation_dataset_from_archive,
    loaderd_client.segmentation_dataset_from_directory,
    DatasetOptions,
    LoaderSequence,
    LoaderSequence.fetch,
    Session,
    Session.open,
    loaderd_client.connect,
    *(
        getattr(image, name)
        for name in sorted(image.__all__)
        if name.startswith(("apply", "random"))
    ),
    *(getattr(augment, name) for name in augment.__all__),
]


@pytest.mark.parametrize("function", PUBLIC, ids=lambda function: function.__qualname__)
def test_every_argument_is_described_in_the_docstring(function: Callable[..., Any]) -> None:
    """Which the reference is generated from; it shows the defaults of the signature."""
    stars: dict[Any, str] = {
        inspect.Parameter.VAR_KEYWORD: "**",
        inspect.Parameter.VAR_POSITIONAL: "*",
    }
    parameters = inspect.signature(function).parameters.values()
    real = [stars.get(it.kind, "") + it.name for it in parameters if it.name != "self"]
    assert described(function, "Args") == real


def test_every_operation_is_in_its_reference_and_in_the_table_of_names() -> None:
    text = AUGMENT.read_text()
    assert sorted(re.findall(r"^### `(\w+)`$", text, re.M)) == sorted(augment.__all__)
    assert re.findall(r"^### `(\w+)`$", text, re.M) == re.findall("<!-- operation: (.*) -->", text)
    rows = table_of(section_of(TRANSFORMS, "Names"))
    assert {4} == {len(row) for row in rows}
    assert all(row[0] or row[1] for row in rows)
    assert names_in(row[2] for row in rows) == {*augment.__all__}


def test_every_call_of_an_operation_in_a_table_is_one() -> None:
    calls = {call for page in PAGES for call in re.findall(r"`(A\.[^`…]+\))`", page.read_text())}
    assert len(calls) > 15
    values = {"mean": 100.0, "variance": 50.0}
    for call in calls:
        eval(f"[{call}]", {"A": augment} | values)


def test_every_layer_of_keras_for_images_is_in_the_guide() -> None:
    layers = vars(keras.layers).values()
    kinds = {one for one in layers if isinstance(one, type) and issubclass(one, BaseLayer)}
    kinds |= {keras.layers.Rescaling, keras.layers.Normalization, keras.layers.GaussianNoise}
    taken, refused = (
        names_in(row[0] for row in table_of(section_of(LAYERS, heading)))
        for heading in ("Layers that are read", "What is refused, and what to write instead")
    )
    names = {one.__name__ for one in kinds}
    assert taken | (refused & names) == names
    for name in taken:
        assert hasattr(augment, {"Resizing": "Resize"}.get(name, name))


@pytest.mark.parametrize(
    ("function", "iterator"),
    [
        (ImageDataGenerator.flow, image.NumpyArrayIterator),
        (ImageDataGenerator.flow_from_directory, image.DirectoryIterator),
        (ImageDataGenerator.flow_from_dataframe, image.DataFrameIterator),
    ],
)
def test_flows_have_the_options_of_their_iterators(
    function: Callable[..., Any], iterator: Any
) -> None:
    options = inspect.signature(iterator).parameters.values()
    own = {it.name: it.default for it in options if it.kind == it.KEYWORD_ONLY}
    real = {it.name: it.default for it in inspect.signature(function).parameters.values()}
    assert own
    assert own.items() <= real.items()


class Kinds(NamedTuple):
    """One iterator of each kind, over the same photos."""

    directory: Any
    dataframe: Any
    arrays: Any

    @classmethod
    def of(cls, module: Any, photos: Path) -> Kinds:
        generator = module.ImageDataGenerator()
        directory = generator.flow_from_directory(str(photos), target_size=(20, 20))
        frame = pandas.DataFrame({"filename": directory.filenames, "class": "a"})
        return cls(
            directory,
            generator.flow_from_dataframe(frame, str(photos), target_size=(20, 20)),
            generator.flow(np.zeros((4, 5, 5, 3)), np.zeros(4)),
        )

    def some(self, which: str) -> list[Any]:
        return {"all": [*self], "files": [*self[:2]]}.get(which) or [getattr(self, which)]


def public(names: Iterable[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


OF_KERAS = public(dir(keras.utils.PyDataset))


def attributes_of_a_sequence() -> set[str]:
    """What the reference has of a sequence: attributes, and members with a docstring."""
    members = [*LoaderSequence.__mro__]
    ours = members[: members.index(keras.utils.PyDataset)]
    kinds = (property, functools.cached_property, types.FunctionType)
    documented = {
        name
        for one in ours
        for name, it in vars(one).items()
        if isinstance(it, kinds) and it.__doc__
    }
    return public({*described(Samples, "Attributes"), *documented})


def test_attributes_of_a_sequence(serve: Serve, photos: Path) -> None:
    named = attributes_of_a_sequence()
    with serve() as daemon, Session(daemon.path):
        train = image_dataset_from_directory(photos, image_size=(20, 20), seed=1)
        for name in named:
            getattr(train, name)
        real = public({*vars(train), *vars(LoaderSequence)})
    assert real - {"workers", "use_multiprocessing"} <= named  # these have a text of their own


def test_attributes_of_iterators(serve: Serve, photos: Path) -> None:
    attributes, methods = tables_of(section_of(CLIENT, "Iterators"))
    named = names_in(row[0] for row in [*attributes, *methods])
    inherited = attributes_of_a_sequence()
    with serve() as daemon, Session(daemon.path):
        ours = Kinds.of(image, photos)
        for names, which, _ in attributes:
            for one in ours.some(which):
                for name in names_in([names]):
                    getattr(one, name)
        for one in ours:
            assert public(dir(one)) <= named | inherited | OF_KERAS


# ---- the migration guide leaves nothing out ----------------------------------------------

FLOWS = {
    "flow": keras_image.ImageDataGenerator.flow,
    "directory": keras_image.ImageDataGenerator.flow_from_directory,
    "dataframe": keras_image.ImageDataGenerator.flow_from_dataframe,
}
WHICH = {"all": {*FLOWS}, "files": {"directory", "dataframe"}}
OURS = {"workers", "use_multiprocessing", "max_queue_size"}
"""Given to the flows of old Keras, and to ours."""


def test_the_one_line_works() -> None:
    for was, now in tables_of(section_of(MIGRATION, "The one line"))[0]:
        assert now == re.sub(r"(tensorflow\.)?keras\.preprocessing", "loaderd_client", was)
        exec(now.strip("`"), {})


def test_every_row_has_a_verdict() -> None:
    text = MIGRATION.read_text()
    tables = tables_of(text[text.index("## What is the same") : text.index("## What is different")])
    verdicts = {"same", "note", "better"}
    for row in [row for table in tables for row in table]:
        assert row[-2] in verdicts
        assert row[-1] or row[-2] == "same", f"{row} says nothing"


def test_every_argument_of_keras_is_in_the_guide() -> None:
    documented = names_in(row[0] for row in table_of(section_of(MIGRATION, "Constructor")))
    real = inspect.signature(keras_image.ImageDataGenerator).parameters
    assert documented == {*real, "compat", "precision"}
    of_flows: dict[str, set[str]] = {flow: set() for flow in FLOWS}
    for names, of, *_ in table_of(section_of(MIGRATION, "Flows")):
        for flow in WHICH.get(of, {of}):
            of_flows[flow] |= names_in([names])
    old = {"dataframe": {"has_ext", "sort", "drop_duplicates", "keep_aspect_ratio"}}
    for flow, function in FLOWS.items():
        real = inspect.signature(function).parameters
        wanted = {*real, *OURS, *old.get(flow, ())} - {"self", "kwargs"}
        assert of_flows[flow] == wanted


def test_every_method_of_keras_is_in_the_guide(photos: Path) -> None:
    generator, iterator = tables_of(section_of(MIGRATION, "Methods"))
    assert names_in(row[0] for row in generator) == public(vars(keras_image.ImageDataGenerator))
    named = names_in(row[0] for row in iterator)
    for one in Kinds.of(keras_source, photos):
        methods = {name for name in public(dir(one)) - OF_KERAS if callable(getattr(one, name))}
        assert methods - {"get_classes"} <= named  # which only Keras itself calls
    assert named <= {*dir(image.DirectoryIterator)}


def test_every_attribute_of_keras_is_in_the_guide(photos: Path, serve: Serve) -> None:
    iterator, generator = tables_of(section_of(MIGRATION, "Attributes"))
    named = names_in(row[0] for row in iterator)
    theirs = Kinds.of(keras_source, photos)
    real = {name for one in theirs for name in public(vars(one)) | public(vars(type(one)))}
    real |= {"num_batches", *OURS, "white_list_formats"}
    assert {name for name in real if not is_method(theirs, name)} <= named
    with serve() as daemon, Session(daemon.path):
        ours = Kinds.of(image, photos)
        for name in named - {"index_generator"}:
            for one, other in zip(ours, theirs, strict=True):
                assert hasattr(one, name) or not hasattr(other, name), name
    arguments = {*inspect.signature(keras_image.ImageDataGenerator).parameters}
    attributes = public(vars(keras_image.ImageDataGenerator()))
    assert names_in(row[0] for row in generator) == attributes - arguments


def is_method(kinds: Kinds, name: str) -> bool:
    return any(callable(getattr(one, name, None)) for one in kinds)


def test_every_function_of_keras_is_in_the_guide() -> None:
    section = section_of(MIGRATION, "Functions")
    functions = names_in(row[0] for row in table_of(section))
    classes = names_in(section.rpartition("|")[2].splitlines())
    assert functions | classes == set(image.__all__)
    assert public(dir(keras_image)) <= functions | classes
    assert all(isinstance(getattr(image, name), type) for name in classes)


# ---- what else can be counted ------------------------------------------------------------


def test_fields_of_the_json(serve: Serve, photos: Path) -> None:
    with serve() as daemon, Session(daemon.path) as session:
        stream = session.open(a_spec(photos), slots=4)
        words = [str(BIN / "loaderd-stat"), "--json"]
        assert stream.slots == 4  # it lives as long as we hold it
        seen = json.loads(subprocess.run(words, capture_output=True, check=True).stdout)
    keys = set(seen)
    for part in seen.values():
        for one in part if isinstance(part, list) else [part]:
            keys |= set(one) if isinstance(one, dict) else set()
    # All storage answers here, and there is no other machine.
    keys |= {*StorageStats.__struct_fields__, *RemoteStats.__struct_fields__}
    keys |= {*RemoteRates.__struct_fields__}
    section = STAT.read_text().partition("\n## JSON\n")[2]
    named = set(re.findall(r"`([a-z_0-9]+)(?:\[\])?`", section))
    assert named == keys


def test_dependencies() -> None:
    options = setup_cfg()
    lists = [options["options"]["install_requires"], *options["options.extras_require"].values()]
    packages = {re.split(r"[\s;<>=\[]", line)[0] for one in lists for line in one.split("\n")}
    told = (ROOT / "docs/explanation/dependencies.md").read_text()
    for package in packages - {""}:
        assert re.search(rf"(?<![\w-]){package}(?![\w-])", told), f"what is {package} for?"
    for extra in options["options.extras_require"]:
        assert f"`loaderd[{extra}]`" in README.read_text()
