"""The words that plain technical English replaces do not come back."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = {
    "bury": "reap",
    "condemn": "abort",
    "stillborn": "failed start",
    "despair": "fail",
    "forgive": "extend deadlines",
    "photographer": "snapshot builder",
    "conversation": "connection",
    "spoilt": "failed",
    "patience": "deadline, timeout",
    "obey": "handle",
    "crew": "workers",
    "by name only": "keyword-only",
    "cuts off": "clips, truncates",
    "at_home": "import scope",
    "most_": "max_",
    "fewest_": "min_",
}
"""A word, and what to write in its place."""


def texts() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [
        ROOT / name
        for name in names.stdout.splitlines()
        if name.endswith((".py", ".md", ".svg")) and (ROOT / name) != Path(__file__)
    ]


@pytest.mark.parametrize("word", WORDS)
def test_a_replaced_word_is_not_used(word: str) -> None:
    pattern = re.compile(rf"\b_?{word}" + ("" if word.endswith("_") else r"\b"), re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: write {WORDS[word]}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found
