"""Modules that stand in for Keras and TensorFlow until user code needs more than image functions.

User code imports ``keras`` or ``tensorflow`` for a function or two, and importing them takes
seconds and hundreds of megabytes in every worker. So while user code runs, stand-ins replace them
in ``sys.modules``, as long as neither is loaded::

    keras ─ utils ─ array_to_img, …         from keras.utils import array_to_img    as here
          ─ preprocessing.image ─ …         keras.layers, tf.image, import keras.src
          ─ applications.vgg16 ─ preprocess_input       the real ones are imported, for good
    tensorflow ─ keras ─ (the same)

Any other attribute or submodule imports the real module. Code that holds a stand-in keeps it, and
gets the real attributes by it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from loaderd.render.transforms.keras_images import NAMES, KerasImages, keras_original
from loaderd.render.transforms.normalize import Imagenet
from loaderd.spec.operations import Keras

ROOTS = ("keras", "tf_keras", "tensorflow")

_SPELLINGS = re.compile(
    r"^(tensorflow\.keras|keras\._tf_keras\.keras|tf_keras\.api\._v2\.keras|keras\.api|tf_keras"
    r"|keras)(?=\.|$)"
)
"""The names under which ``keras`` is a module: in TensorFlow, and in Keras's versions."""

_READ = ("__all__", "__version__")
"""Names with underscores that programs read; others are read by Python's own tools."""

_Tree = Mapping[str, Any]


@functools.cache
def members(module: str) -> frozenset[str] | None:
    """The functions and submodules of the stand-in of this name; None if there is none.

    Those of ``keras.applications`` are in the settings.
    """
    branch = _branch(_tree(KerasImages(Keras(), keras_original)), module)
    return None if branch is None else frozenset(branch)


def _branch(tree: _Tree, name: str) -> _Tree | None:
    branch: _Tree | None = tree
    for part in _SPELLINGS.sub("keras", name).split("."):
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    return branch if isinstance(branch, Mapping) else None


def _tree(images: KerasImages) -> dict[str, Any]:
    """The contents of the stand-ins: submodules are dictionaries."""
    functions = {name: getattr(images, name) for name in NAMES}
    keras = {
        "utils": {name: functions[name] for name in NAMES if name != "smart_resize"},
        "preprocessing": {"image": functions},
        "applications": {
            name: {"preprocess_input": Imagenet(mode, data_format, images.settings.floatx)}
            for name, mode, data_format in images.settings.preprocess
        },
    }
    return {"keras": keras, "tf_keras": keras, "tensorflow": {"keras": keras}}


class StandIn(ModuleType):
    """A module that loads the real one when an attribute is not among its own.

    Args:
        name: of the real module.
        known: its own attributes and submodules.
        load: returns the real module.
    """

    def __init__(self, name: str, known: _Tree, load: Callable[[], ModuleType]) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, is_package=True)
        self.__path__ = []  # marks a package: find_spec below gives the submodules
        self.__dict__["_load"] = load
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        if name == "__all__":
            real = self._load()
            return getattr(real, name, [one for one in vars(real) if not one.startswith("_")])
        if name.startswith("__") and name not in _READ:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(self._load(), name)


class StandIns:
    """The stand-ins of one stream's code.

    Args:
        settings: of the trainer's Keras; None for no stand-ins.
    """

    def __init__(self, settings: Keras | None) -> None:
        self.images = KerasImages(settings or Keras(), self._original)
        self._wanted = settings is not None and not settings.itself
        self._modules: dict[str, StandIn] = {}
        self._tree = _tree(self.images) if self._wanted else {}
        for root, known in self._tree.items():
            self._install(root, known)
        self._roots: list[str] | None = None

    def _install(self, name: str, known: _Tree) -> StandIn:
        module = self._modules[name] = self._stand_in(name, known)
        return module

    def _stand_in(self, name: str, known: _Tree) -> StandIn:
        members = {
            child: self._install(f"{name}.{child}", one) if isinstance(one, dict) else one
            for child, one in known.items()
        }
        return StandIn(name, members, partial(self._load, name))

    def enter(self) -> None:
        """Adds them to ``sys.modules``, unless one of the real modules is loaded."""
        if not self._wanted or _is_loaded():
            return
        if self._roots is None:  # none for a package that is not installed
            self._roots = [root for root in ROOTS if importlib.util.find_spec(root)]
        for name, module in self._modules.items():
            if name.partition(".")[0] in self._roots:
                sys.modules[name] = module
        sys.meta_path.insert(0, self)

    def leave(self) -> None:
        """Removes those that are still in ``sys.modules``."""
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        """Finds a submodule that has no stand-in, after loading the real modules.

        Called as a finder on ``sys.meta_path``.
        """
        del path, target
        parent, _, child = name.rpartition(".")
        if not child or not isinstance(sys.modules.get(parent), StandIn):
            return None
        package = self._load(parent)
        if name in sys.modules:  # loaded with its parent
            spec = ModuleSpec(name, _Loaded(sys.modules[name]))
            sys.modules[name].__spec__ = spec  # which the import system prefers
            return spec
        return PathFinder.find_spec(name, package.__path__)

    def module(self, name: str) -> ModuleType:
        """A module that code pickled by value refers to: a stand-in, or else the real one."""
        if not self._wanted or _is_loaded():
            return importlib.import_module(name)
        if name in self._modules:
            return self._modules[name]
        known = _branch(self._tree, name)
        return importlib.import_module(name) if known is None else self._stand_in(name, known)

    def _load(self, name: str) -> ModuleType:
        self.leave()
        return importlib.import_module(name)

    def _original(self, name: str) -> Callable[..., Any]:
        self.leave()
        return keras_original(name)


def _is_loaded() -> bool:
    """Whether one of the real modules is loaded."""
    return any(not isinstance(sys.modules.get(root), (StandIn, type(None))) for root in ROOTS)


class _Loaded(Loader):
    """The loader of a module that is already loaded."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module itself."""
        del spec
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Does nothing."""
        module.__spec__ = self._spec


current = StandIns(None)
"""The stand-ins of the stream whose code is being loaded."""


def image_function(name: str) -> Callable[..., Any]:
    """Keras's image function of a name, for unpickling code."""
    function: Callable[..., Any] = getattr(current.images, name)
    return function


def module(name: str) -> ModuleType:
    """A module of Keras or TensorFlow, for unpickling code."""
    return current.module(name)
