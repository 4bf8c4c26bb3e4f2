"""Reads objects of S3, Google Cloud Storage, Azure and web servers; the only user of obstore.

obstore has threads of its own, which do not survive a fork. So it is imported, and a store is made,
when a process first reads from it: an opener or a worker, from which nothing is forked. Credentials
come from the environment of that process, as each store's own tools have them.

Nothing is retried here; see :mod:`loaderd.sources.retries`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from loaderd.errors import MissingDependency, StorageRefused
from loaderd.ipc.text import printable
from loaderd.sources import file_identity
from loaderd.sources.ranged import Version
from loaderd.spec import url as urls

if TYPE_CHECKING:
    from typing_extensions import Buffer

_CONNECT_SECONDS = 10
_REQUEST_SECONDS = 60
"""Of one try, which is repeated."""

_STORES = 64
"""Stores that a process keeps open: one for each bucket, host, and signed URL."""

_STATUS = re.compile(r"status code: (\d{3}) ?([A-Za-z ]*)")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KIND = re.compile(r"kind: (Connect|Timeout|Interrupted|Request|Decode|Unknown)\b")
_SYSTEM = re.compile(r'message: "([^"]+)"')
_QUERY = re.compile(r"\?\S*")
_METADATA_SERVERS = ("169.254.169.254", "metadata.google.internal")
_PASSING = (408, 425, 429)
"""Statuses below 500 after which a request may be repeated."""

_KINDS = {
    "Connect": "no connection can be made",
    "Timeout": "it takes too long",
    "Interrupted": "the answer breaks off",
}


class Unreachable(Exception):
    """A store cannot be reached, or answers that it cannot now; the text says why."""


class MissingObject(Exception):
    """There is no such object, or no such bucket; the text says which."""


class Changed(Exception):
    """An object is not the version that was asked for."""


class Object(NamedTuple):
    """One of a listing.

    Attributes:
        key: in the store.
        version: of the object.
    """

    key: str
    version: Version


def head(url: str) -> Version:
    """The present version of an object.

    Raises:
        Changed: it is on the web and has no first byte.
        MissingObject: there is none.
        Unreachable: the store does not answer.
        StorageRefused: it refuses.
        MissingDependency: the extra is not installed.
    """
    store, key = _opened(url)
    try:
        if urls.is_listable(url):
            return _version(_library().head(store, key))
        # A URL may be signed for GET alone.
        return _version(_library().get(store, key, options={"range": (0, 1)}).meta)
    except Exception as error:
        raise translated(url, error) from None


def read_range(url: str, start: int, stop: int, known: Version) -> Buffer:
    """Bytes of a version of an object.

    Raises:
        Changed: it is another version by now.
        Exception: as :func:`head`.
    """
    store, key = _opened(url)
    try:
        answer = _library().get(store, key, options={"range": (start, stop)})
        data: Buffer = answer.bytes()
        found = _version(answer.meta)
    except Exception as error:
        raise translated(url, error) from None
    _check(found, known)
    return data


def read_ranges(url: str, ranges: Sequence[tuple[int, int]], known: Version) -> list[Buffer]:
    """Several ranges of a version of an object, read side by side.

    One call for all but the last takes half of the CPU time of single ones. It does not tell the
    version; the last one does, afterwards.

    Raises:
        Changed: it is another version by now.
        Exception: as :func:`head`.
    """
    *firsts, last = ranges
    found: list[Buffer] = []
    if firsts:
        store, key = _opened(url)
        starts, stops = zip(*firsts, strict=True)
        try:
            found += _library().get_ranges(store, key, starts=starts, ends=stops, coalesce=0)
        except Exception as error:
            raise translated(url, error) from None
    return [*found, read_range(url, *last, known)]


def read_whole(url: str) -> tuple[Buffer, Version]:
    """An object as it is now.

    Raises:
        Exception: as :func:`head`.
    """
    store, key = _opened(url)
    try:
        answer = _library().get(store, key)
        return answer.bytes(), _version(answer.meta)
    except Exception as error:
        raise translated(url, error) from None


def listing(url: str) -> Iterator[Object]:
    """All objects below a URL, with keys relative to it, in any order.

    Raises:
        Exception: as :func:`head`.
    """
    store, key = _opened(url)
    skipped = len(key) + 1 if key else 0
    try:
        for page in _library().list(store, key + "/" if key else None, chunk_size=1000):
            yield from (Object(one["path"][skipped:], _version(one)) for one in page)
    except Exception as error:
        raise translated(url, error) from None


def _check(found: Version, known: Version) -> None:
    # A listing may have fractions of a second, and an answer has none.
    is_same = found.tag == known.tag if known.tag else found[:2] == known[:2]
    if not is_same:
        raise Changed


def _version(meta: Mapping[str, Any]) -> Version:
    modified: datetime = meta["last_modified"]
    size, mtime, tag = int(meta["size"]), int(modified.timestamp()) * 10**9, meta["e_tag"] or ""
    return Version(size, mtime, file_identity.object_state(size, tag), tag)


def _library() -> Any:
    try:
        import obstore
    except ImportError as error:
        raise MissingDependency(
            'reading from object stores needs obstore: pip install "loaderd[cloud]"'
        ) from error
    return obstore


def _opened(url: str) -> tuple[Any, str]:
    """The store of a URL, and the key in it."""
    _library()
    store, key = urls.divided(url)
    try:
        return _store(store), key
    except Exception as error:
        raise translated(url, error) from None


@lru_cache(_STORES)
def _store(url: str) -> Any:
    os.environ.setdefault("TOKIO_WORKER_THREADS", "1")  # all that they do is wait
    from obstore.store import HTTPStore, from_url

    options: Any = {
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "timeout": timedelta(seconds=_REQUEST_SECONDS),
    }
    if _is_plain(url):
        options["allow_http"] = True
    retries: Any = {"max_retries": 0}
    if urls.is_listable(url):
        return from_url(url, client_options=options, retry_config=retries)
    return HTTPStore(url, client_options=options, retry_config=retries)


def _is_plain(url: str) -> bool:
    """Whether a store is asked without encryption, as one on loopback or in a cluster is."""
    endpoints = (value for name, value in os.environ.items() if "ENDPOINT" in name)
    return url.startswith("http://") or any(one.startswith("http://") for one in endpoints)


def translated(url: str, error: Exception) -> Exception:
    """The exception for one of obstore's, whose texts may hold a signed URL."""
    if isinstance(error, (StorageRefused, MissingDependency)):
        return error
    text, name = str(error), printable(urls.shown(url))
    code, status = _CODE.search(text), _STATUS.search(text)
    said = f"{status[1]} {status[2].strip()}".strip() if status else ""
    said = ", ".join(filter(None, (said, code[1] if code else "")))
    if any(server in text for server in _METADATA_SERVERS):
        return StorageRefused(
            f"{name}: no credentials are found in the environment of the process that reads (the "
            "daemon's): set those of the store, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    number = int(status[1]) if status else 0
    if isinstance(error, FileNotFoundError) or number == 404:
        return MissingObject(
            "there is no such bucket" if "NoSuchBucket" in text else "it does not exist"
        )
    if number in (412, 416):
        return Changed()
    if number in (401, 403):
        return StorageRefused(
            f"{name}: the store refuses access ({said}): the credentials in the environment of the "
            "daemon are wrong or expired, or do not allow to read and list this bucket"
        )
    if number >= 500 or number in _PASSING:
        return Unreachable(f"it answers {said}")
    kind = _KIND.search(text)
    if kind is None or kind[1] == "Decode":
        first = _QUERY.sub("", text.partition("\n")[0])
        return StorageRefused(f"{name}: the store cannot be read: {printable(said or first)}")
    system = _SYSTEM.search(text)
    reason = system[1] if system else _KINDS.get(kind[1], "the connection breaks")
    return Unreachable(printable(reason))
