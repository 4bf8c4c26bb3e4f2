"""Writes what follows from the code into docs/reference: the table of the daemon's settings.

``python -m scripts.reference`` writes it; a test fails where the page differs.
"""

from __future__ import annotations

import re
from pathlib import Path

from loaderd.config import FILE_KEYS, SETTINGS, VARIABLES, Setting

PAGE = Path(__file__).parents[1] / "docs/reference/loaderd.md"
_PLACE = re.compile("(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)


def written(page: str) -> str:
    """The page with the table of settings as the code has them."""
    return _PLACE.sub(lambda _: table(), page)


def table() -> str:
    """All settings that users have, one in a row."""
    head = "| option | variable | TOML key | default | meaning |\n|---|---|---|---|---|\n"
    return head + "".join(_row(SETTINGS[name]) for name in VARIABLES)


def _row(setting: Setting) -> str:
    option = f"{setting.flag} {setting.metavar or ''}".strip()
    key = f"`{setting.name}`" if setting.name in FILE_KEYS else ""
    default = f"`{setting.default}`" if setting.default else ""
    return f"| `{option}` | `{setting.variable}` | {key} | {default} | {setting.help} |\n"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
