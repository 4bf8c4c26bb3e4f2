"""What a program changes in its preprocessing_function counts from the next epoch on.

In Keras the function runs in the trainer and sees every change at once. Here it runs elsewhere,
with what was sent; the batches of the next epoch are made with what is there then.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loaderd.ipc.user_code import Code
from loaderd_client import ImageDataGenerator, Session
from loaderd_client.core.guard import Caller
from loaderd_client.keras import functions
from tests.support.daemons import running

IMAGES = np.zeros((4, 2, 2, 3), np.float32)

Function = Callable[[Any], Any]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One daemon for all of these tests; it tells of each stream's code by itself."""
    folder = str(tmp_path_factory.mktemp("d"))
    path = os.path.join(folder, "s")

    def words(tell: int) -> list[str]:
        return ["loaderd", "serve", "--workers=2", f"--socket={path}", f"--ready-fd={tell}"]

    with running(words, folder):
        yield path


@pytest.fixture(autouse=True)
def session(address: str) -> Iterator[None]:
    with Session(address), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def flow_of(function: Any) -> Any:
    """A flow whose epochs have one batch each."""
    return ImageDataGenerator(preprocessing_function=function).flow(IMAGES, batch_size=4)


def follows(function: Any, *steps: tuple[Callable[[], object], float]) -> None:
    """Each change counts with the next epoch, and nothing else does.

    Args:
        function: adds a number to an image of zeros.
        steps: a change, and the number that is expected after it.
    """
    flow = flow_of(function)
    try:
        for change, expected in steps:
            change()
            assert function(IMAGES[0].copy()).max() == expected, "the test itself"
            stream = None
            for _ in range(2):
                assert next(flow).max() == expected
                assert stream in (None, flow._supply._stream), "nothing has changed"
                stream = flow._supply._stream
    finally:
        flow.close()


def nothing() -> None:
    """The first step."""


# -- functions that travel by value ----------------------------------------------------

LEVEL = 1


class Strength:
    """An augmentation with a strength."""

    def __init__(self, level: float = 1) -> None:
        self.level = level

    def __call__(self, x: Any) -> Any:
        return x + self.level

    def method(self, x: Any) -> Any:
        return x + self.level


class Slotted:
    """One without a ``__dict__``."""

    __slots__ = ("level",)

    def __init__(self) -> None:
        self.level = 1

    def __call__(self, x: Any) -> Any:
        return x + self.level


class Nested:
    """One that holds others in containers."""

    def __init__(self) -> None:
        self.steps = {"first": [Strength()]}

    def __call__(self, x: Any) -> Any:
        for step in self.steps["first"]:
            x = step(x)
        return x


@pytest.mark.parametrize("make", [Strength, Slotted])
def test_attributes_of_objects(make: Any) -> None:
    function = make()
    follows(function, (nothing, 1), (lambda: setattr(function, "level", 20), 20))


def test_objects_within_objects() -> None:
    function = Nested()
    inner = function.steps["first"]
    follows(
        function,
        (nothing, 1),
        (lambda: setattr(inner[0], "level", 20), 20),
        (lambda: inner.append(Strength(5)), 25),
    )


def test_objects_whose_method_it_is() -> None:
    strength = Strength()
    follows(strength.method, (nothing, 1), (lambda: setattr(strength, "level", 20), 20))


def test_arguments_of_a_partial() -> None:
    function = functools.partial(np.add, np.float32(1))
    held = functools.partial(lambda x, by: x + by[0], by=[1])
    follows(held, (nothing, 1), (lambda: held.keywords["by"].__setitem__(0, 20), 20))
    follows(function, (nothing, 1))


def test_variables_of_a_closure() -> None:
    level, levels = 1, [1]

    def function(x: Any) -> Any:
        return x + level + levels[0]

    def change() -> None:
        nonlocal level
        level = 20
        levels[0] = 5

    follows(function, (nothing, 2), (change, 25))


def test_globals_of_a_lambda() -> None:
    def change() -> None:
        global LEVEL
        LEVEL = 20

    globals()["LEVEL"] = 1
    follows(lambda x: x + LEVEL, (nothing, 1), (change, 20))


def test_classes_that_travel_by_value() -> None:
    class Local:
        level = 1

        def __call__(self, x: Any) -> Any:
            return x + self.level

    follows(Local(), (nothing, 1), (lambda: setattr(Local, "level", 20), 20))


def test_attributes_and_defaults_of_functions() -> None:
    def function(x: Any, by: list[int] = [1]) -> Any:  # noqa: B006  # that is what is tried
        return x + by[0] + function.level  # type: ignore[attr-defined]

    function.level = 1  # type: ignore[attr-defined]
    follows(
        function,
        (nothing, 2),
        (lambda: setattr(function, "level", 20), 21),
        (lambda: function.__defaults__[0].__setitem__(0, 5), 25),  # type: ignore[index]
    )


def test_large_arrays_that_are_changed_in_place() -> None:
    levels = np.ones(2**22, np.float32)
    levels[7] = np.nan
    follows(lambda x: x + levels[-1], (nothing, 1), (lambda: levels.__setitem__(-1, 20), 20))


def test_an_array_that_the_function_writes_to_is_its_own() -> None:
    scratch = np.zeros(2**20)

    def function(x: Any) -> Any:
        scratch[:] = 7
        return x + scratch[0]

    follows(function, (nothing, 7))


def test_two_flows_of_a_class_do_not_meet() -> None:
    class Local:
        level = 1

        def __call__(self, x: Any) -> Any:
            return x + self.level

    first = flow_of(Local())
    assert next(first).max() == 1
    stream = first._supply._stream
    Local.level = 20
    second = flow_of(Local())
    assert next(second).max() == 20
    late = (first._places.epoch + 50, 0)  # it was not made ahead
    assert first._supply.fetch(late, Caller()).images.max() == 1
    assert first._supply._stream is stream
    first.close()
    second.close()


def test_drawing_from_its_generators_is_no_change() -> None:
    rng = np.random.default_rng(3)
    flow = flow_of(lambda x: x + rng.random())
    next(flow)
    stream = flow._supply._stream
    rng.random()
    next(flow)
    assert flow._supply._stream is stream
    flow.close()


def test_a_method_of_a_subclass_of_the_generator() -> None:
    class Mine(ImageDataGenerator):
        level = 1

        def __init__(self) -> None:
            super().__init__(preprocessing_function=self.brighten)

        def brighten(self, x: Any) -> Any:
            return x + self.level

    generator = Mine()
    flow = generator.flow(IMAGES, batch_size=4)
    assert next(flow).max() == 1
    generator.level = 20
    assert next(flow).max() == 20
    flow.close()


def test_a_cell_of_a_notebook_that_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    cell = "def helper(x):\n    return x + {}\ndef function(x):\n    return helper(x)\n"
    exec(cell.format(1), vars(main))
    function = vars(main)["function"]
    again = "def helper(x):\n    return x + 20\n"
    try:
        follows(function, (nothing, 1), (lambda: exec(again, vars(main)), 20))
    finally:
        del main.helper, main.function


def test_a_cached_function_of_the_script() -> None:
    main = sys.modules["__main__"]
    exec(
        "import functools\n@functools.lru_cache(maxsize=5)\ndef level():\n    return 7\n"
        "def function(x):\n    return x + level()\n",
        vars(main),
    )
    try:
        follows(vars(main)["function"], (nothing, 7))
    finally:
        del main.level, main.function


# -- functions that travel by the name of their module ---------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Writes modules of a program's own, and imports the last."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def write(**sources: str) -> Any:
        for name, text in sources.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield write
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_globals_of_its_module(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import threading
        import numpy as np
        LOCK = threading.Lock()
        LEVEL = 1
        LEVELS = {"a": [1]}
        TABLE = np.ones(3)
        def add(x):
            with LOCK:
                return x + LEVEL + LEVELS["a"][0] + TABLE[0]
        """
    )
    follows(
        mine.add,
        (nothing, 3),
        (lambda: setattr(mine, "LEVEL", 20), 22),
        (lambda: mine.LEVELS["a"].__setitem__(0, 5), 26),
        (lambda: mine.TABLE.__setitem__(0, 3), 28),
    )


def test_what_was_assigned_before_it_was_first_sent(module: Callable[..., Any]) -> None:
    mine = module(config="LEVEL = 1\n", mine="import config\ndef add(x): return x + config.LEVEL\n")
    mine.config.LEVEL = 20
    follows(mine.add, (nothing, 20))


@pytest.mark.parametrize(
    "source",
    [
        "import config\ndef add(x): return x + config.LEVEL",
        "import config as c\ndef add(x): return x + c.LEVEL",
        "def add(x):\n    import config\n    return x + config.LEVEL",
        "def add(x):\n    from config import LEVEL\n    return x + LEVEL",
        "import config\ndef add(x): return x + getattr(config, 'LEVEL')",
        "import config\ndef add(x): return (lambda: x + config.LEVEL)()",
        "import config\nadd = lambda x: x + config.LEVEL",
        "from config import level\ndef add(x): return x + level()",
        "from config import Levels\ndef add(x): return x + Levels().level()",
        "from config import Levels\ndef add(x): return x + Levels.level_of_class()",
        "from config import Levels\ndef add(x): return x + Levels().prop",
        "import config\n"
        "class Add:\n    def __call__(self, x): return x + config.LEVEL\n"
        "add = Add()",
        "import functools, config\n"
        "def twice(f):\n    @functools.wraps(f)\n    def both(x): return f(x)\n    return both\n"
        "@twice\ndef add(x): return x + config.LEVEL",
    ],
)
def test_attributes_of_other_modules(source: str, module: Callable[..., Any]) -> None:
    mine = module(
        config="""
        LEVEL = 1
        def level(): return LEVEL
        class Levels:
            def level(self): return LEVEL
            @staticmethod
            def level_of_class(): return LEVEL
            @property
            def prop(self): return LEVEL
        """,
        mine=source,
    )
    config = importlib.import_module("config")
    follows(mine.add, (nothing, 1), (lambda: setattr(config, "LEVEL", 20), 20))


def test_modules_of_packages(module: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "sizes.py").write_text("LEVEL = 1\n")
    mine = module(mine="import pack.sizes\ndef add(x): return x + pack.sizes.LEVEL\n")
    follows(mine.add, (nothing, 1), (lambda: setattr(mine.pack.sizes, "LEVEL", 20), 20))


def test_attributes_of_classes_functions_and_objects(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import threading
        class Config:
            level = 1
            def __init__(self):
                self.own = 1
                self.lock = threading.Lock()
                self.names = {"lock": self.lock, "more": 0}
        cfg = Config()
        def add(x):
            return x + Config.level + cfg.own + add.level + cfg.names["more"]
        add.level = 1
        """
    )
    follows(
        mine.add,
        (nothing, 3),
        (lambda: setattr(mine.Config, "level", 20), 22),
        (lambda: setattr(mine.cfg, "own", 5), 26),
        (lambda: setattr(mine.add, "level", 3), 28),
        (lambda: mine.cfg.names.__setitem__("more", 2), 30),
    )


def test_variables_of_closures_of_its_module(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import functools
        def counted(f):
            level = 1
            @functools.wraps(f)
            def inner(x):
                return f(x) + level
            def change(value):
                nonlocal level
                level = value
            inner.change = change
            return inner
        @counted
        def add(x):
            return x
        """
    )
    follows(mine.add, (nothing, 1), (lambda: mine.add.change(20), 20))


def test_names_that_are_bound_to_other_code(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import math
        def one(x): return x + 1
        def twenty(x): return x + 20
        step = one
        steps = [one]
        half = math.floor
        def add(x):
            for each in steps:
                x = each(x)
            return step(x) + half(0.5)
        """
    )
    follows(
        mine.add,
        (nothing, 2),
        (lambda: setattr(mine, "step", mine.twenty), 21),
        (lambda: mine.steps.append(mine.twenty), 41),
        (lambda: setattr(mine, "half", np.ceil), 42),
        (lambda: setattr(mine, "step", lambda x: x + 100), 122),
    )


def test_what_is_not_changed_is_what_its_import_made(module: Callable[..., Any]) -> None:
    """Singletons keep their identity, and containers that several names share stay one."""
    mine = module(
        shared="""
        MISSING = object()
        SETTINGS = {"level": 1}
        """,
        mine="""
        from shared import MISSING, SETTINGS
        import shared
        def add(x, by=MISSING, settings=SETTINGS):
            assert by is MISSING and by is shared.MISSING
            assert settings is SETTINGS and settings is shared.SETTINGS
            return x + settings["level"]
        """,
    )
    follows(mine.add, (nothing, 1), (lambda: mine.SETTINGS.__setitem__("level", 20), 20))


def test_what_it_assigns_itself_is_the_workers_own(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import threading
        lock = None
        def add(x):
            global lock
            lock = lock or threading.Lock()
            return x + 1
        """
    )
    follows(mine.add, (nothing, 1), (lambda: mine.add(IMAGES[0]), 1))


def test_what_cannot_be_sent_is_told_when_it_is_assigned_anew(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import cv2
        CLAHE = cv2.createCLAHE(2.0)
        def add(x):
            CLAHE.getClipLimit()
            return x
        """
    )
    flow = flow_of(mine.add)
    next(flow)
    mine.CLAHE = mine.cv2.createCLAHE(4.0)
    with pytest.warns(UserWarning, match=r"preprocessing_function add uses mine\.CLAHE, which is "):
        next(flow)
    next(flow)
    flow.close()


def test_what_is_too_large_to_be_sent_is_told(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import numpy as np
        TABLE = np.zeros(2**24 + 1)
        class Held:
            def __init__(self):
                self.level, self.words = 1, [bytes(2**23)]
        held = Held()
        def add(x):
            return x + TABLE[0] + held.level
        """
    )
    with (
        pytest.warns(UserWarning, match=r"uses mine\.held\.words, which is .* more than 8 MB"),
        pytest.warns(UserWarning, match=r"uses mine\.TABLE, which is .* more than 64 MB"),
    ):
        packed = functions.pack(mine.add, "float32")
    assert [held.steps for held in Code.of(packed.parts).state] == [("held", "level")]


def test_a_function_that_is_too_large_to_be_watched_is_told() -> None:
    held: list[Any] = [1.0, bytes(2**24 + 1)]

    def add(x: Any) -> Any:
        return x + held[0]

    with pytest.warns(UserWarning, match="preprocessing_function .*add holds more than 16 MB"):
        flow = flow_of(add)
    held[0] = 20.0
    assert next(flow).max() == 1
    stream = flow._supply._stream
    assert next(flow).max() == 1
    assert flow._supply._stream is stream
    flow.close()


def test_a_module_that_is_reloaded(module: Callable[..., Any], tmp_path: Path) -> None:
    mine = module(mine="def add(x): return x + 1\n")

    def edit() -> None:
        (tmp_path / "mine.py").write_text("def add(x): return x + 20  # edited\n")
        importlib.reload(mine)

    flow = flow_of(mine.add)
    assert next(flow).max() == 1
    edit()
    flow.image_data_generator.preprocessing_function = mine.add
    assert next(flow).max() == 20
    flow.close()


def test_modules_that_know_each_other(module: Callable[..., Any]) -> None:
    mine = module(
        one="import two\nLEVEL = 1\n",
        two="import one\nLEVEL = 1\n",
        mine="""
        import one, two
        def add(x):
            for each in (one, two):
                x = x + getattr(each, "LEVEL")
            return x + one.two.one.LEVEL
        """,
    )
    follows(mine.add, (nothing, 3), (lambda: setattr(mine.one, "LEVEL", 20), 41))


# -- where it runs ---------------------------------------------------------------------


def test_relative_paths_begin_where_the_trainer_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("level.npy", np.float32(7))
    follows(lambda x: x + np.load("level.npy"), (nothing, 7))


def test_variables_of_the_environment_are_the_trainers(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: Any) -> Any:
        return x + float(os.environ.get("LEVEL", "1")) + float(os.getenv("OTHER_LEVEL") or 0)

    follows(
        function,
        (nothing, 1),
        (lambda: monkeypatch.setenv("LEVEL", "20"), 20),
        (lambda: monkeypatch.setenv("OTHER_LEVEL", "3"), 23),
        (lambda: monkeypatch.delenv("LEVEL"), 4),
    )


# -- when it is looked at --------------------------------------------------------------


def test_changes_count_from_the_next_epoch_on_however_batches_are_read() -> None:
    strength = Strength()
    flow = ImageDataGenerator(preprocessing_function=strength).flow(IMAGES, batch_size=1)
    for way in (lambda: [next(flow) for _ in range(4)], lambda: [flow[i] for i in range(4)]):
        for level in (3, 4):
            strength.level = level
            assert [batch.max() for batch in way()] == [level] * 4  # type: ignore[no-untyped-call]
    strength.level = 5
    assert [flow[i].max() for i in range(2)] == [5, 5]
    strength.level = 6
    assert flow[2].max() == 5
    flow.on_epoch_end()
    assert flow[3].max() == 6
    strength.level = 7
    flow.reset()
    assert next(flow).max() == 7
    flow.close()


def test_another_function_counts_at_once() -> None:
    generator = ImageDataGenerator(preprocessing_function=Strength(1))
    flow = generator.flow(IMAGES, batch_size=1)
    assert next(flow).max() == 1
    generator.preprocessing_function = Strength(20)
    assert next(flow).max() == 20
    flow.close()


def test_a_callback_raises_the_strength_of_a_fit() -> None:
    import keras

    strength = Strength(0)
    generator = ImageDataGenerator(preprocessing_function=strength)
    flow = generator.flow(IMAGES, np.zeros(4), batch_size=1)
    seen: list[float] = []

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]  # Keras has no types
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            strength.level = 10 * epoch

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(round(logs["level"]))

    def level(labels: Any, outputs: Any) -> Any:
        return keras.ops.mean(outputs) / 3

    layers = [keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(1, kernel_initializer="ones")]
    model = keras.Sequential(layers)
    model.compile(keras.optimizers.SGD(0.0), "mse", metrics=[level])
    model.fit(flow, epochs=3, verbose=0, callbacks=[Watch()])
    flow.close()
    assert seen == [0, 10, 20]


# -- what programs hold, as they hold it -----------------------------------------------


def test_modules_that_a_package_imports_relatively(
    module: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "pack" / "sizes.py").write_text("LEVEL = 1\nMORE = 1\n")
    (tmp_path / "pack" / "code.py").write_text(
        "def add(x):\n    from . import sizes\n    from .sizes import MORE\n"
        "    return x + sizes.LEVEL + MORE\n"
    )
    code, sizes = (importlib.import_module(f"pack.{name}") for name in ("code", "sizes"))
    follows(
        code.add,
        (nothing, 2),
        (lambda: setattr(sizes, "LEVEL", 20), 21),
        (lambda: setattr(sizes, "MORE", 5), 25),
    )


def test_settings_that_are_a_dictionary_with_attributes(module: Callable[..., Any]) -> None:
    """It raises KeyError for whatever Python asks of it, so that pickle refuses the whole."""
    mine = module(
        mine="""
        class Settings(dict):
            __getattr__ = dict.__getitem__
            __setattr__ = dict.__setitem__
        cfg = Settings(level=1, inner=Settings(more=1))
        def add(x):
            return x + cfg.level + cfg.inner.more
        """
    )
    follows(
        mine.add,
        (nothing, 2),
        (lambda: setattr(mine.cfg, "level", 20), 21),
        (lambda: setattr(mine.cfg.inner, "more", 5), 25),
    )


def test_libraries_objects_in_a_module(module: Callable[..., Any]) -> None:
    """As those of augmentation libraries: composed, with generators of their own."""
    mine = module(
        library="""
        import random
        class Compose:
            def __init__(self, steps):
                self.steps = steps
                self.random = random.Random(3)
            def __call__(self, x):
                for step in self.steps:
                    x = step(x, self.random)
                return x
        class Add:
            def __init__(self, by):
                self.by = by
            def __call__(self, x, random):
                return x + self.by + 0 * random.random()
        """,
        mine="""
        from library import Add, Compose
        augment = Compose([Add(1)])
        def add(x):
            return augment(x)
        """,
    )
    follows(
        mine.add,
        (nothing, 1),
        (lambda: setattr(mine.augment.steps[0], "by", 20), 20),
        (lambda: mine.augment.steps.append(mine.Add(5)), 25),
        (lambda: setattr(mine, "augment", mine.Compose([mine.Add(7)])), 7),
        (lambda: mine.augment.random.random(), 7),
    )


def test_cached_functions_of_a_module(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import functools
        LEVEL = 1
        @functools.lru_cache
        def level():
            return LEVEL
        def add(x):
            return x + level()
        """
    )

    def change() -> None:
        mine.LEVEL = 20
        mine.level.cache_clear()

    follows(mine.add, (nothing, 1), (change, 20))


def test_a_dispatcher_that_wraps_the_function(module: Callable[..., Any]) -> None:
    """As compilers make them: an object under the function's name."""
    mine = module(
        compiler="""
        import functools
        class Compiled:
            def __init__(self, function):
                functools.update_wrapper(self, function)
            def __call__(self, *arguments):
                return self.__wrapped__(*arguments)
        """,
        mine="""
        from compiler import Compiled
        LEVEL = 1
        @Compiled
        def add(x):
            return x + LEVEL
        """,
    )
    follows(mine.add, (nothing, 1), (lambda: setattr(mine, "LEVEL", 20), 20))


def test_enumerations_and_data_classes(module: Callable[..., Any]) -> None:
    mine = module(
        mine="""
        import dataclasses, enum
        class Mode(enum.Enum):
            WEAK = 1
            STRONG = 20
        @dataclasses.dataclass(frozen=True, slots=True)
        class Settings:
            mode: Mode = Mode.WEAK
        settings = Settings()
        def add(x):
            assert settings.mode in (Mode.WEAK, Mode.STRONG)
            return x + settings.mode.value
        """
    )
    follows(
        mine.add,
        (nothing, 1),
        (lambda: setattr(mine, "settings", mine.Settings(mine.Mode.STRONG)), 20),
    )


def test_statistics_that_are_changed_in_place() -> None:
    generator = ImageDataGenerator(featurewise_center=True)
    generator.mean = np.full((1, 1, 3), -1.0)
    flow = generator.flow(IMAGES, batch_size=4)
    assert next(flow).max() == 1
    generator.mean -= 19
    assert next(flow).max() == 20
    flow.close()


def test_what_is_pickled_differently_each_time_is_told() -> None:
    class Restless:
        level = 1
        count = 0

        def __reduce__(self) -> Any:
            Restless.count += 1
            return Restless, (), {"seen": str(Restless.count)}

        def __call__(self, x: Any) -> Any:
            return x + self.level

    restless = Restless()
    with pytest.warns(UserWarning, match="is pickled differently each time"):
        flow = flow_of(lambda x: restless(x))
    with pytest.warns(UserWarning, match="is pickled differently each time"):
        assert next(flow).max() == 1
    stream = flow._supply._stream
    with pytest.warns(UserWarning, match="is pickled differently each time"):
        assert next(flow).max() == 1
    assert flow._supply._stream is stream
    flow.close()
