"""Members of an archive that make samples together, and their labels, as WebDataset has them."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import NamedTuple

from loaderd.sources.content import content
from loaderd.sources.labels import MAX_DIGITS
from loaderd.sources.member import Member
from loaderd.sources.ranged import RangedFile
from loaderd.spec.source import Archives, Layout, check_label

LABELS = ("cls", "json", "txt")
"""Extensions of members with labels, in the order in which ``auto`` looks for them."""

_FIELD = "label"
"""Of JSON, unless another is asked for."""

_MAX_LABEL = 2**20
"""Bytes of a member with a label."""


class Recipe(NamedTuple):
    """What decides an index, besides the archive; fields of :class:`loaderd.spec.Archives`."""

    layout: Layout
    label: str | None
    extensions: tuple[str, ...]
    columns: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: Archives) -> Recipe:
        """That of a source."""
        return cls(source.layout, source.label, source.extensions, source.columns, source.masks)


class SampleGroups:
    """Members grouped by key, as WebDataset does: a key is the name up to its first dot.

    Args:
        files: all that have content.
        recipe: what to look for.

    Raises:
        InvalidArgument: ``label`` is for archives of another format.

    Attributes:
        label: the extension of those with the labels; None if they are not asked for or not there.
        label_is_there: whether there are members with labels, be they asked for or not.
    """

    def __init__(self, files: list[Member], recipe: Recipe) -> None:
        check_label(recipe.label)
        self._extensions = frozenset(one.removeprefix(".") for one in recipe.extensions)
        self._masks = [one.removeprefix(".") for one in recipe.masks]
        self._groups: dict[str, dict[str, Member]] = defaultdict(dict)
        for member in files:
            key, extension = _key_and_extension(member.name)
            self._groups[key][extension] = member
        there = {
            one
            for group in self._groups.values()
            if self._extensions & group.keys()
            for one in group
        }
        found = next((one for one in LABELS if one in there), None)
        label, _, field = (recipe.label or "").partition(":")
        self.label = found if label == "auto" else label or None
        self.label_is_there = bool(there & {*LABELS, self.label})
        self._field = field or _FIELD
        self._is_asked = recipe.label is not None

    def samples(self, file: RangedFile) -> tuple[list[Member], list[int | str] | None]:
        """The images, and their labels if these were asked for.

        Args:
            file: the archive.

        Raises:
            ValueError: the members of a key make no sample; says which key.
        """
        images: list[Member] = []
        labels: list[int | str] = []
        for key, group in self._groups.items():
            found = [one for extension, one in group.items() if extension in self._extensions]
            if len(found) > 1:
                names = " and ".join(one.name for one in found[:2])
                raise ValueError(f"key {key} has two images, {names}: name one with `image`")
            if not found:
                self._check_unused(key, group)
                continue
            images.append(found[0])
            if self._is_asked:
                labels.append(self._label(file, found[0], group))
        if len({type(one) for one in labels}) > 1:
            raise ValueError("some labels are whole numbers and some are names")
        return images, labels if self._is_asked else None

    def masks(self, images: list[Member]) -> list[Member]:
        """The mask of each image; none if they were not asked for.

        Raises:
            ValueError: a key has no mask, or several; says which key.
        """
        return [self._mask(one) for one in images] if self._masks else []

    def _mask(self, image: Member) -> Member:
        key, _ = _key_and_extension(image.name)
        group = self._groups[key]
        found = [group[one] for one in self._masks if one in group]
        if not found:
            raise ValueError(
                f"{image.name} has no mask: key {key} has no member {' or '.join(self._masks)}; "
                "name its extension with `mask`"
            )
        if len(found) > 1:
            names = " and ".join(one.name for one in found[:2])
            raise ValueError(f"key {key} has two masks, {names}: name one with `mask`")
        return found[0]

    def _check_unused(self, key: str, group: dict[str, Member]) -> None:
        if self.label is not None and self.label in group:
            raise ValueError(
                f"{group[self.label].name} is the label of no image: key {key} has none of "
                f"{', '.join(sorted(self._extensions))}; name its extension with `image`"
            )

    def _label(self, file: RangedFile, image: Member, group: dict[str, Member]) -> int | str:
        found = group.get(self.label) if self.label is not None else None
        if found is None:
            wanted = " or ".join(LABELS) if self.label is None else self.label
            raise ValueError(f"{image.name} has no label: its key has no member {wanted}")
        if found.trouble:
            raise ValueError(f"{found.name} {found.trouble}")
        if found.size > _MAX_LABEL:
            raise ValueError(f"{found.name} is no label: it has {found.size:,} bytes")
        text = _text(file, found)
        if self.label == "json":
            return _json_label(found.name, text, self._field)
        return _number(found.name, text) if self.label == "cls" else _class_name(found.name, text)


def _key_and_extension(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    key, _, extension = last.partition(".")
    return folder + slash + key, extension.lower()


def _text(file: RangedFile, member: Member) -> str:
    try:
        stored = file.pread(member.stored, member.offset)
        return str(content(stored, member), "utf-8")
    except ValueError as error:
        raise ValueError(f"{member.name} is no label: {error}") from error


def _number(name: str, text: str) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS):
        raise ValueError(f"{name} is no label: it should hold a whole number from 0 on")
    return int(digits)


def _class_name(name: str, text: str) -> str:
    if not text.strip():
        raise ValueError(f"{name} is no label: it is empty")
    return text.strip()


def _json_label(name: str, text: str, field: str) -> int | str:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no JSON: {error}") from error
    value = value.get(field) if isinstance(value, dict) else None
    if isinstance(value, str):
        return _class_name(name, value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**MAX_DIGITS:
        return value
    raise ValueError(
        f"{name} has no label: its field {field!r} should be a whole number from 0 on, or the name "
        'of a class; another field is chosen by label="json:FIELD"'
    )
