"""Reads the footer of a Parquet file: its columns, and where their chunks begin.

pyarrow would do it too, and ends the whole process at some damaged footers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from loaderd.ipc.manifest import MemberCodec
from loaderd.sources.parquet_pages import ColumnChunk
from loaderd.sources.ranged import RangedFile
from loaderd.sources.thrift import Struct, StructReader, inner, number, text

MAGIC = b"PAR1"
_ENCRYPTED = b"PARE"
_TAIL = 8
"""Bytes behind the footer: its length, and the magic."""

_KINDS = (
    "BOOLEAN",
    "INT32",
    "INT64",
    "INT96",
    "FLOAT",
    "DOUBLE",
    "BYTE_ARRAY",
    "FIXED_LEN_BYTE_ARRAY",
)
_CODECS = {
    0: MemberCodec.STORED,
    1: MemberCodec.SNAPPY,
    2: MemberCodec.GZIP,
    4: MemberCodec.BROTLI,
    6: MemberCodec.ZSTD,
    7: MemberCodec.LZ4,
}
_REFUSED_CODECS = {3: "LZO", 5: "LZ4 in the frames of Hadoop"}
_OPTIONAL, _REPEATED = 1, 2


class Leaf(NamedTuple):
    """A column that has values.

    Attributes:
        path: names from the outermost structure on, with dots between them.
        number: of the leaf, from 0.
        kind: of its values, such as ``BYTE_ARRAY``.
        max_level: the definition level of values that are there.
        is_list: whether a row may have several values.
    """

    path: str
    number: int
    kind: str
    max_level: int
    is_list: bool


class Footer:
    """The footer of a file.

    Args:
        file: the file.

    Attributes:
        rows: of the file.
        leaves: its columns.
        notes: texts that the program which wrote it has added, by their keys.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged or truncated.
    """

    def __init__(self, file: RangedFile) -> None:
        found = _read(file)
        schema = _structs(found, 2)
        self._groups = _structs(found, 4)
        self.rows = number(found, 3)
        self.leaves = list(_leaves(schema))
        self.notes = {text(one, 1): text(one, 2) for one in _structs(found, 5)}
        if self.rows < 0 or not self.leaves:
            raise ValueError("it is damaged: its footer has no columns")

    def chunks(self, leaf: Leaf) -> Iterator[ColumnChunk]:
        """The chunks of a column, in the order of their rows.

        Raises:
            ValueError: a chunk cannot be read; says why.
        """
        for group in self._groups:
            columns = _structs(group, 1)
            if leaf.number >= len(columns):
                raise ValueError("it is damaged: a group of rows lacks columns")
            yield _chunk(columns[leaf.number], leaf)


def _read(file: RangedFile) -> Struct:
    tail = file.pread(_TAIL, max(0, file.nbytes - _TAIL))
    if tail[4:] == _ENCRYPTED:
        raise ValueError("it is encrypted: write it again without encryption")
    if tail[4:] != MAGIC or file.pread(len(MAGIC), 0) != MAGIC:
        raise ValueError("it is truncated, or is no Parquet file: its footer is not there")
    size = int.from_bytes(tail[:4], "little")
    at = file.nbytes - _TAIL - size
    if at < len(MAGIC):
        raise ValueError("it is damaged: its footer is larger than the file")
    try:
        return StructReader(file.pread(size, at)).struct()
    except ValueError as error:
        raise ValueError("it is damaged: its footer cannot be read") from error


def _structs(of: Struct, field: int) -> list[Struct]:
    found = of.get(field)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _leaves(schema: list[Struct]) -> Iterator[Leaf]:
    """The leaves of a schema, which is a tree in the order in which one walks it."""
    open_groups: list[tuple[str, int, bool, int]] = []  # path, level, list, children to come
    count = 0
    for element in schema[1:]:
        while open_groups and not open_groups[-1][3]:
            open_groups.pop()
        outer, level, is_list, left = open_groups[-1] if open_groups else ("", 0, False, 1)
        if open_groups:
            open_groups[-1] = (outer, level, is_list, left - 1)
        path = outer + text(element, 4).decode(errors="replace")
        repetition = number(element, 3, 0)
        level += repetition in (_OPTIONAL, _REPEATED)
        is_list = is_list or repetition == _REPEATED
        children = number(element, 5, 0)
        if children:
            open_groups.append((path + ".", level, is_list, children))
        else:
            kind = number(element, 1)
            name = _KINDS[kind] if 0 <= kind < len(_KINDS) else "values of an unknown type"
            yield Leaf(path, count, name, level, is_list)
            count += 1


def _chunk(column: Struct, leaf: Leaf) -> ColumnChunk:
    if 1 in column:
        where = text(column, 1).decode(errors="replace")
        raise ValueError(f"its images lie in another file, {where}: name that one")
    about = inner(column, 3)
    codec = number(about, 4)
    if codec not in _CODECS:
        name = _REFUSED_CODECS.get(codec, f"the unknown method {codec}")
        raise ValueError(
            f"its images are compressed by {name}: write it again without compression, as images "
            "gain nothing by it"
        )
    start, first, nbytes = number(about, 9), number(about, 11, 0), number(about, 7)
    start = min(start, first) if first > 0 else start
    values = number(about, 5)
    if min(start, nbytes, values) < 0:
        raise ValueError("it is damaged: a column has no place")
    return ColumnChunk(start, nbytes, values, _CODECS[codec], leaf.max_level)
