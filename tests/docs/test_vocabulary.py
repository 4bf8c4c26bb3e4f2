"""The words of public names are in the vocabulary, or ordinary ones."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from loaderd.cli import verbs
from loaderd_client import augment

ROOT = Path(__file__).parents[2]
VOCABULARY = ROOT / "docs/explanation/vocabulary.md"
_ORDINARY = """
a address ahead all and answer argument arithmetic array arrays asker assign assignment attach
attached augmentation backup bar batching bell brightness builder call caller capture channel child
claim
client closed code codec column confirm confirmed connect connection constant context course
crashed data dataset death decoded decoder deliver dependency descriptor detach directory dismiss
doctor done draining draws empty end ended error event fail failed failure fast featurewise
field file findings finish fit fixed flip flow foreign forked found frame frozen function general
generator gone granted head held hello holder host identity illegal imagenet indexer indexing
installed invalid
isolate issued iterator keras lacks large launch layout limit link list listed listener
listing loaded loader loaderd loading loop many mapping memory message mismatch missing name no
normalization not notifier numpy observe observed one open opened option order ordered outcome
owned packed part partial peer pending pickled pickler pil pixel plugin preprocessing process
progress protocol random range rate read reader ready reclaimed reduced refused release
request requester resampling rescaling reserve reserved resizer resource restore resumable
room running said
samplewise save scan scheduled scheduler scratch sequence serve shape shift signal stage
stalled start stat stats status stop stopping storage store such superseded switches table
taken time timeout too training transform transition type unknown unread unsendable user verdict
version wait waiting waker wanted warp watch welcome work
"""
_AUGMENTATION = """
adjustment annotated augment augmented auto aug chain crop drawn erased kind label mix mixer
overlay picture pipeline preview style targets value window writer
"""
_HAND_OVER = "copies device hand jax over torch"
_REMOTE = "declined packer pauses program"
_SHARING = "behind joined leave left of out parked share sharing step"
_WEB = "access actions collector completion counters describe described monitor page point"
_LOAD = "autotune count doubt follower log once performer"
_WATCH = "diagnosis evidence report series set trend watch watcher web"
_SOURCES = """
bucket content element field footer group leaf local mapped mds object parquet protobuf ranged
record remote snappy struct truncated
"""
_STORES = "changed download fetched fetches fetching queue retries tree unreachable"
ORDINARY = {
    *_ORDINARY.split(),
    *_AUGMENTATION.split(),
    *_HAND_OVER.split(),
    *_SHARING.split(),
    *_SOURCES.split(),
    *_LOAD.split(),
    *_WATCH.split(),
    *_WEB.split(),
    *_REMOTE.split(),
    *_STORES.split(),
}
"""Words of English, of Python and of this kind of program, which need no explanation."""


def vocabulary() -> set[str]:
    rows = re.findall(r"^\| ([^|]+) \|", VOCABULARY.read_text(), re.M)
    return {word for row in rows for word in re.findall(r"[a-z]+", row.lower())}


def public_classes() -> Iterator[str]:
    for folder in ("loaderd", "client"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    yield node.name


def words_of(name: str) -> list[str]:
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    return [part.lower() for part in parts]


def singular(word: str) -> set[str]:
    return {word, *(word.removesuffix(end) for end in ("s", "es", "ed", "d"))}


@pytest.mark.parametrize("name", sorted({*public_classes()} - {*augment.__all__}))
def test_the_words_of_a_class_are_known(name: str) -> None:
    known = vocabulary() | ORDINARY
    unknown = [word for word in words_of(name) if not singular(word) & known]
    assert not unknown, f"{unknown}: explain in {VOCABULARY.name}, or use a word that is there"


def test_the_words_of_the_command_line_are_known() -> None:
    known = vocabulary() | ORDINARY
    names = [verb.__name__.rpartition(".")[2] for verb in verbs._VERBS]
    assert [word for name in names for word in words_of(name) if not singular(word) & known] == []


def test_the_rows_are_in_order_and_each_word_has_one() -> None:
    rows = re.findall(r"^\| ([^|]+) \|", VOCABULARY.read_text(), re.M)
    words = [row.strip().lower() for row in rows if row.strip() not in ("word", "---")]
    assert words == sorted(words)
    assert len(words) == len({*words})
