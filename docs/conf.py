"""How Sphinx builds the site. ``scripts/docs`` runs it over the whole repository.

Pages are Markdown that GitHub shows as well. Four things are added when Sphinx reads a page:

- the table of contents, to the pages in ``CONTENTS``
- a class's or function's docstring, for ``<!-- docstring: loaderd_client.connect -->``
- an operation's docstring and the picture of what it does, for ``<!-- operation: RandomFlip -->``
- the ``--help`` of every command and verb, for ``<!-- verbs -->``
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import io
import os
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "client")]
os.environ["COLUMNS"] = "92"  # argparse's width

from loaderd import __version__  # noqa: E402
from loaderd.cli import stat, verbs  # noqa: E402
from scripts import pictures  # noqa: E402

project = "loaderd"
version = release = __version__
copyright = "the authors of loaderd, Apache 2.0"

root_doc = "docs/index"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**.md", "docs/**/*.md"]
exclude_patterns = [".*", "build", "client", "data", "dist", "loaderd", "scripts", "tests"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 5
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
maximum_signature_line_length = 80

html_theme = "furo"
html_title = f"loaderd {__version__}"

CONTENTS = {
    "docs/index": {
        "Start": ["/README", "tutorial"],
        "How-to": ["how-to/*"],
        "Reference": [
            "reference/api",
            "reference/client",
            "reference/augment",
            "reference/errors",
            "reference/commands",
            "reference/loaderd",
            "reference/loaderd-stat",
        ],
        "Explanation": ["explanation/*", "explanation/decisions/README", "benchmarks/README"],
        "Project": ["/CONTRIBUTING", "/CHANGELOG"],
    },
    "docs/explanation/decisions/README": {"Decisions": ["*"]},
}


def setup(app: Any) -> None:
    """Has Sphinx complete each page before it is parsed."""
    app.connect("source-read", _complete)
    app.connect("autodoc-process-signature", _signature)


def _signature(app: Any, what: str, name: str, thing: Any, *rest: Any) -> tuple[str, Any] | None:
    """That of an operation, where the type of ``ops`` would name all others."""
    if not name.startswith("loaderd_client.augment."):
        return None
    real = inspect.signature(thing)
    parameters = [
        one.replace(annotation=one.empty) if one.name == "ops" else one
        for one in real.parameters.values()
    ]
    return str(real.replace(parameters=parameters)), None


def _complete(app: Any, page: str, source: list[str]) -> None:
    text = re.sub(r"<!-- docstring: (\S+) -->", lambda found: _directive(found[1]), source[0])
    text = re.sub(r"<!-- operation: (\w+) -->", lambda found: _operation(found[1]), text)
    text = re.sub(r"<!-- verbs -->", lambda _: "\n".join(_helps()), text)
    source[0] = text + "".join(_contents(*part) for part in CONTENTS.get(page, {}).items())


def _contents(caption: str, pages: list[str]) -> str:
    options = f":hidden:\n:glob:\n:caption: {caption}"
    return "\n```{toctree}\n" + options + "\n\n" + "\n".join(pages) + "\n```\n"


def _directive(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    if not isinstance(getattr(import_module(module), attribute), type):
        return f"```{{eval-rst}}\n.. autofunction:: {name}\n```"
    bases = "PyDataset, Sequence, LoaderSequence"  # what they bring is described elsewhere
    options = f"   :members:\n   :inherited-members: {bases}"
    return f"```{{eval-rst}}\n.. autoclass:: {name}\n{options}\n```"


def _operation(name: str) -> str:
    """The docstring of an operation, without its methods, and its picture."""
    caption = pictures.caption(pictures.EXAMPLES[name])
    return (
        f"```{{eval-rst}}\n.. autoclass:: loaderd_client.augment.{name}\n```\n\n"
        f"![{name}](/build/pictures/{name}.png)\n\n{caption}.\n"
    )


def _helps() -> Iterator[str]:
    """A section for each command, verb and action, with its ``--help``."""
    for parser in _parsers(verbs.parser()):
        yield f"## `{parser.prog}`\n\n```text\n{parser.format_help()}```\n"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        stat.main(["--help"])
    yield f"## `loaderd-stat`\n\n```text\n{out.getvalue()}```\n"


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _parsers(verb)
