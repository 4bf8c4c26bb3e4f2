"""Every value of a column of bytes is found where it lies in a Parquet file."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaderd.errors import BadArchive, LoaderdError, MissingDependency
from loaderd.ipc.manifest import MemberCodec
from loaderd.sources import hybrid, parquet, thrift
from loaderd.sources.archive_index import index_of
from loaderd.sources.archives import list_members
from loaderd.sources.codecs import unpacked, varint
from loaderd.sources.content import content
from loaderd.sources.groups import Recipe
from loaderd.sources.index_file import ArchiveSamples
from loaderd.sources.ranged import LocalFile
from loaderd.sources.snappy import SnappyElements
from loaderd.spec.source import Archives

HEADER = bytes(range(200)) * 3
"""What encoded images have in common; it makes compressors copy."""


def an_image(number: int, size: int) -> bytes:
    return HEADER + random.Random(number).randbytes(size)


def found_in(path: Path, *columns: str, label: str | None = None) -> ArchiveSamples:
    return parquet.samples(LocalFile(str(path)), columns, label, lambda _: None)


def values_of(path: Path, samples: ArchiveSamples) -> list[bytes | None]:
    file = LocalFile(str(path))
    return [
        None
        if one.codec == MemberCodec.ABSENT
        else bytes(content(file.pread(one.stored, one.offset), one))
        for one in samples.images
    ]


values = st.lists(
    st.one_of(
        st.none(),
        st.binary(max_size=40),
        st.builds(an_image, st.integers(0, 50), st.sampled_from([0, 3000, 70_000, 140_000])),
        st.sampled_from([HEADER, bytes(100_000)]),
    ),
    max_size=12,
)
options = st.fixed_dictionaries(
    {
        "compression": st.sampled_from(["none", "snappy", "gzip", "zstd", "lz4", "brotli"]),
        "data_page_version": st.sampled_from(["1.0", "2.0"]),
        "data_page_size": st.sampled_from([100, 100_000, 2**20]),
        "write_batch_size": st.sampled_from([1, 3, 1024]),
        "row_group_size": st.sampled_from([2, 5, 1000]),
        "use_dictionary": st.booleans(),
        "dictionary_pagesize_limit": st.sampled_from([1000, 2**20]),
        "write_statistics": st.booleans(),
        "write_page_index": st.booleans(),
        "write_page_checksum": st.booleans(),
        "column_encoding": st.sampled_from([None, "DELTA_LENGTH_BYTE_ARRAY"]),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    values=values,
    options=options,
    kind=st.sampled_from([pa.binary(), pa.large_binary(), pa.string()]),
    is_nested=st.booleans(),
)
def test_the_values_are_those_that_were_written(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[bytes | None],
    options: dict[str, Any],
    kind: Any,
    is_nested: bool,
) -> None:
    path = tmp_path_factory.getbasetemp() / "a.parquet"
    if kind == pa.string():
        values = [None if one is None else one.hex().encode() for one in values]
    column: Any = pa.array(values, kind)
    if is_nested:
        paths = pa.array([None if one is None else "a.jpg" for one in values], pa.string())
        column = pa.StructArray.from_arrays([column, paths], ["bytes", "path"])
    leaf = "image.bytes" if is_nested else "image"
    if options["column_encoding"]:
        options = options | {"column_encoding": {leaf: options["column_encoding"]}}
        options = options | {"use_dictionary": False}
    pq.write_table(pa.table({"n": np.arange(len(values)), "image": column}), path, **options)
    assert values_of(path, found_in(path)) == values


def test_columns_that_may_not_be_null_have_no_levels(tmp_path: Path) -> None:
    values = [an_image(n, 2000) for n in range(9)]
    schema = pa.schema([pa.field("image", pa.binary(), nullable=False)])
    for version in ("1.0", "2.0"):
        path = tmp_path / f"{version}.parquet"
        pq.write_table(pa.table({"image": values}, schema), path, data_page_version=version)
        assert values_of(path, found_in(path)) == values


def test_images_in_pages_of_snappy_take_little_more_than_their_own_bytes(tmp_path: Path) -> None:
    """Not the page of megabytes: what is read ends with the fragments of 64 KiB around an image."""
    values = [an_image(n, 40_000) for n in range(200)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": values}), path, compression="snappy")
    images = found_in(path).images
    assert max(one.stored - one.size for one in images) <= 2 * 2**16
    assert sum(one.stored for one in images) < 2.5 * sum(map(len, values))


def test_uncompressed_images_are_ranges_of_the_file(tmp_path: Path) -> None:
    values = [an_image(n, 1000) for n in range(50)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": values}), path, compression="none")
    whole = path.read_bytes()
    for one, value in zip(found_in(path).images, values, strict=True):
        assert one.codec == MemberCodec.STORED
        assert whole[one.offset : one.offset + one.size] == value


def test_labels_have_the_names_that_hugging_face_writes(tmp_path: Path) -> None:
    text = b'{"info": {"features": {"kind": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    table = pa.table({"image": [b"1", b"2"], "kind": [1, 0], "name": ["x", "y"]})
    path = tmp_path / "a.parquet"
    pq.write_table(table.replace_schema_metadata({"huggingface": text}), path)
    found = found_in(path, label="kind")
    assert (found.labels, found.class_names, found.label) == ([1, 0], ["cat", "dog"], "kind")
    named = found_in(path, label="name")
    assert (named.labels, named.class_names) == (["x", "y"], None)
    table = table.set_column(2, "name", table["name"].dictionary_encode())
    pq.write_table(table, path)
    assert found_in(path, label="name").labels == ["x", "y"]


def test_an_encoding_that_scatters_bytes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    encoding = {"image": "DELTA_BYTE_ARRAY"}
    table = pa.table({"image": [b"abc", b"abd"]})
    pq.write_table(table, path, use_dictionary=False, column_encoding=encoding)
    with pytest.raises(ValueError, match=r"by method 7, .* with the encoding PLAIN"):
        found_in(path)


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_damaged_files_are_errors_with_words_and_never_crash(
    tmp_path: Path, version: str, compression: str, encoding: str
) -> None:
    """Each byte of the pages changed, and the file cut anywhere."""
    path, flawed = tmp_path / "a.parquet", tmp_path / "b.parquet"
    values = [bytes([n]) * 20 for n in range(5)] + [None, b"abc"]
    pq.write_table(
        pa.table({"image": values}),
        path,
        compression=compression,
        data_page_version=version,
        store_schema=False,
        use_dictionary=encoding == "PLAIN",
        column_encoding=None if encoding == "PLAIN" else {"image": encoding},
    )
    whole = path.read_bytes()
    recipe = Recipe("parquet", None, ())
    random_bytes = random.Random(7)

    def read(data: bytes) -> None:
        flawed.write_bytes(data)
        try:
            values_of(flawed, found_in(flawed))
        except (LoaderdError, ValueError) as error:
            assert str(error)

    for at in range(len(whole)):
        read(whole[:at] + bytes([whole[at] ^ random_bytes.randrange(1, 256)]) + whole[at + 1 :])
    for at in range(len(whole)):
        flawed.write_bytes(whole[:at])
        with pytest.raises(BadArchive, match=r"b\.parquet: "):
            index_of(str(flawed), recipe, str(tmp_path), lambda _: None)


# -- its parts ---------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=50),
            st.builds(an_image, st.integers(0, 3), st.sampled_from([0, 500, 30_000])),
        ),
        max_size=12,
    ),
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_any_part_of_a_stream_of_snappy_is_decompressed_by_itself(
    pieces: Sequence[bytes], bounds: tuple[float, float]
) -> None:
    data = b"".join(pieces) + b"."
    packed: bytes = pa.Codec("snappy").compress(data, asbytes=True)
    elements = SnappyElements(packed)
    assert elements.nbytes == len(data)
    first = int(min(bounds) * (len(data) - 1))
    last = max(first + 1, int(max(bounds) * len(data)))
    (begin, end), (decoded, behind) = elements.part(first, last)
    found = unpacked(MemberCodec.SNAPPY, packed[begin:end], behind - decoded)
    assert bytes(found[first - decoded : last - decoded]) == data[first:last]
    assert elements.peek(4, first) == data[first : first + 4]
    at = elements.stored(first, last)
    assert at is None or packed[at : at + last - first] == data[first:last]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_streams_of_snappy_that_are_none_are_refused(data: bytes) -> None:
    try:
        elements = SnappyElements(data)
    except ValueError as error:
        assert "damaged" in str(error)
    else:
        assert elements.nbytes >= 0


@settings(max_examples=100, deadline=None)
@given(data=st.data(), width=st.integers(0, 20))
def test_packed_numbers_are_read_back(data: st.DataObject, width: int) -> None:
    runs = data.draw(
        st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 2**32)), max_size=5)
    )
    packed, expected = b"", list[int]()
    for is_run, count, seed in runs:
        if is_run:
            number = seed % (1 << width)
            packed += varint(count << 1) + number.to_bytes(-(-width // 8), "little")
            expected += [number] * count
        else:
            groups = -(-count // 8)
            numbers = [random.Random(seed + n).randrange(1 << width) for n in range(8 * groups)]
            bits = sum(number << width * place for place, number in enumerate(numbers))
            packed += varint(groups << 1 | 1) + bits.to_bytes(groups * width, "little")
            expected += numbers
    assert hybrid.numbers(packed, width, len(expected)).tolist() == expected
    if packed and width:
        with pytest.raises(ValueError, match="damaged"):
            hybrid.numbers(packed[:-1], width, len(expected))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_structures_of_thrift_are_read_or_refused(data: bytes) -> None:
    try:
        found = thrift.StructReader(data).struct()
    except ValueError:
        pass
    else:
        assert all(isinstance(number, int) for number in found)


@pytest.mark.parametrize("package", ["pyarrow", "cramjam"])
def test_a_missing_package_is_one_line_that_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    path = tmp_path / "a.parquet"
    values = [an_image(1, 90_000)]
    pq.write_table(pa.table({"image": values, "label": [1]}), path, compression="snappy")
    asked = Archives(directory="", extensions=(), paths=(str(path),))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=rf'^{package}, .*"loaderd\[parquet\]"$'):
        list_members(asked, [index_of(str(path), Recipe.of(asked), str(tmp_path), lambda _: None)])
