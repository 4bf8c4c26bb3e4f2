"""The names that a function's code uses, read from its bytecode."""

from __future__ import annotations

import dis
import functools
from types import CodeType
from typing import NamedTuple

Chain = tuple[str, ...]
"""A name and the attributes read from it: ``config.sizes.LEVEL`` as three strings."""

_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF")
_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_STORES = ("STORE_FAST", "STORE_NAME", "STORE_GLOBAL", "STORE_DEREF")
_CONSTANTS = ("LOAD_CONST", "LOAD_SMALL_INT")
_NOTHING = ("EXTENDED_ARG", "CACHE", "PUSH_NULL")


class CodeNames(NamedTuple):
    """The names in a code object and those nested in it.

    Attributes:
        chains: names of globals and closure variables, with the attributes read from them.
        imports: modules that the code itself imports, with the attributes read from them; names
            of relative imports begin with dots.
        stored: globals that the code assigns.
        words: all names, and strings that may be names, as in ``getattr(config, "LEVEL")``.
    """

    chains: tuple[Chain, ...]
    imports: tuple[Chain, ...]
    stored: frozenset[str]
    words: frozenset[str]


@functools.lru_cache(maxsize=4096)
def names_of(code: CodeType) -> CodeNames:
    """The names in a code object; cached."""
    reader = _Reader()
    for instruction in dis.get_instructions(code):
        reader.read(instruction)
    reader.end_chain()
    words = {one for one in code.co_consts if isinstance(one, str) and one.isidentifier()}
    inner = [names_of(one) for one in code.co_consts if isinstance(one, CodeType)]
    return CodeNames(
        tuple(dict.fromkeys([*reader.chains, *(one for each in inner for one in each.chains)])),
        tuple(dict.fromkeys([*reader.imports, *(one for each in inner for one in each.imports)])),
        frozenset(reader.stored).union(*(each.stored for each in inner)),
        frozenset(words).union(code.co_names, *(each.words for each in inner)),
    )


class _Reader:
    """Collects names and attribute chains from a sequence of instructions."""

    def __init__(self) -> None:
        self.chains: list[Chain] = []
        self.imports: list[Chain] = []
        self.stored: list[str] = []
        self._chain: list[str] = []
        self._is_import = False
        self._bound: dict[str, Chain] = {}  # local name → imported module
        self._importing: Chain = ()
        self._takes_names = False
        self._constants: tuple[object, object] = (0, None)  # the last two

    def read(self, instruction: dis.Instruction) -> None:
        """Reads the next instruction."""
        operation, argument = instruction.opname, instruction.argval
        if operation in _NOTHING:
            return
        if self._chain and operation in _ATTRIBUTES:
            self._chain.append(argument)
            return
        self.end_chain()
        if operation in _CONSTANTS:
            self._constants = (self._constants[1], argument)
        elif operation == "IMPORT_NAME":
            level, names = self._constants
            self._importing = ("." * level + argument if isinstance(level, int) else argument,)
            self._takes_names = names is not None
            self.imports.append(self._importing)
        elif operation == "IMPORT_FROM":
            if self._takes_names:  # otherwise it is ``import a.b as c``
                self._importing = (self._importing[0], argument)
                self.imports.append(self._importing)
        elif operation in _STORES:
            self._store(operation, argument)
        elif operation == "POP_TOP":
            self._importing = ()
        elif operation in _GLOBALS or operation.startswith("LOAD_FAST"):
            self._load(operation, argument[-1] if isinstance(argument, tuple) else argument)

    def _store(self, operation: str, name: str) -> None:
        if operation == "STORE_GLOBAL":
            self.stored.append(name)
        if self._importing:
            module = self._importing[0]
            is_top = len(self._importing) == 1 and name == module.partition(".")[0]
            self._bound[name] = (name,) if is_top else self._importing
            if not self._takes_names:
                self._importing = ()

    def _load(self, operation: str, name: str) -> None:
        if name in self._bound:
            self._chain, self._is_import = [*self._bound[name]], True
        elif operation in _GLOBALS:
            self._chain, self._is_import = [name], False

    def end_chain(self) -> None:
        """Ends the chain of the name that was loaded last."""
        if self._chain:
            (self.imports if self._is_import else self.chains).append(tuple(self._chain))
            self._chain = []
