"""What a URL is, how it is divided and shown."""

from __future__ import annotations

import pytest

from loaderd.errors import InvalidArgument
from loaderd.spec import url


@pytest.mark.parametrize("text", ["/a/b", "a.tar", "C:/a", "a:b", "://x", "data/s3:/x"])
def test_paths_are_no_urls(text: str) -> None:
    assert not url.is_url(text)
    assert url.shown(text) == text


@pytest.mark.parametrize(
    ("text", "store", "key"),
    [
        ("s3://b/a/b.tar", "s3://b", "a/b.tar"),
        ("s3://b", "s3://b", ""),
        ("gs://b/a b?c#d%20.tar", "gs://b", "a b?c#d%20.tar"),
        ("abfs://c@acc.dfs.core.windows.net/a", "abfs://c@acc.dfs.core.windows.net", "a"),
        ("https://h:1/a%20b/c.tar", "https://h:1", "a b/c.tar"),
        ("https://h/a.tar?sig=1", "https://h/a.tar?sig=1", ""),
        ("https://h/a%2Fb.tar", "https://h/a%2Fb.tar", ""),
    ],
)
def test_a_url_is_a_store_and_a_key(text: str, store: str, key: str) -> None:
    assert url.checked("urls", text) == text
    assert url.divided(text) == (store, key)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp://h/a", "ftp:// is none of s3://, gs://"),
        ("s3://me:secret@b/a", r"no password.*s3://\.\.\.@b/a$"),
        ("https://me@h/a", "no user"),
        ("abfs://c:secret@acc/a", "no password"),
        ("s3:///a", "names no bucket"),
        ("az://c/a.tar?sv=1&sig=secret", r"AZURE_STORAGE_SAS_TOKEN.*az://c/a\.tar\?\.\.\.$"),
        ("s3://b/a.tar?X-Amz-Signature=secret", r"signed URLs are read as https://"),
        ("gs://b/a.tar?X-Goog-Date=1&x-goog-signature=secret", "no signature"),
    ],
)
def test_what_cannot_be_read_is_refused_without_its_secrets(text: str, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words) as caught:
        url.checked("urls", text)
    assert "secret" not in str(caught.value)


def test_a_signature_is_not_shown() -> None:
    assert url.shown("https://h/a.tar?X-Signature=1") == "https://h/a.tar"
    assert url.shown("az://c/a.tar?sv=1&sig=1") == "az://c/a.tar"
    assert url.shown("s3://b/why?.tar") == "s3://b/why?.tar"


@pytest.mark.parametrize(
    ("paths", "folder", "names"),
    [
        (["s3://b/x/1.tar", "s3://b/x/2.tar"], "s3://b/x", ["1.tar", "2.tar"]),
        (["s3://b/x/1.tar", "s3://b/xy/2.tar"], "s3://b", ["x/1.tar", "xy/2.tar"]),
        (["s3://b/1.tar", "s3://c/1.tar"], "", ["s3://b/1.tar", "s3://c/1.tar"]),
        (["https://h/1.tar?a", "https://h/2.tar?b"], "https://h", ["1.tar", "2.tar"]),
    ],
)
def test_names_are_relative_to_the_common_folder(
    paths: list[str], folder: str, names: list[str]
) -> None:
    assert url.common_folder(paths) == folder
    assert [url.below(path, folder) for path in paths] == names
