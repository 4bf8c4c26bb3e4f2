"""Programs that stand on pages of the documentation."""

from __future__ import annotations

import re
from pathlib import Path


def save_programs(page: Path, folder: Path) -> None:
    """Writes each program of a page, whose first line is a comment with its name, to a folder."""
    blocks = re.finditer(r"^```python\n(# (\w+\.py)\n.*?)^```$", page.read_text(), re.S | re.M)
    for block in blocks:
        (folder / block[2]).write_text(block[1])
